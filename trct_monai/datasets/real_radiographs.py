"""Radiographs of the patient of a CT: which is a frontal and which a lateral, and how each was taken.

Nothing that a header says of a view is believed. Each radiograph is registered with the CT as a frontal and as a
lateral; it is the one that fits with certainty, if it explains the picture clearly better than the other. What fits as
neither is left out, with the reason: another patient, another part of the body, or a body that has changed too much.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.datasets.cases import SeveralReasonsError, view_fields
from trct_monai.datasets.given import middle_of
from trct_monai.datasets.sources import Source, relative_path, safe_name
from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import preset
from trct_monai.io.ct import CT
from trct_monai.io.dicom.examination import read_examination
from trct_monai.io.dicom.radiograph import OPPOSITE, VIEW_POSITIONS
from trct_monai.io.radiograph import Radiograph, read_radiograph, save_picture
from trct_monai.preprocessing.body import find_body
from trct_monai.preprocessing.cube import standardize
from trct_monai.registration.camera import POINTS, Registration, register
from trct_monai.registration.chests.regions import find_regions
from trct_monai.registration.orientation import save_comparison
from trct_monai.registration.prior import Prior

REAL = "real"
"""What the provenance of a case calls these radiographs."""

MAX_ERROR = 5.0
"""Estimated error in mm from which the camera of a radiograph is not sure. Bodies differ: another patient's radiograph
has 7.8 or more, one of the same patient in another breath or bent 4.7 at most (data/README.md)."""

CLEARLY = 0.7
"""A view is clear if what it leaves unexplained of the picture, 1 - correlation^2, is less than this share of what the
other view leaves."""

NAMES = {"pa": "frontal", "lat": "lateral"}


@dataclass(frozen=True)
class RealOptions:
    """What is asked of real radiographs; see `trct_monai.datasets.prepare.prepare` for each."""

    max_error: float = MAX_ERROR
    single_view: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.max_error < inf:
            raise ValueError(f"max_error must be positive, got {self.max_error} mm")


@dataclass(frozen=True)
class _Film:
    """A radiograph that was understood, and the days from the CT to it."""

    path: Path
    radiograph: Radiograph
    found: Registration
    days: int | None

    @property
    def order(self) -> tuple[float, float]:
        """The first is taken: the nearest day, then the highest correlation."""
        return inf if self.days is None else abs(self.days), -abs(self.found.orientation["correlation"])


def write_real_radiographs(
    source: Source,
    ct: CT,
    cube: MetaTensor,
    folder: Path,
    *,
    options: RealOptions,
    min_correlation: float,
    root: Path,
    refused: Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Choose a frontal and a lateral among a patient's radiographs and write them as 16-bit PNG without headers.

    Args:
        source: The CT with the radiographs of its patient.
        ct: The CT as it was given.
        cube: The case's cube in HU.
        folder: The case's folder.
        options: What is asked of them.
        min_correlation: Least correlation with what the camera gives.
        root: Folder to which recorded paths are relative.
        refused: Folder for pictures of radiographs that fit nowhere.

    Returns:
        The fields of `trct_monai.datasets.cases.view_fields`, and what the provenance has of the radiographs.

    Raises:
        SeveralReasonsError: If a view is missing.
        ValueError: If the CT has no lungs.
    """
    volume, affine = standardize(ct.ct_hu, ct.affine)
    spacing = np.diag(affine)[:3].tolist()
    body = find_body(volume, affine)
    if body is None or body.lungs is None:
        raise ValueError(f"{source.path}: no lungs found, whose middle must be in every radiograph")
    middle = middle_of(ct.affine, ct.ct_hu.shape[1:])
    to_lungs = (middle - body.lungs.mean(axis=0)).tolist()
    to_cube = (middle - middle_of(cube.affine, cube.shape[1:])).tolist()
    scanned = read_examination(source.files[0])
    films: dict[str, list[_Film]] = {"pa": [], "lat": []}
    left_out: list[tuple[Path, str]] = []
    for number, path in enumerate(source.unsorted, start=1):
        try:
            radiograph = read_radiograph(path)
            picture = refused / f"{source.case_id}_{number}_{safe_name(path.stem)}.png"
            found = _as_either_view(radiograph, volume[None], spacing, min_correlation, options.max_error, picture)
            _check_chest(found.camera.shifted(to_lungs))
            found = replace(found, camera=found.camera.shifted(to_cube))
        except ValueError as error:
            left_out.append((path, str(error).removeprefix(f"{path}: ")))
            continue
        days = read_examination(path).days_since(scanned)
        films[found.camera.name].append(_Film(path, radiograph, found, days))
    chosen = [sorted(some, key=lambda film: film.order) for some in films.values() if some]
    for first, *others in chosen:
        for film in others:
            how = "fits better" if film.order[0] == first.order[0] else "is nearer in time to the CT"
            kind, taken = NAMES[first.found.camera.name], relative_path(first.path, root)
            left_out.append((film.path, f"another {kind}: {taken} {how}"))
    missing = [NAMES[view] for view, some in films.items() if not some]
    if len(missing) == 2 or (missing and not options.single_view):
        reasons = [f"{relative_path(path, root)}: {reason}" for path, reason in left_out]
        hint = "" if len(missing) == 2 else " (--single_view True keeps a CT with one of the two)"
        raise SeveralReasonsError(
            f"{source.path}: no {' and no '.join(missing)} radiograph of this patient{hint}", reasons
        )
    return _written(source, [first for first, *_ in chosen], folder), {
        "radiographs": REAL,
        "films": [_record(first, root) for first, *_ in chosen],
        "left_out": [{"path": relative_path(path, root), "reason": reason} for path, reason in left_out],
    }


def measured_pixels(image: Float[Tensor, "H W"], valid: Bool[Tensor, "H W"] | None = None) -> Bool[Tensor, "H W"]:
    """Pixels of a real radiograph that show the body or air: no shutters, borders, letters and saturated ends.

    Args:
        image: A picture that is bright where it attenuates, on any scale.
        valid: Pixels that hold a measurement, where a file says so.

    Raises:
        ValueError: If hardly any pixel shows a body.
    """
    regions = find_regions(image, valid)
    shown = (regions.body | regions.air).float()[None, None]
    return F.interpolate(shown, size=tuple(image.shape), mode="nearest")[0, 0] > 0.5


def describe_real(cases: Sequence[Any]) -> list[str]:
    """Lines about cases of real radiographs: what was left out, and whose header names another view.

    Args:
        cases: Those of a datalist; others are passed over.
    """
    lines = []
    for case in cases:
        provenance = case["provenance"]
        for film in provenance.get("films", []):
            stated = VIEW_POSITIONS.get(film["view_position"])
            if stated not in (None, film["view"]):
                kind, position = NAMES[film["view"]], film["view_position"]
                lines.append(f"{case['case_id']}: {film['path']} is a {kind}, its header says {position}")
        for one in provenance.get("left_out", []):
            lines.append(f"left out {one['path']} ({case['case_id']}): {one['reason']}")
    return lines


def _as_either_view(
    radiograph: Radiograph,
    ct_hu: Tensor,
    spacing: Sequence[float],
    min_correlation: float,
    max_error: float,
    picture: Path,
) -> Registration:
    """The registration as a frontal or as a lateral, whichever is right."""
    image, size = radiograph.image, (radiograph.image.shape[0], radiograph.image.shape[1])
    mask = measured_pixels(image, radiograph.valid)
    found = []
    for camera in preset("clinic"):
        position = radiograph.view_position
        opposite = position in OPPOSITE and VIEW_POSITIONS[position] == camera.name
        prior = Prior.of_radiograph(camera.name, size, radiograph.pixel_spacing or (1.0, 1.0), opposite)
        found.append(register(image, ct_hu, spacing, camera, mask=mask, prior=prior))
    best, other = sorted(found, key=_unexplained)
    fits = " and ".join(
        f"as a {NAMES[one.camera.name]} {abs(one.orientation['correlation']):.3f} and {one.error_mm:.1f} mm"
        for one in (best, other)
    )
    if not best.is_sure(min_correlation, max_error):
        save_comparison(picture, best)
        raise ValueError(
            f"fits the CT with certainty neither as a frontal nor as a lateral, by correlation and error {fits}; asked "
            f"are {min_correlation:g} and {max_error:g} mm; see {picture.parent.name}/{picture.name}"
        )
    if _unexplained(best) > CLEARLY * _unexplained(other):
        raise ValueError(f"whether it is a frontal or a lateral is not clear, by correlation and error {fits}")
    return best


def _unexplained(found: Registration) -> float:
    return 1 - found.orientation["correlation"] ** 2


def _check_chest(camera: Camera) -> None:
    """Refuse a picture that was registered and does not show the middle of the lungs, such as an abdomen.

    Args:
        camera: Its camera, in mm from the middle of the lungs.
    """
    points = torch.cat([POINTS / 2, torch.ones(len(POINTS), 1, dtype=torch.float64)], dim=1)
    u, v, w = (points @ camera.world_to_detector().T).T
    seen = ((u / w).abs() < 1.1) & ((v / w).abs() < 1.1)
    if not bool(seen.all()):
        raise ValueError(f"shows {int(seen.sum())} of {len(seen)} points of the middle of the lungs, no whole chest")


def _written(source: Source, films: Sequence[_Film], folder: Path) -> dict[str, Any]:
    names = [f"{source.case_id}_{film.found.camera.name}.png" for film in films]
    for name, film in zip(names, films):
        save_picture(folder / name, film.radiograph.image, film.radiograph.valid)
    found = [film.found for film in films]
    return view_fields(
        names, [one.camera for one in found], [one.orientation for one in found], [one.intensity for one in found]
    )


def _record(film: _Film, root: Path) -> dict[str, Any]:
    """What is kept of a radiograph's header: no name, no day, and no text that may be either."""
    position = film.radiograph.view_position
    return {
        "view": film.found.camera.name,
        "path": relative_path(film.path, root),
        "days_after_ct": film.days,
        "view_position": position if position in VIEW_POSITIONS else "",
        "scatter_fraction": round(film.found.scatter, 3),
    }
