"""Deep supervision with targets that are averaged, not subsampled."""

from collections.abc import Sequence

import monai.losses
from torch import Tensor, nn


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

    def forward(self, input: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """The weighted sum for the volumes of all scales, the finest first, or the loss of one volume."""
        volumes = [input] if isinstance(input, Tensor) else list(input)
        weights = [1.0] if isinstance(input, Tensor) else self.get_weights(levels=len(volumes))
        terms = [weight * self.get_loss(volume.float(), target) for weight, volume in zip(weights, volumes)]
        total: Tensor = terms[0]
        for term in terms[1:]:
            total = total + term
        return total
