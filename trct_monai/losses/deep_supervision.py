"""Deep supervision with targets that are averaged, not subsampled."""

import monai.losses
from torch import nn


class DeepSupervisionLoss(monai.losses.DeepSupervisionLoss):
    """Weighted sum of a loss over the scales of a network; unlike MONAI's class of this name, with antialiased targets.

    MONAI's takes every other voxel of the target, and so asks a coarse volume for detail that it cannot have; here the
    target of a coarse voxel is the mean of the voxels that it covers.

    Args:
        loss: Loss of one scale.
        weight_mode: ``same``, ``exp`` (1, 1/2, 1/4, ...) or ``two`` (1, 1/2, 1/2, ...), the finest scale first.
        weights: Weights in place of `weight_mode`'s.
    """

    def __init__(self, loss: nn.Module, weight_mode: str = "exp", weights: list[float] | None = None) -> None:
        super().__init__(loss, weight_mode, weights)
        self.interp_mode = "area"
