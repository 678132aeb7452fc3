"""Deep supervision with targets that are averaged down, not thinned out."""

import monai.losses
from torch import nn


class DeepSupervisionLoss(monai.losses.DeepSupervisionLoss):
    """MONAI's weighted sum of a loss over the scales of a network, against antialiased targets.

    MONAI's own takes every other voxel of the target, so that a coarse volume is asked for fine detail that it cannot
    show; here each voxel's target is the mean of what it covers.

    Args:
        loss: Loss of one scale.
        weight_mode: ``same``, ``exp`` (1, 1/2, 1/4, ...) or ``two`` (1, 1/2, 1/2, ...), the finest scale first.
        weights: Weights in place of `weight_mode`'s.
    """

    def __init__(self, loss: nn.Module, weight_mode: str = "exp", weights: list[float] | None = None) -> None:
        super().__init__(loss, weight_mode, weights)
        self.interp_mode = "area"
