"""A radiograph encoder with dense connections."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.networks.blocks import group_norm


class DenseBlock(nn.Module):
    """Layers that each see what all layers before them made (Huang et al., CVPR 2017, equation 2).

    Args:
        in_channels: Channels of the input.
        growth_rate: Channels that each layer adds.
        num_layers: Number of layers.
    """

    def __init__(self, in_channels: int, growth_rate: int, num_layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for layer in range(num_layers):
            channels = in_channels + layer * growth_rate
            self.layers.append(
                nn.Sequential(group_norm(channels), nn.SiLU(), nn.Conv2d(channels, growth_rate, 3, padding=1))
            )
        self.out_channels = in_channels + num_layers * growth_rate

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        """The input and what every layer added to it."""
        for layer in self.layers:
            x = torch.cat([x, layer(x)], dim=1)
        return x


class DenseEncoder(nn.Module):
    """Dense blocks, each followed by a transition that sets the channels and the next that halves the image.

    Args:
        in_channels: Channels of the image.
        channels: Channels of each scale; the image shrinks by 2 ** len(channels).
        num_layers: Layers of each dense block.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], num_layers: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, channels[0], 5, 2, 2)
        self.blocks = nn.ModuleList()
        before = channels[0]
        for level, after in enumerate(channels):
            block = DenseBlock(before, max(after // 4, 4), num_layers)
            transition = nn.Sequential(
                group_norm(block.out_channels), nn.SiLU(), nn.Conv2d(block.out_channels, after, 1)
            )
            pool = nn.AvgPool2d(2) if level else nn.Identity()
            self.blocks.append(nn.Sequential(pool, block, transition))
            before = after

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Features of every scale, finest first: halves of the image, quarters, and so on."""
        x, features = self.stem(image), []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features
