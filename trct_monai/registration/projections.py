"""Small projections of one CT for very many cameras, each used once.

`trct_monai.projector` keeps tables for cameras that come again. A registration looks at a thousand cameras and at none
twice, so here nothing is kept: each slice of the CT across the beam takes one 2-D `grid_sample` (Joseph, IEEE Trans.
Med. Imaging 1(3), 1982) for many cameras together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from trct_monai.geometry.grids import voxel_to_world
from trct_monai.intensity import AIR_HU, BODY_HU, hu_to_attenuation
from trct_monai.registration.poses import Beam
from trct_monai.resampling import resample

SAMPLES_AT_ONCE = 2**17
"""Sample points of a block, so that they stay in the cache."""


@dataclass(frozen=True, eq=False)
class CoarseCT:
    """A CT with large voxels, seen along one of its axes.

    Attributes:
        slices: Attenuation in 1/mm (K, A, B), the slices across the beam, those without a body left out.
        axis: The axis that the beam runs along most: 0, 1 or 2.
        positions: Place of each slice along that axis, in mm from the CT's middle (K).
        spacing: Voxel side in mm.
        half: Half of the CT's sides in mm (3).
    """

    slices: Float[Tensor, "K A B"]
    axis: int
    positions: Float[Tensor, " K"]
    spacing: float
    half: Float[Tensor, " 3"]

    @classmethod
    def of(cls, ct_hu: Real[Tensor, "X Y Z"], spacing: Sequence[float], coarse: float, beam: Beam) -> "CoarseCT":
        """The whole CT with voxels of `coarse` mm, for cameras near a beam.

        Args:
            ct_hu: CT numbers, axes in RAS order.
            spacing: Voxel sides in mm.
            coarse: Side of the large voxels in mm.
            beam: Nominal direction.
        """
        affine = voxel_to_world(ct_hu.shape, spacing).numpy()
        sides = np.array(ct_hu.shape) * np.array(spacing)
        shape = [max(1, round(side / coarse)) for side in sides]
        hu = resample(ct_hu, affine, shape, voxel_to_world(shape, coarse).numpy(), AIR_HU)
        axis = int(beam.axes[2].abs().argmax())
        slices = hu.movedim(axis, 0)
        positions = (torch.arange(shape[axis]) - (shape[axis] - 1) / 2) * coarse
        body = (slices > BODY_HU + 100).flatten(1).float().mean(1) > 1e-3
        body = body if bool(body.any()) else torch.ones_like(body)
        return cls(
            hu_to_attenuation(slices[body]).contiguous(),
            axis,
            positions[body],
            coarse,
            torch.tensor(shape) * coarse / 2,
        )

    def project(
        self, beam: Beam, poses: Float[Tensor, "N 8"], size: int
    ) -> tuple[Float[Tensor, "N S S"], Float[Tensor, "N S S"]]:
        """Line integrals of each pose's picture of `size` x `size` pixels, and which rays the CT explains.

        A ray that passes beside the CT, or enters or leaves through its top or bottom slice, crosses what the CT does
        not show.

        Returns:
            Line integrals, and 1 for rays that count, 0 for others.
        """
        start, direction = self._rays(beam, poses, size)
        axis, others = self.axis, [axis for axis in range(3) if axis != self.axis]
        along = direction[:, axis]  # (N, P)
        slope = direction[:, others] / along[:, None]  # (N, 2, P)
        base = start[:, others] - start[:, axis, None] * slope
        length = self.spacing * direction.square().sum(1).sqrt() / along.abs()
        ends = [base + slope * end for end in (self.positions[0], self.positions[-1])]
        counts = torch.ones_like(length, dtype=torch.bool)
        for place, other in enumerate(others):
            if other == 2:  # not through the first or last slice of the scan
                for end in ends:
                    counts &= end[:, place].abs() <= self.half[other]
            else:
                counts &= ((ends[0] + ends[1])[:, place] / 2).abs() <= self.half[other]
        scale = 1 / self.half[others].to(base)
        base, slope = base * scale[:, None], slope * scale[:, None]
        flip = torch.stack([base, slope])[:, :, [1, 0]].movedim(2, -1)  # grid_sample wants the last axis first
        number = max(1, SAMPLES_AT_ONCE // (len(self.slices) * size * size))
        images = torch.cat([self._sum(*block) for block in torch.split(flip.contiguous(), number, dim=1)])
        return (images * length).view(-1, size, size), counts.float().view(-1, size, size)

    def _sum(self, base: Float[Tensor, "n P 2"], slope: Float[Tensor, "n P 2"]) -> Float[Tensor, "n P"]:
        grid = torch.addcmul(base[None], self.positions[:, None, None, None].to(base), slope[None])
        samples = F.grid_sample(self.slices[:, None], grid, padding_mode="zeros", align_corners=False)
        return samples.sum(0)[0]

    def _rays(self, beam: Beam, poses: Tensor, size: int) -> tuple[Float[Tensor, "N 3 P"], Float[Tensor, "N 3 P"]]:
        """Where each ray crosses the plane of the isocentre, and its way for one mm of depth."""
        column, row, normal = beam.turned(poses).float().unbind(1)  # (N, 3)
        poses = poses.float()
        steps = (torch.arange(size) + 0.5) / size - 0.5
        width = poses[:, 0].exp()
        u = (width[:, None, None] * steps).expand(-1, size, -1).flatten(1)  # (N, P)
        v = ((width * poses[:, 1].exp())[:, None, None] * steps[:, None]).expand(-1, -1, size).flatten(1)
        across = u[:, None] * column[..., None] + v[:, None] * row[..., None]
        center = poses[:, 2, None] * column + poses[:, 3, None] * row
        return center[..., None] + across, normal[..., None] + poses[:, 4, None, None] * across
