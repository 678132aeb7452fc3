"""A loss that weighs some voxels more, such as those of lesions."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class EmphasisLoss(nn.Module):
    """A loss of volumes, and beside it the squared error where the target asks for it.

        loss(input, volume) + weight * mean(emphasis * (input - volume)^2)

    A nodule of 20 mm has one voxel in ten thousand: leaving it out costs other losses next to nothing. A target of one
    channel is the volume alone, and has no second term; so has a weight of 0.

    Args:
        loss: Takes the network's output, also that of deep supervision, and a volume.
        weight: Weight of the second term.

    Raises:
        ValueError: If the weight is negative.
    """

    def __init__(self, loss: Callable[..., Tensor], weight: float) -> None:
        super().__init__()
        if weight < 0:
            raise ValueError(f"weight must be 0 or above, got {weight}")
        self.loss, self.weight = loss, float(weight)

    def forward(
        self, input: Float[Tensor, "B D *size"] | Sequence[Tensor], target: Float[Tensor, "B C *target_size"]
    ) -> Float[Tensor, ""]:
        """The loss, a scalar.

        Args:
            input: What the network gives, the finest volume first if it gives several.
            target: The volume, and in a second channel the emphasis of each voxel, 0 or above.

        Raises:
            ValueError: If there is an emphasis, and the network gives more than a volume, such as its spread.
        """
        if target.shape[1] == 1 or not self.weight:
            return self.loss(input, target[:, :1])
        finest = input if isinstance(input, Tensor) else input[0]
        if finest.shape[1] != 1:
            raise ValueError(
                f"findings_weight must be 0 for a network that gives {finest.shape[1]} channels, as volume and spread"
            )
        loss = self.loss(input, target[:, :1])
        with torch.autocast(target.device.type, enabled=False):
            if target.shape[2:] != finest.shape[2:]:
                target = F.interpolate(target, size=finest.shape[2:], mode="area")
            error = (finest.float() - target[:, :1].float()).square()
            result: Tensor = loss + self.weight * (target[:, 1:] * error).mean()
        return result
