"""What is in a radiograph or a CT beside the chest: the table, and arms along the body."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trct_monai.variation.grid import axes_mm

DENSE_HU = -300.0
"""Above it there is a body."""

FREE_HU = -700.0
"""Below it something may be put."""


class Outline(NamedTuple):
    """Where the body ends, in mm from the middle of the volume.

    Attributes:
        left: Its lowest x.
        right: Its highest x.
        back: Its lowest y, near the middle.
    """

    left: float
    right: float
    back: float


def outline(ct_hu: Float[Tensor, "1 X Y Z"], spacing: float) -> Outline | None:
    """Where the body ends; None without one.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
    """
    dense = (ct_hu[0, ::2, ::2, ::4] > DENSE_HU).float()
    middle = len(dense) // 2
    across = (dense.mean(dim=(1, 2)) > 0.1).nonzero()[:, 0].tolist()
    along = (dense[middle - len(dense) // 8 : middle + len(dense) // 8].mean(dim=(0, 2)) > 0.3).nonzero()[:, 0].tolist()
    if not across or not along:
        return None
    step = 2 * spacing
    half_x, half_y = (step * n / 2 for n in dense.shape[:2])
    return Outline(across[0] * step - half_x, (across[-1] + 1) * step - half_x, along[0] * step - half_y)


def with_table(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, gap_mm: float, curvature: float, thickness_mm: float, hu: float
) -> Float[Tensor, "1 X Y Z"]:
    """A CT with a table behind the body: a foam core between two skins, curved as a trough; only where there is air.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        gap_mm: From the back to the table.
        curvature: Of the trough in 1/mm; 0 for a flat table.
        thickness_mm: Of the table, skins of 3 mm at either side included.
        hu: Of the skins.
    """
    found = outline(ct_hu, spacing)
    if found is None:
        return ct_hu
    x, y, _ = axes_mm(ct_hu, spacing)
    depth = (found.back - gap_mm) + 0.5 * curvature * x[:, None] ** 2 - y[None]
    inside = (depth > 0) & (depth < thickness_mm) & (x[:, None].abs() < 215)
    skin = inside & ((depth < 3) | (depth > thickness_mm - 3))
    values = torch.where(skin, hu, -850.0)
    return _put(ct_hu, inside[None, :, :, None], values[None, :, :, None])


def with_arms(
    ct_hu: Float[Tensor, "1 X Y Z"],
    spacing: float,
    radius_mm: float,
    offset_mm: Sequence[float],
    sides: Sequence[bool],
    hu: float,
) -> Float[Tensor, "1 X Y Z"]:
    """A CT with arms beside the body: cylinders along z with a bone in the middle; only where there is air.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        radius_mm: Of an arm; its bone has a quarter of it.
        offset_mm: From the body to the arm, and of its middle from that of the volume along y.
        sides: Whether there is one at low x, and at high x.
        hu: Of the bone.
    """
    found = outline(ct_hu, spacing)
    if found is None:
        return ct_hu
    x, y, _ = axes_mm(ct_hu, spacing)
    away = offset_mm[0] + radius_mm
    for middle, wanted in zip((found.left - away, found.right + away), sides):
        if wanted:
            distance = ((x[:, None] - middle) ** 2 + (y[None] - offset_mm[1]) ** 2).sqrt()
            values = torch.where(distance < radius_mm / 4, hu, torch.where(distance < 0.85 * radius_mm, 50.0, -100.0))
            ct_hu = _put(ct_hu, (distance < radius_mm)[None, :, :, None], values[None, :, :, None])
    return ct_hu


def _put(ct_hu: Tensor, where: Bool[Tensor, "1 X Y 1"], values: Float[Tensor, "1 X Y 1"]) -> Tensor:
    """Values in the air of a CT; slices that were not scanned stay empty."""
    scanned = (ct_hu[0, ::4, ::4] > DENSE_HU).flatten(0, 1).any(dim=0)
    return torch.where(where & scanned & (ct_hu < FREE_HU), values, ct_hu)
