"""Voxel grids in the world, and in the order of `grid_sample`."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def voxel_to_world(shape: Sequence[int], voxel_spacing: float | Sequence[float]) -> Float[Tensor, "4 4"]:
    """Affine (float64) of a volume that is centred on the isocentre, from voxel index to world mm.

    Args:
        shape: Number of voxels (X, Y, Z).
        voxel_spacing: Voxel side in mm, one number or one for each axis.

    Raises:
        ValueError: If the shape does not have three sizes, or a voxel side is not positive.
    """
    spacing = torch.as_tensor(voxel_spacing, dtype=torch.float64)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be three voxel counts (X, Y, Z), got {tuple(shape)}")
    if spacing.numel() not in (1, 3) or not bool((spacing > 0).all() and spacing.isfinite().all()):
        raise ValueError(f"voxel_spacing must be one or three positive numbers in mm, got {voxel_spacing}")
    spacing = spacing.expand(3)
    affine = torch.diag(torch.cat([spacing, torch.ones(1, dtype=torch.float64)]))
    affine[:3, 3] = -spacing * (torch.tensor([*shape], dtype=torch.float64) - 1) / 2
    return affine


def voxel_centers(shape: Sequence[int], voxel_spacing: float | Sequence[float]) -> Float[Tensor, "X Y Z 3"]:
    """World coordinates in mm (float64) of all voxel centres of a volume that is centred on the isocentre."""
    affine = voxel_to_world(shape, voxel_spacing)
    axes = [torch.arange(n, dtype=torch.float64) * affine[i, i] + affine[i, 3] for i, n in enumerate(shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def world_to_grid(points: Float[Tensor, "*batch 3"], extent: float | Sequence[float]) -> Float[Tensor, "*batch 3"]:
    """Coordinates for `grid_sample` on a (X, Y, Z) volume: [-1, 1] from face to face, in (z, y, x) order.

    Args:
        points: World coordinates (x, y, z) in mm.
        extent: Sides of the volume in mm; the volume is centred on the isocentre.
    """
    half = torch.as_tensor(extent, dtype=points.dtype).expand(3) / 2  # (x, y, z)
    return (points / half.to(points.device, non_blocking=True)).flip(-1)
