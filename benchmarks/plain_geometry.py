"""Cone views in the plainest PyTorch: `linalg.solve`, `einsum` and `grid_sample`, everything computed at each call.

Volumes are cubes centred on the isocentre. Matrices (B or 1, V, 3, 4) take mm to [-1, 1] on the detector.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def centers(size: int, extent: float) -> Tensor:
    """Centres of the voxels in mm (size, size, size, 3)."""
    axis = ((torch.arange(size) + 0.5) / size - 0.5) * extent
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)


def sources(matrices: Tensor) -> Tensor:
    """Where the views' X-rays come from (B, V, 3)."""
    return torch.linalg.solve(matrices[..., :3], -matrices[..., 3:])[..., 0]


def directions(matrices: Tensor, size: int) -> Tensor:
    """Directions of the rays through size x size pixels (B, V, h, w, 3), away from the source."""
    axis = (2 * torch.arange(size) + 1) / size - 1
    v, u = torch.meshgrid(axis, axis, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)]).flatten(1)
    rays = torch.linalg.solve(matrices[..., :3], pixels).transpose(-2, -1)
    return F.normalize(rays, dim=-1).unflatten(-2, (size, size))


def lift(features: Tensor, matrices: Tensor, size: int, extent: float) -> Tensor:
    """Feature maps (B, V, C, h, w) at the voxels that project to them (B, V, C, X, Y, Z)."""
    batch, views = features.shape[:2]
    points = centers(size, extent)
    uvw = torch.einsum("bvij,xyzj->bvxyzi", matrices[..., :3], points) + matrices[:, :, None, None, None, :, 3]
    grid = (uvw[..., :2] / uvw[..., 2:]).expand(batch, -1, -1, -1, -1, -1)
    lifted = F.grid_sample(
        features.flatten(0, 1), grid.reshape(batch * views, size, size * size, 2), align_corners=False
    )
    return lifted.view(batch, views, -1, size, size, size)


def lift_with_direction(features: Tensor, matrices: Tensor, size: int, extent: float, embed: torch.nn.Module) -> Tensor:
    """Lifted features that know the direction of the ray."""
    rays = F.normalize(centers(size, extent) - sources(matrices)[:, :, None, None, None], dim=-1)
    return F.silu(lift(features, matrices, size, extent) + embed(rays).movedim(-1, 2))


def field_values(volume: Tensor, points: Tensor, extent: float) -> Tensor:
    """Volumes (B, 1, X, Y, Z) at points (N, 3) in mm (B, 1, N)."""
    grid = (points / (extent / 2)).flip(-1).expand(len(volume), 1, 1, -1, -1)
    return F.grid_sample(volume, grid, padding_mode="border", align_corners=False)[:, :, 0, 0]


def slices_on_rays(matrices: Tensor, pixels: int, voxels: int, extent: float) -> tuple[Tensor, Tensor]:
    """Where the rays cross the slices of a volume, (B, V, D, h, w, 3) for `grid_sample`, and mm from slice to slice."""
    source, ray = sources(matrices), directions(matrices, pixels)
    grids, lengths = [], []
    for start, rays in zip(source.flatten(0, 1), ray.flatten(0, 1)):
        axis = rays.mean(dim=(0, 1)).abs().argmax()
        slices = ((torch.arange(voxels) + 0.5) / voxels - 0.5) * extent
        distance = (slices[:, None, None] - start[axis]) / rays[..., axis]
        points = start + distance[..., None] * rays
        grids.append((points / (extent / 2)).flip(-1))
        lengths.append(extent / voxels / rays[..., axis].abs())
    shape = matrices.shape[:2]
    return torch.stack(grids).unflatten(0, shape), torch.stack(lengths).unflatten(0, shape)


def project(volume: Tensor, grids: Tensor, lengths: Tensor) -> Tensor:
    """Line integrals (B, C, V, h, w) of volumes (B, C, X, Y, Z): all samples of a view at once, then their sum."""
    grids = grids.expand(len(volume), -1, -1, -1, -1, -1)
    sums = [F.grid_sample(volume, grids[:, view], align_corners=False).sum(dim=2) for view in range(grids.shape[1])]
    return torch.stack(sums, dim=2) * lengths[:, None]
