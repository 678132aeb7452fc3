"""Intervals that grow where a CT does not explain its radiographs."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from trct_monai.geometry import Camera, projection_matrices, voxel_centers
from trct_monai.networks.lifting import lift

SMOOTHED = 9
"""Rows and columns over which squared residuals are averaged."""


def widened(
    volume: Float[Tensor, "1 C X Y Z"],
    residual: Float[Tensor, "V H W"],
    counted: Bool[Tensor, "V H W"],
    radiographs: Float[Tensor, "V H W"],
    cameras: Sequence[Camera],
    extent: float,
    usual: float,
) -> Float[Tensor, "1 C X Y Z"]:
    """Quantiles moved away from the volume, each voxel's by how much larger than usual the residuals on its rays are.

    The factor is the root mean square, over the views and a neighbourhood of the ray, of the residual relative to the
    radiographs' root mean square, divided by the usual relative residual; it is at least 1.

    Args:
        volume: The volume and its quantiles in [0, 1] of the window; without quantiles it stays as it is.
        residual: Radiographs less projections of the volume, as line integrals.
        counted: Which pixels were measured: the mean is over those alone.
        radiographs: Line integrals.
        cameras: The views.
        extent: Side of the volume in mm.
        usual: Relative residual for which the intervals were calibrated.
    """
    if volume.shape[1] == 1 or usual <= 0:
        return volume
    scale = usual * float(radiographs[counted].square().mean().sqrt().nan_to_num().clamp(min=1e-6))
    maps = torch.stack([(residual / scale).square() * counted, counted.float()], dim=1)
    sums = F.avg_pool2d(maps, SMOOTHED, 1, SMOOTHED // 2, count_include_pad=False)
    size = volume.shape[-1]
    centers = voxel_centers((size,) * 3, extent / size).float()
    squares, weights = lift(sums[None], projection_matrices(cameras)[None], centers)[0].sum(dim=0)
    factor = (squares / weights.clamp(min=1e-6)).sqrt().clamp(min=1.0).to(volume.device)
    middle = volume[:, :1]
    return torch.cat([middle, (middle + factor * (volume[:, 1:] - middle)).clamp(0.0, 1.0)], dim=1)
