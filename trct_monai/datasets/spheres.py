"""Spheres in a patient: a place in the lungs, and the shadow that they cast."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU
from trct_monai.metrics.anatomy import find_lungs
from trct_monai.metrics.sphere import Sphere

SUBPIXELS = 4
"""A pixel's shadow is the mean over so many rays along each of its sides."""

AIRWAY = 7.0
"""Tissue is told from air by the mean over a cube of this side in mm: noise is no air, the trachea is."""


def chord_lengths(sphere: Sphere, camera: Camera) -> Float[Tensor, "H W"]:
    """Length in mm that each pixel's rays run inside a sphere, 2 sqrt(r^2 - d^2), the mean of 4 x 4 rays a pixel.

    Args:
        sphere: The sphere, its centre in mm from the isocentre.
        camera: The view.
    """
    fine = camera.resized((camera.size[0] * SUBPIXELS, camera.size[1] * SUBPIXELS))
    r, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in fine.size), indexing="ij")
    pixels = torch.stack([c, r, torch.ones_like(c)], dim=-1) @ fine.pixel_to_world().T
    if fine.source is None:
        direction = torch.tensor(fine.normal, dtype=torch.float64).expand_as(pixels)
    else:
        direction = torch.nn.functional.normalize(pixels - torch.tensor(fine.source, dtype=torch.float64), dim=-1)
    offset = torch.tensor(sphere.center_mm, dtype=torch.float64) - pixels
    squared_distance = offset.square().sum(-1) - (offset * direction).sum(-1).square()
    chords = 2 * ((sphere.diameter_mm / 2) ** 2 - squared_distance).clamp(min=0).sqrt()
    rows, columns = camera.size
    mean: Tensor = chords.reshape(rows, SUBPIXELS, columns, SUBPIXELS).mean((1, 3)).float()
    return mean


def find_lung_tissue(hu: np.ndarray, voxel_spacing: float) -> np.ndarray:
    """Where the lungs are neither airway nor another pocket of air.

    Args:
        hu: CT numbers (X, Y, Z), RAS.
        voxel_spacing: Voxel side in mm.
    """
    mean = ndimage.uniform_filter(hu, max(1, round(AIRWAY / voxel_spacing)))
    return np.asarray(find_lungs(hu, voxel_spacing) & (mean > BODY_HU))


def choose_place(
    lungs: np.ndarray, voxel_spacing: float, radius: float, case_id: str, seed: int
) -> tuple[float, float, float]:
    """A voxel of the lungs, drawn by the case's name, around which a sphere of this radius stays in the lungs.

    Args:
        lungs: True in the lungs (X, Y, Z).
        voxel_spacing: Voxel side in mm.
        radius: Radius in mm that must fit; where it fits nowhere, the place with the most room is taken.
        case_id: The case.
        seed: Another seed draws another place.

    Returns:
        Its centre in mm from the middle of the volume.

    Raises:
        ValueError: If there are no lungs.
    """
    if not lungs.any():
        raise ValueError(f"{case_id} has no lungs to plant a sphere in")
    # From the voxel's middle to the face of the nearest voxel that is not lung; beyond the volume there is none.
    room = (ndimage.distance_transform_edt(np.pad(lungs, 1))[1:-1, 1:-1, 1:-1] - 0.5) * voxel_spacing
    places = np.argwhere(room >= min(radius, float(room.max())))
    draw = int(hashlib.sha256(f"{seed} {case_id}".encode()).hexdigest(), 16)
    index = places[draw % len(places)]
    x, y, z = ((index - (np.array(lungs.shape) - 1) / 2) * voxel_spacing).tolist()
    return x, y, z


def check_shows(sphere: Sphere, shape: Sequence[int], voxel_spacing: float) -> None:
    """Refuse a sphere that the cube cuts, and one that the observer cannot see in the label's whole HU either.

    Args:
        sphere: The sphere, its centre in mm from the middle of the cube.
        shape: Voxels along each side of the cube.
        voxel_spacing: Voxel side in mm.

    Raises:
        ValueError: If it does not fit, or does not show.
    """
    what = f"a sphere of {sphere.diameter_mm:g} mm and {sphere.contrast_hu:g} HU"
    if max(map(abs, sphere.center_mm)) + sphere.diameter_mm / 2 > min(shape) * voxel_spacing / 2:
        raise ValueError(f"{what} does not fit into the cube where there is lung; plant smaller ones")
    if sphere.response((sphere.contrast_hu * sphere.share(shape, voxel_spacing)).round(), voxel_spacing) <= 0:
        raise ValueError(f"{what} does not show in voxels of {voxel_spacing:g} mm; plant larger ones")
