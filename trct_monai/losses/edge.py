"""Edges: the difference of gradients."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class EdgeLoss(nn.Module):
    """Mean absolute difference of the gradients along the three axes, by the 3-D Sobel operator, without the border.

    Each gradient is a central difference, smoothed by (1, 2, 1) / 4 along the two other axes, in units of intensity per
    voxel.
    """

    def forward(self, input: Float[Tensor, "B 1 X Y Z"], target: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, ""]:
        """The loss of volumes in [0, 1], a scalar."""
        difference = input - target  # the operator is linear
        return torch.stack([sobel(difference, axis).abs().mean() for axis in (2, 3, 4)]).mean()


def sobel(volume: Float[Tensor, "B 1 X Y Z"], axis: int) -> Float[Tensor, "B 1 _ _ _"]:
    """The derivative along one of the axes 2, 3 and 4, at all but the outermost voxels.

    Sobel and Feldman, 1968; in 3-D as in Zucker and Hummel, IEEE Trans. PAMI 3 (1981).
    """
    for along in (2, 3, 4):
        n = volume.shape[along] - 2
        before, here, after = (volume.narrow(along, start, n) for start in (0, 1, 2))
        volume = (after - before) / 2 if along == axis else (before + 2 * here + after) / 4
    return volume
