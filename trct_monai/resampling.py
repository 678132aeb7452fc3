"""Antialiased resampling between grids parallel to the world axes, and the conversion of any affine to such a grid.

Every target voxel is the mean of the source, taken as constant within each source voxel, over a box as wide as the
larger of the two voxels. This one rule is area averaging to larger voxels (the block mean for whole ratios), linear
interpolation to smaller ones, and the identity on the same grid. It never overshoots, it keeps line integrals, and it
does not shift: voxel faces are compared in mm.

A linear ramp is exact for whole ratios and to smaller voxels; otherwise its error is at most 1/8 of the source voxel
squared over the target voxel (0.025 mm from 0.7 mm to 2.5 mm).
"""

from collections.abc import Sequence

import nibabel
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from trct_monai.geometry import world_to_grid

ALIGNED_TOLERANCE = 0.05
"""Obliqueness that is ignored: drift of an axis over the whole volume, as a share of a voxel."""

POINTS_PER_BLOCK = 2**22
"""Voxels that `to_world_axes` samples at once, to bound its memory."""


def resampling_matrix(
    source: tuple[int, float, float], target: tuple[int, float, float], dtype: torch.dtype = torch.float32
) -> Float[Tensor, "target source"]:
    """Weights from the samples of one axis to another grid; a row's sum is the share of the voxel that is covered.

    Args:
        source: Number of voxels, voxel side in mm, and centre of the first voxel in mm.
        target: The same of the target grid.
        dtype: Type of the weights; they are computed in float64.
    """
    (source_size, source_step, source_start), (target_size, target_step, target_start) = source, target
    centers = target_start + target_step * torch.arange(target_size, dtype=torch.float64)
    faces = source_start + source_step * (torch.arange(source_size + 1, dtype=torch.float64) - 0.5)

    def overlap(width: float) -> Tensor:
        low, high = centers[:, None] - width / 2, centers[:, None] + width / 2
        return (torch.minimum(high, faces[1:]) - torch.maximum(low, faces[:-1])).clamp(min=0)

    weights = overlap(max(source_step, target_step))
    covered = overlap(target_step).sum(dim=1, keepdim=True) / target_step
    weights = weights * covered / weights.sum(dim=1, keepdim=True).clamp(min=1e-9 * source_step)
    weights[weights < 1e-9] = 0
    return weights.to(dtype)


def resample(
    volume: Shaped[Tensor, "X Y Z"], affine: np.ndarray, shape: Sequence[int], target_affine: np.ndarray, fill: float
) -> Float[Tensor, "X2 Y2 Z2"]:
    """A volume on another grid, antialiased; both grids parallel to the world axes.

    Args:
        volume: Any values.
        affine: From voxel index to world mm (4, 4), diagonal and positive.
        shape: Number of voxels of the result.
        target_affine: From the result's voxel index to world mm (4, 4), diagonal and positive.
        fill: Value outside the volume.
    """
    matrices = [
        resampling_matrix(
            (volume.shape[axis], float(affine[axis, axis]), float(affine[axis, 3])),
            (int(shape[axis]), float(target_affine[axis, axis]), float(target_affine[axis, 3])),
        ).to(volume.device)
        for axis in range(3)
    ]
    for axis, matrix in enumerate(matrices):
        used = matrix.any(dim=0).nonzero().flatten().tolist()
        if not used:
            return torch.full([int(n) for n in shape], float(fill), device=volume.device)
        volume = volume.narrow(axis, used[0], used[-1] + 1 - used[0])
        matrices[axis] = matrix[:, used[0] : used[-1] + 1]
    # In the order of memory no contraction needs a copy of the volume.
    strides = volume.stride()
    order = sorted(range(3), key=lambda axis: strides[axis], reverse=True)
    result = volume.permute(order).to(torch.float32, copy=True).sub_(fill)  # one copy: a CT may take gigabytes
    for place in sorted(range(3), key=lambda place: matrices[order[place]].shape[0] / result.shape[place]):
        result = _contract(matrices[order[place]], result, place)
    return result.permute([order.index(axis) for axis in range(3)]).contiguous().add_(fill)


def _contract(
    matrix: Float[Tensor, "target source"], volume: Float[Tensor, "A B C"], place: int
) -> Float[Tensor, "A2 B2 C2"]:
    """The matrix applied along one axis."""
    if place == 0:
        return (matrix @ volume.reshape(len(volume), -1)).view(len(matrix), *volume.shape[1:])
    return matrix @ volume if place == 1 else volume @ matrix.T


def to_ras(volume: Shaped[Tensor, "X Y Z"], affine: np.ndarray) -> tuple[Tensor, np.ndarray]:
    """The volume with its axes swapped and flipped to point right, anterior, superior; no value changes."""
    orientation = nibabel.orientations.io_orientation(affine)
    if np.isnan(orientation).any():
        raise ValueError("the affine maps an axis of the volume to nothing; the file's header is broken")
    shape = tuple(volume.shape)
    order = np.argsort(orientation[:, 0]).tolist()
    flips = [int(axis) for axis in range(3) if orientation[order[axis], 1] < 0]
    volume = volume.permute(order)
    if flips:
        volume = volume.flip(flips)
    return volume, affine @ nibabel.orientations.inv_ornt_aff(orientation, shape)


def is_aligned(affine: np.ndarray, shape: Sequence[int]) -> bool:
    """Whether a RAS volume's axes are the world's, up to `ALIGNED_TOLERANCE` at the farthest corner."""
    off_axis = affine[:3, :3] - np.diag(np.diag(affine)[:3])
    drift = np.abs(off_axis) @ np.asarray(shape, dtype=float)
    return bool((drift <= ALIGNED_TOLERANCE * np.diag(affine)[:3]).all())


def to_world_axes(volume: Shaped[Tensor, "X Y Z"], affine: np.ndarray, fill: float) -> tuple[Tensor, np.ndarray]:
    """A tilted or oblique volume on a grid parallel to the world axes that contains all of it, trilinear.

    The voxel side along each world axis is the length over which the source's index changes by one, so that no detail
    is lost.

    Args:
        volume: Any values.
        affine: From voxel index to world mm (4, 4).
        fill: Value outside the volume.

    Returns:
        The volume (float32), and its diagonal affine.
    """
    inverse = np.linalg.inv(affine)
    spacing = 1 / np.linalg.norm(inverse[:3, :3], axis=0)
    shape = np.array(volume.shape)
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in shape])).reshape(3, -1)
    world = affine[:3, :3] @ corners + affine[:3, 3:]
    low, high = world.min(axis=1), world.max(axis=1)
    size = np.ceil((high - low) / spacing - 1e-6).astype(int)
    target = np.diag([*spacing, 1.0])
    target[:3, 3] = (low + high) / 2 - spacing * (size - 1) / 2

    to_index = torch.from_numpy(inverse @ target)
    y, z = (torch.arange(int(n), dtype=torch.float64) for n in size[1:])
    plane = (y[:, None, None] * to_index[:3, 1] + z[:, None] * to_index[:3, 2] + to_index[:3, 3]).float()  # (Y, Z, 3)
    source = (volume.float() - fill)[None, None]
    scale = (2 / torch.from_numpy(shape)).float()
    result = torch.empty([int(n) for n in size])
    step = max(1, POINTS_PER_BLOCK // int(size[1] * size[2]))
    for start in range(0, int(size[0]), step):
        x = torch.arange(start, min(start + step, int(size[0])))
        index = plane + x[:, None, None, None] * to_index[:3, 0].float()
        grid = ((index + 0.5) * scale - 1).flip(-1)[None]
        result[start : start + len(x)] = F.grid_sample(source, grid, padding_mode="zeros", align_corners=False)[0, 0]
    return result + fill, target


def resize_radiographs(images: Float[Tensor, "*batch H W"], size: int | Sequence[int]) -> Float[Tensor, "*batch H2 W2"]:
    """Radiographs of the same detector with other pixels: area averaging to larger ones, linear to smaller ones.

    Args:
        images: Radiographs.
        size: Rows and columns (H2, W2); one number for a square.
    """
    rows, columns = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if images.shape[-2] != rows:
        images = _readout(images.shape[-2], rows).to(images, non_blocking=True) @ images
    if images.shape[-1] != columns:
        images = images @ _readout(images.shape[-1], columns).to(images, non_blocking=True).T
    return images.contiguous()


def _readout(size: int, target: int) -> Float[Tensor, "target size"]:
    """Weights that read one axis of a detector out with another number of pixels."""
    step = size / target
    return resampling_matrix((size, 1.0, 0.0), (target, step, (step - 1) / 2), torch.float64)


def resize_cube(volume: Float[Tensor, "B C X Y Z"], size: int) -> Float[Tensor, "B C _ _ _"]:
    """A cube at another resolution, for networks: finer by trilinear interpolation, coarser by averaging (antialiased).

    It is differentiable, and made of operations that TorchScript and ONNX have.

    Args:
        volume: Cubes (B, C, X, X, X).
        size: Voxels along each side of the result.
    """
    if volume.shape[-1] == size:
        return volume
    if volume.shape[-1] > size:
        return F.interpolate(volume, size=(size,) * 3, mode="area")
    return F.interpolate(volume, size=(size,) * 3, mode="trilinear")


def values_at(
    volume: Float[Tensor, "B C X Y Z"], points: Float[Tensor, "N 3"], extent: float
) -> Float[Tensor, "B C N"]:
    """Cubes at any points, by trilinear interpolation between the centres of their voxels; beyond them as at the face.

    Args:
        volume: Cubes around the isocentre (B, C, X, X, X).
        points: World mm from the isocentre, the same for all cubes.
        extent: Side of the cubes in mm.
    """
    grid = world_to_grid(points, extent).expand(len(volume), 1, 1, -1, -1)
    with torch.autocast(volume.device.type, enabled=False):  # half precision would miss by most of a voxel
        return F.grid_sample(volume, grid.to(volume), padding_mode="border", align_corners=False)[:, :, 0, 0]
