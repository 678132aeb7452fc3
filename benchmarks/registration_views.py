"""Radiographs whose cameras are known: drawn at random, rendered from phantoms and CTs, degraded, and stored anyhow."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, zip_longest
from math import cos, radians, sin
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trct_monai.geometry import Camera, make_camera, voxel_to_world
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.intensity import hu_to_attenuation
from trct_monai.io.ct import read_ct
from trct_monai.phantoms import thorax_phantom
from trct_monai.physics import degrade
from trct_monai.preprocessing.cube import standardize
from trct_monai.projector import project
from trct_monai.registration.camera import POINTS, as_stored

NUM_PHANTOMS = 25
PHANTOM_SEED = 7000
PIXELS = 256
PHOTONS = 1000.0
DETECTOR_DISTANCE = 200.0
AZIMUTHS = {"pa": 0.0, "lat": 90.0}

STORED_AS = {name: name for name in ORIENTATIONS} | {"rotate_90": "rotate_270", "rotate_270": "rotate_90"}
"""How a picture is to be turned so that an orientation brings it back."""


@dataclass(frozen=True)
class Volume:
    """A CT: its name, HU (X, Y, Z) in RAS order, and voxel sides in mm."""

    name: str
    ct_hu: Tensor
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class View:
    """One drawn view.

    Attributes:
        number: It decides everything that is drawn.
        volume: Name of its CT.
        view: ``pa`` or ``lat``: what a user would call it.
        picture: As it is stored, whole numbers up to 255.
        camera: The truth, in mm from the CT's middle.
        transform: The orientation that brings the picture to the camera.
    """

    number: int
    volume: str
    view: str
    picture: Tensor
    camera: Camera
    transform: str


@lru_cache(maxsize=2)
def load(source: str) -> Volume:
    """A phantom by its seed, or a CT by its path."""
    if source.isdigit():
        phantom = thorax_phantom(int(source), size=128)
        return Volume(f"phantom {source}", torch.from_numpy(phantom.ct_hu), (2.5,) * 3)
    ct = read_ct(source)
    hu, affine = standardize(ct.ct_hu, ct.affine)
    return Volume(Path(source).name, hu, tuple(np.diag(affine)[:3].tolist()))


def sources(cts: Path | None, count: int) -> list[str]:
    """The CT of each view: half of the views of phantoms, half of real CTs, if there are any."""
    found: list[str] = []
    if cts is not None and cts.is_dir():
        files = sorted(str(path) for path in cts.rglob("*") if path.name.endswith((".nii.gz", ".nrrd")))
        found = files + sorted(str(path) for path in cts.iterdir() if any(path.glob("*.dcm")))
    phantoms = [str(PHANTOM_SEED + number) for number in range(NUM_PHANTOMS)]
    first = count if not found else count // 2
    plan = [phantoms[i * len(phantoms) // first] for i in range(first)]
    return plan + [found[i * len(found) // (count - first)] for i in range(count - first)]


def draw(source: str, number: int) -> View:
    """A view of a CT; even numbers are frontal, odd ones lateral."""
    volume, rng = load(source), np.random.default_rng(number)
    name = list(AZIMUTHS)[number % 2]
    width, height = rng.uniform(250, 500, 2)
    height = float(np.clip(height, 0.8 * width, 1.25 * width))
    inverse = 0.0 if rng.random() < 1 / 8 else rng.uniform(0, 1 / 700)
    turn, tilt, roll = rng.uniform(-5, 5, 3)
    azimuth = AZIMUTHS[name] + (180.0 if rng.random() < 0.5 else 0.0) + turn
    sod = None if inverse == 0 else 1 / inverse
    sdd = None if sod is None else sod + DETECTOR_DISTANCE
    magnification = 1.0 if sod is None or sdd is None else sdd / sod
    camera = make_camera(
        name, azimuth, elevation_deg=tilt, sod=sod, sdd=sdd,
        detector_extent=(height * magnification, width * magnification), size=(PIXELS, PIXELS),
    )  # fmt: skip
    column, row = np.array(camera.column_axis), np.array(camera.row_axis)
    c, s = cos(radians(roll)), sin(radians(roll))
    camera = replace(camera, column_axis=tuple(c * column + s * row), row_axis=tuple(c * row - s * column))
    shift = rng.uniform(-40, 40, 2)
    offset = shift[0] * np.array(camera.column_axis) + shift[1] * np.array(camera.row_axis)
    camera = camera.shifted(offset.tolist())
    affine = voxel_to_world(volume.ct_hu.shape, volume.spacing)
    line = project(hu_to_attenuation(volume.ct_hu.float())[None, None], [camera], affine=affine)
    seen = degrade(
        line, camera.pixel_spacing, scatter_fraction=rng.uniform(0, 0.3), photons=PHOTONS,
        generator=torch.Generator().manual_seed(number),
    )[0, 0]  # fmt: skip
    unit = (seen - seen.min()) / (seen.max() - seen.min())
    transform = list(ORIENTATIONS)[rng.integers(len(ORIENTATIONS))]
    picture = (unit ** rng.uniform(0.5, 2) * 255).round()
    return View(number, volume.name, name, orient(picture, STORED_AS[transform]), camera, transform)


def draw_all(cts: Path | None, count: int) -> Iterator[tuple[Volume, View]]:
    """All views, one CT after the other, two phantoms for each real one: a run cut short has seen both kinds."""
    plan = sources(cts, count)
    names = list(dict.fromkeys(plan))
    phantoms, real = ([name for name in names if name.isdigit() == kind] for kind in (True, False))
    order = [*chain(*zip_longest(phantoms[::2], phantoms[1::2], real))]
    for name in filter(None, order):
        for number in (number for number, source in enumerate(plan) if source == name):
            yield load(name), draw(name, number)


def error_mm(view: View, camera: Camera, transform: str) -> float:
    """Mean projection distance: of the middle and the corners of a cube of 320 mm, in mm at the isocentre.

    Points are compared where they appear in the stored picture, so that a mirrored orientation of the opposite view
    counts by what it does.
    """
    normal = np.array(view.camera.normal)
    magnification = 1.0
    if view.camera.source is not None:
        source, center = np.array(view.camera.source), np.array(view.camera.detector_center)
        magnification = float((center - source) @ normal / -(source @ normal))
    sides = torch.tensor([s * n for s, n in zip(view.camera.pixel_spacing[::-1], view.camera.size[::-1])])
    sides = sides / magnification / 2  # half of width and height
    turned = view.transform in ("transpose", "rotate_90", "rotate_270", "transpose_anti")
    difference = _places(camera, transform) - _places(view.camera, view.transform)
    return float((difference * (sides.flip(0) if turned else sides)).norm(dim=1).mean())


def _places(camera: Camera, transform: str) -> Tensor:
    points = torch.cat([POINTS, torch.ones(len(POINTS), 1, dtype=torch.float64)], dim=1)
    u, v, w = (points @ camera.world_to_detector().T).unbind(1)
    return as_stored(torch.stack([u / w, v / w], dim=1), transform)
