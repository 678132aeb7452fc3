"""Attention in attention (AIA): the features themselves decide how much attention they get."""

import torch
from jaxtyping import Float
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from trct_monai.networks.blocks import group_norm


class AttentionInAttention(nn.Module):
    """x + conv(w_1 attended + w_2 plain), where w = softmax(MLP(mean of x)).

    The attention branch multiplies convolved features by a gate of their own; the plain branch convolves only. After
    Chen, Gu and Zhang, Attention in Attention Network for Image Super-Resolution, arXiv 2104.09497, section 3.2.

    Args:
        spatial_dims: 2 or 3.
        channels: Channels of input and output.
        reduction: Ratio of the channels to the width of the MLP.
    """

    def __init__(self, spatial_dims: int, channels: int, reduction: int = 4) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        width = max(channels // reduction, 4)
        self.norm = group_norm(channels)
        self.attended = conv(channels, channels, 3, padding=1)
        self.gate = nn.Sequential(conv(channels, channels, 1), nn.Sigmoid())
        self.plain = conv(channels, channels, 3, padding=1)
        self.mixture = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, 2), nn.Softmax(dim=-1))
        self.out = conv(channels, channels, 1)

    def weights(self, x: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B 2"]:
        """Weight of the attention branch and of the plain branch; their sum is 1."""
        mixture: Tensor = self.mixture(x.flatten(2).mean(dim=2))
        return mixture

    def forward(self, x: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B C *spatial"]:
        """Features of the same shape."""
        y = self.norm(x)
        attention, plain = self.weights(x).view(len(x), 2, 1, *(1,) * (x.ndim - 2)).unbind(1)
        mixed = attention * (self.attended(y) * self.gate(y)) + plain * self.plain(y)
        result: Tensor = x + self.out(torch.nn.functional.silu(mixed))
        return result
