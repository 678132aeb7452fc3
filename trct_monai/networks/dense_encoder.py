"""Radiograph encoders with dense connections."""

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
        bottleneck: A layer's 3 x 3 convolution sees this many times `growth_rate` channels, to which a 1 x 1
            convolution brings its input first (DenseNet-B); 0 lets it see all.
    """

    def __init__(self, in_channels: int, growth_rate: int, num_layers: int, bottleneck: int = 0) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        for layer in range(num_layers):
            channels = in_channels + layer * growth_rate
            between = bottleneck * growth_rate
            narrow = _activated_conv(channels, between, 1) if bottleneck else []
            self.layers.append(nn.Sequential(*narrow, *_activated_conv(between or channels, growth_rate, 3)))
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
            transition = nn.Sequential(*_activated_conv(block.out_channels, after, 1))
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


class DenseNetEncoder(nn.Module):
    """DenseNet-BC without its classifier: bottlenecks, transitions that halve the channels (Huang et al., CVPR 2017).

    Each scale halves the image by a convolution of stride 2 instead of pooling, as the encoder of X2CT-GAN does (Ying
    et al., CVPR 2019, section 3.2); the last scale has no transition.

    Args:
        in_channels: Channels of the image.
        stem_channels: Channels of the features at full resolution.
        num_layers: Layers of the dense block of each scale; the image shrinks by 2 ** len(num_layers).
        growth_rate: Channels that each layer adds.
    """

    def __init__(self, in_channels: int, stem_channels: int, num_layers: Sequence[int], growth_rate: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(in_channels, stem_channels, 7, padding=3, padding_mode="reflect")
        self.blocks = nn.ModuleList()
        self.channels = [stem_channels]
        for level, layers in enumerate(num_layers):
            before = self.channels[-1]
            block = DenseBlock(before, growth_rate, layers, bottleneck=4)
            is_last = level == len(num_layers) - 1
            after = block.out_channels if is_last else block.out_channels // 2
            transition = [] if is_last else _activated_conv(block.out_channels, after, 1)
            self.blocks.append(nn.Sequential(*_activated_conv(before, before, 3, stride=2), block, *transition))
            self.channels.append(after)

    def forward(self, image: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B _ _ _"]]:
        """Features of every scale, finest first: of the image's size, half of it, and so on."""
        features = [self.stem(image)]
        for block in self.blocks:
            features.append(block(features[-1]))
        return features


def _activated_conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> list[nn.Module]:
    """Norm, SiLU and a convolution."""
    conv = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2)
    return [group_norm(in_channels), nn.SiLU(), conv]
