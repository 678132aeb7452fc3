"""Where the voxels of a CT are, beside it on its device; parts of it, and samples from it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from trct_monai.intensity import AIR_HU, STORED_HU

Box = tuple[slice, slice, slice, slice]
"""Part of a CT (1, X, Y, Z)."""


def axes_mm(ct_hu: Real[Tensor, "1 X Y Z"], spacing: float) -> list[Tensor]:
    """Positions of the voxels along x, y and z, in mm from the middle of the volume.

    Args:
        ct_hu: The CT.
        spacing: Voxel side in mm.
    """
    return [spacing * (torch.arange(n, device=ct_hu.device) - (n - 1) / 2) for n in ct_hu.shape[1:]]


def box_between(shape: Sequence[int], spacing: float, low_mm: Sequence[float], high_mm: Sequence[float]) -> Box | None:
    """The part of a CT between two corners; None if it has no voxel there.

    Args:
        shape: Voxels (X, Y, Z).
        spacing: Voxel side in mm.
        low_mm: The lowest corner in mm from the middle of the volume.
        high_mm: The highest corner.
    """
    parts = []
    for number, low, high in zip(shape, low_mm, high_mm):
        first = max(int(low / spacing + (number - 1) / 2), 0)
        last = min(int(high / spacing + (number - 1) / 2) + 1, number - 1)
        if first > last:
            return None
        parts.append(slice(first, last + 1))
    return slice(None), parts[0], parts[1], parts[2]


def positions_mm(ct_hu: Real[Tensor, "1 X Y Z"], spacing: float, box: Box) -> Float[Tensor, "3 A B C"]:
    """Positions of the voxels of a part of a CT, in mm from the middle of the volume.

    Args:
        ct_hu: The whole CT.
        spacing: Voxel side in mm.
        box: The part.
    """
    axes = [axis[part] for axis, part in zip(axes_mm(ct_hu, spacing), box[1:])]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()


def mix(ct_hu: Tensor, box: Box, coverage: Tensor, values: Tensor | float) -> None:
    """Put values into a part of a CT, in place, within what files keep of HU.

    Args:
        ct_hu: CT numbers in HU (1, X, Y, Z).
        box: The part.
        coverage: Share of each of its voxels that the values take, in [0, 1].
        values: In HU, one or one for each voxel.
    """
    part, values = ct_hu[box], torch.as_tensor(values, device=ct_hu.device).clamp(AIR_HU, STORED_HU[1])
    ct_hu[box] = torch.where(coverage > 0, part + coverage * (values - part), part)


def sampled(part: Float[Tensor, "C A B C2"], positions: Float[Tensor, "3 A B C2"], spacing: float) -> Tensor:
    """A part of a CT, or several channels of it, at other positions, trilinear; beyond the part as at its sides.

    Args:
        part: The channels.
        positions: Where each voxel is taken from, in mm from the middle of the part.
        spacing: Voxel side in mm.
    """
    half = [n * spacing / 2 for n in part.shape[1:]]
    grid = torch.stack([place / side for place, side in zip(positions, half)][::-1], dim=-1)
    return F.grid_sample(part[None], grid[None], padding_mode="border", align_corners=False)[0]
