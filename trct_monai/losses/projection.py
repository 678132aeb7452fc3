"""The difference of two volumes in their projections."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, Camera, preset
from trct_monai.intensity import HU_WINDOW, check_hu_window, unit_to_attenuation
from trct_monai.projector import project


class ProjectionLoss(nn.Module):
    """Mean absolute difference between the projections of prediction and target, in units of the [0, 1] scale.

    Line integrals are divided by that of a beam through the whole cube whose voxels rise from 0 to 1. So the weight of
    this loss compares with that of a voxel-wise L1: an error of the same sign in all voxels gives the same loss, errors
    that cancel along the rays give 0.

    Args:
        geometry: Preset of `trct_monai.geometry.preset`, or the cameras.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1.
        size: Rows and columns of the projections, on the cameras' detectors.
    """

    def __init__(
        self,
        geometry: str | Sequence[Camera] = "x2ct",
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        size: int = 64,
    ) -> None:
        super().__init__()
        cameras = preset(geometry) if isinstance(geometry, str) else geometry
        self.cameras = tuple(camera.resized((size, size)) for camera in cameras)
        self.extent, self.hu_window = extent, check_hu_window(hu_window)
        low, high = (unit_to_attenuation(torch.tensor(float(end)), self.hu_window) for end in (0, 1))
        self.scale = float(high - low) * extent

    def forward(self, input: Float[Tensor, "B 1 X Y Z"], target: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, ""]:
        """The loss of volumes in [0, 1], a scalar; computed in float32 whatever autocast says."""
        with torch.autocast(input.device.type, enabled=False):
            # Projection is linear, so the difference is projected once; attenuation is clipped at 0 before.
            difference = self._attenuation(input) - self._attenuation(target)
            return project(difference, self.cameras, self.extent / input.shape[-1]).abs().mean() / self.scale

    def _attenuation(self, unit: Tensor) -> Tensor:
        return unit_to_attenuation(unit.float(), self.hu_window)
