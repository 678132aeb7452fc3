"""One camera and one kind of volume: the sum along each ray and its transpose, in three ways."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.projector.rays import Rays, Shape

CPU_BLOCK, GPU_BLOCK = 2**20, 2**25
"""Values in the planes that are worked through together: 4 MB of float32 stay in the cache of a CPU."""


class CameraKernel(ABC):
    """The projection of one kind of volume by one camera, with the tables that it needs, and its transpose.

    Args:
        rays: The camera's rays in the volume's voxels.
        shape: Number of voxels (X, Y, Z).
        dtype: Type of the volumes.
        device: Where they are.
    """

    def __init__(self, rays: Rays, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        self.size, self.shape, self.dtype, self.device = rays.camera.size, shape, dtype, device

    def _planes_per_block(self, values_per_plane: int) -> int:
        return max((CPU_BLOCK if self.device.type == "cpu" else GPU_BLOCK) // values_per_plane, 1)

    def _volumes_at_once(self, values_per_plane: int) -> int:
        """One on a CPU; on a GPU, where to start a step takes longer than the step, as many as fit a block together."""
        planes = min(self._planes_per_block(values_per_plane), max(self.shape))
        values = max(planes * values_per_plane, math.prod(self.shape))
        return 1 if self.device.type == "cpu" else self._planes_per_block(values)

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Bytes of the tables, those included that are made at the first adjoint."""

    @abstractmethod
    def project(self, volumes: Float[Tensor, "N X Y Z"]) -> Float[Tensor, "N H W"]:
        """The line integral along each ray, for each volume."""

    @abstractmethod
    def add_adjoint(self, images: Float[Tensor, "N H W"], volumes: Float[Tensor, "N X Y Z"]) -> None:
        """Add the transpose of `project`, applied to images, to volumes in place."""


@dataclass(eq=False)
class WeightedSums:
    """Weighted sums of table rows: bag i adds up weight[n] * table[index[n]] for n from offset[i] on."""

    index: Tensor
    offset: Tensor
    weight: Tensor

    def __call__(self, table: Tensor) -> Tensor:
        return F.embedding_bag(self.index, table, self.offset, mode="sum", per_sample_weights=self.weight)

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.offset.nbytes + self.weight.nbytes

    def to(self, device: torch.device) -> "WeightedSums":
        """The same on another device, copied without waiting for it."""
        return WeightedSums(*(t.to(device, non_blocking=True) for t in (self.index, self.offset, self.weight)))

    @classmethod
    def of(cls, index: Tensor, weight: Tensor) -> "WeightedSums":
        """Bags of equal size, (bags, items), without the items of no weight."""
        used = weight != 0
        return cls(index[used].int(), _starts(used.sum(1)), weight[used])

    def transposed(self, num_rows: int) -> "WeightedSums":
        """The sums of the transpose: a bag for each row of the table, in which the bags are now the rows."""
        sizes = self.offset.diff(append=self.offset.new_tensor([len(self.index)]))
        bag = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device, dtype=torch.int32), sizes)
        order = self.index.argsort(stable=True)
        return WeightedSums(bag[order], _starts(torch.bincount(self.index, minlength=num_rows)), self.weight[order])

    def without_empty(self) -> "tuple[Tensor, WeightedSums]":
        """Which bags hold anything, and their sums alone."""
        sizes = self.offset.diff(append=self.offset.new_tensor([len(self.index)]))
        bags = sizes.nonzero()[:, 0]
        return bags, WeightedSums(self.index, self.offset[bags], self.weight)


class SeparableKernel(CameraKernel):
    """Fan in (x, y), then a scaling along z, both as weighted sums of contiguous rows, plane block by plane block.

    Tables are made on the CPU: how long they are depends on what is in them, for which a GPU would have to be waited.
    """

    def __init__(self, rays: Rays, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(rays, shape, dtype, device)
        t, step = rays.planes(shape)
        self.rays = replace(rays, length=rays.length.new_empty(0))  # the tables do without, and it is large
        count = self._planes_per_block(shape[2] * self.size[1])
        self.planes = [t[i : i + count] for i in range(0, len(t), count)]
        self.length = (rays.length * step).to(device, dtype, non_blocking=True)
        self.blocks = [(fan.to(device), scaling.to(device)) for fan, scaling in map(self._tables, self.planes)]
        self.transposed_blocks: list[tuple[WeightedSums, Tensor, WeightedSums]] | None = None

    @property
    def nbytes(self) -> int:
        return self.length.nbytes + 2 * sum(fan.nbytes + scaling.nbytes for fan, scaling in self.blocks)

    def _tables(self, t: Tensor) -> tuple[WeightedSums, WeightedSums]:
        """Sheet rows (plane, column) from the volume's rows (x, y); detector rows from sheet rows (plane, z)."""
        rays = self.rays
        (num_x, num_y, num_z), (height, width) = self.shape, self.size
        first, scale = rays.first(t)
        columns = scale[:, None] * torch.arange(width)
        ix, wx = _linear(first[:, 0, None] + columns * rays.column[0], num_x)  # (planes, W, items)
        iy, wy = _linear(first[:, 1, None] + columns * rays.column[1], num_y)
        fan_index = (ix[..., :, None] * num_y + iy[..., None, :]).reshape(len(t) * width, -1)
        fan_weight = (wx[..., :, None] * wy[..., None, :]).reshape(len(t) * width, -1)
        iz, wz = _linear(first[:, 2, None] + scale[:, None] * torch.arange(height) * rays.row[2], num_z)
        iz = iz + num_z * torch.arange(len(t))[:, None, None]  # (planes, H, items)
        scaling_index, scaling_weight = (x.transpose(0, 1).reshape(height, -1) for x in (iz, wz))
        fan = WeightedSums.of(fan_index, fan_weight.to(self.dtype))
        return fan, WeightedSums.of(scaling_index, scaling_weight.to(self.dtype))

    def project(self, volumes: Tensor) -> Tensor:
        number = self._volumes_at_once(self.shape[2] * self.size[1])
        return torch.cat([self._project(some) for some in torch.split(volumes, number)])

    def _project(self, volumes: Tensor) -> Tensor:
        """Of volumes side by side: rows of the table are (x, y), its columns (z, volume), so those of one lie apart."""
        number, (num_z, (height, width)) = len(volumes), (self.shape[2], self.size)
        table = volumes.movedim(0, -1).reshape(-1, num_z * number)
        image = table.new_zeros(height, number * width)
        for fan, scaling in self.blocks:
            sheets = fan(table).view(-1, width, num_z * number)
            image += scaling(_transposed(sheets).view(-1, number * width))
        return image.view(height, number, width).movedim(1, 0) * self.length

    def add_adjoint(self, images: Tensor, volumes: Tensor) -> None:
        if self.transposed_blocks is None:
            tables = self.blocks if self.device.type == "cpu" else map(self._tables, self.planes)
            self.transposed_blocks = [self._transpose(*block) for block in tables]
        number = self._volumes_at_once(self.shape[2] * self.size[1])
        for some, targets in zip(torch.split(images, number), torch.split(volumes, number)):
            self._add_adjoint(some, targets, self.transposed_blocks)

    def _add_adjoint(
        self, images: Tensor, volumes: Tensor, blocks: list[tuple[WeightedSums, Tensor, WeightedSums]]
    ) -> None:
        number, (num_z, (height, width)) = len(images), (self.shape[2], self.size)
        image = (images * self.length).movedim(0, 1).reshape(height, number * width)
        alone = number == 1
        table = volumes.view(-1, num_z) if alone else image.new_zeros(volumes[0, ..., 0].numel(), num_z * number)
        for scaling, rows, fan in blocks:
            sheets = scaling(image).view(-1, num_z * number, width)
            table.index_add_(0, rows, fan(_transposed(sheets).view(-1, num_z * number)))
        if not alone:
            volumes += table.view(*self.shape, number).movedim(-1, 0)

    def _transpose(self, fan: WeightedSums, scaling: WeightedSums) -> tuple[WeightedSums, Tensor, WeightedSums]:
        num_x, num_y, num_z = self.shape
        num_planes = len(fan.offset) // self.size[1]
        rows, fan_transposed = fan.transposed(num_x * num_y).without_empty()
        rows = rows.to(self.device, non_blocking=True)
        return scaling.transposed(num_planes * num_z).to(self.device), rows, fan_transposed.to(self.device)


class SlabKernel(CameraKernel):
    """One 2-D `grid_sample` for each slice across the main direction of the beam."""

    def __init__(self, rays: Rays, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(rays, shape, dtype, device)
        start, direction = rays.starts_and_directions()
        self.axis = rays.main_axis(direction)
        along = direction[..., self.axis]
        self.length = (rays.length / along.abs()).to(device, dtype, non_blocking=True)
        # In slice m a ray is at base + m * slope, in grid_sample's normalised coordinates (last axis first).
        slope = direction / along[..., None]
        base = start - slope * start[..., self.axis, None]
        others = [axis for axis in (2, 1, 0) if axis != self.axis]
        size = torch.tensor([shape[axis] for axis in others])
        self.base = ((2 * base[..., others] + 1) / size - 1).to(device, dtype, non_blocking=True)
        self.slope = (2 * slope[..., others] / size).to(device, dtype, non_blocking=True)

    @property
    def nbytes(self) -> int:
        return self.length.nbytes + self.base.nbytes + self.slope.nbytes

    def _blocks(self, volumes: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Slices (M, N, ., .) of the volumes, a few at a time, and where the rays meet them."""
        slices = volumes.movedim(self.axis + 1, 0)
        index = torch.arange(len(slices), device=self.device, dtype=self.dtype)[:, None, None, None]
        count = self._planes_per_block(self.base.numel())
        for i in range(0, len(slices), count):
            yield slices[i : i + count], torch.addcmul(self.base, index[i : i + count], self.slope)

    def project(self, volumes: Tensor) -> Tensor:
        number = self._volumes_at_once(self.base.numel())
        return torch.cat([self._project(some) for some in torch.split(volumes, number)])

    def _project(self, volumes: Tensor) -> Tensor:
        image = self.length.new_zeros(len(volumes), *self.size)
        for slices, grid in self._blocks(volumes):
            image += F.grid_sample(slices, grid, padding_mode="zeros", align_corners=False).sum(dim=0)
        return image * self.length

    def add_adjoint(self, images: Tensor, volumes: Tensor) -> None:
        number = self._volumes_at_once(self.base.numel())
        for some, targets in zip(torch.split(images * self.length, number), torch.split(volumes, number)):
            for slices, grid in self._blocks(targets):
                values = some.expand(len(slices), -1, -1, -1).contiguous()
                # Bilinear, zeros outside, align_corners=False; of the slices only, whose values play no part.
                slices += torch.ops.aten.grid_sampler_2d_backward(values, slices, grid, 0, 0, False, [True, False])[0]


class ReferenceKernel(CameraKernel):
    """All sample points at once by a 3-D `grid_sample`, on the planes that the fast path would take."""

    def __init__(self, rays: Rays, shape: Shape, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(rays, shape, dtype, device)
        self.rays = rays

    @property
    def nbytes(self) -> int:
        return self.rays.length.nbytes

    def project(self, volumes: Tensor) -> Tensor:
        start, direction = self.rays.starts_and_directions()
        if self.rays.is_separable:
            planes, step = self.rays.planes(self.shape)
            t, length = planes[:, None, None], self.rays.length * step
        else:
            axis = self.rays.main_axis(direction)
            along = direction[..., axis]
            t = (torch.arange(self.shape[axis])[:, None, None] - start[..., axis]) / along
            length = self.rays.length / along.abs()
        points = start + t[..., None] * direction
        grid = ((2 * points + 1) / torch.tensor(self.shape) - 1).flip(-1)[None].to(volumes, non_blocking=True)
        samples = F.grid_sample(volumes[None], grid, padding_mode="zeros", align_corners=False)
        return samples[0].sum(1) * length.to(volumes, non_blocking=True)

    def add_adjoint(self, images: Tensor, volumes: Tensor) -> None:
        with torch.enable_grad():
            source = torch.zeros_like(volumes, requires_grad=True)
            (gradient,) = torch.autograd.grad(self.project(source), source, images)
        volumes += gradient


def _linear(position: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Neighbours and weights (..., 2) of linear interpolation with nothing outside; (..., 1) where all hit a voxel."""
    nearest = position.round()
    if bool(((position - nearest).abs() < 1e-9).all()):
        index, weight = nearest[..., None], torch.ones_like(nearest)[..., None]
    else:
        low = position.floor()
        index = torch.stack([low, low + 1], dim=-1)
        weight = torch.stack([low + 1 - position, position - low], dim=-1)
    inside = (index >= 0) & (index <= size - 1)
    return index.clamp(0, size - 1).long(), weight * inside


def _starts(sizes: Tensor) -> Tensor:
    """Where each of consecutive bags of these sizes starts."""
    return (sizes.cumsum(0) - sizes).int()


def _transposed(sheets: Tensor) -> Tensor:
    """Contiguous (N, B, A) of contiguous (N, A, B).

    On a CPU a channel shuffle of channels-last memory is the same move, and the only one that PyTorch does in
    vectorised blocks and on all cores: three times as fast as `.transpose(1, 2).contiguous()`.
    """
    num_sheets, a, b = sheets.shape
    if sheets.device.type != "cpu":
        return sheets.transpose(1, 2).contiguous()
    channels_last = sheets.view(1, num_sheets, 1, a * b).permute(0, 3, 1, 2)
    return F.channel_shuffle(channels_last, a).permute(0, 2, 3, 1).reshape(num_sheets, b, a)
