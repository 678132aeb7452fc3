"""Building blocks that several networks share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.blocks import MLPBlock
from monai.networks.layers.factories import Conv
from torch import Tensor, nn


def group_norm(num_channels: int) -> nn.GroupNorm:
    """Group norm with up to eight groups: works for any batch size, on any number of processes."""
    groups = next(groups for groups in (8, 4, 2, 1) if num_channels % groups == 0)
    return nn.GroupNorm(groups, num_channels)


class PreActivationBlock(nn.Module):
    """Residual block norm-SiLU-conv twice (He et al., ECCV 2016, figure 4e).

    Nothing is normalised on the identity path, so absolute intensity survives it.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution; the identity is average-pooled by it.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.residual = nn.Sequential(
            group_norm(in_channels),
            nn.SiLU(),
            conv(in_channels, out_channels, 3, stride, 1),
            group_norm(out_channels),
            nn.SiLU(),
            conv(out_channels, out_channels, 3, 1, 1),
        )
        pool = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[spatial_dims](stride) if stride > 1 else nn.Identity()
        project = conv(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.identity = nn.Sequential(pool, project)

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, C, *spatial)`` to ``(B, out_channels, *spatial / stride)``."""
        result: Tensor = self.identity(x) + self.residual(x)
        return result


def residual_blocks(spatial_dims: int, in_channels: int, out_channels: int, number: int) -> nn.Sequential:
    """Pre-activation blocks in a row, the first of which sets the channels."""
    further = (PreActivationBlock(spatial_dims, out_channels, out_channels) for _ in range(number - 1))
    return nn.Sequential(PreActivationBlock(spatial_dims, in_channels, out_channels), *further)


class ResidualDenseBlock(nn.Module):
    """Five 3-D convolutions, each of which sees all before it (Zhang et al., CVPR 2018, as in ESRGAN).

    Args:
        features: Channels.
        growth: Channels that each of the first four convolutions adds.
        scale: Weight of the residual.
    """

    def __init__(self, features: int, growth: int, scale: float = 0.2) -> None:
        super().__init__()
        self.scale = scale
        self.convs = nn.ModuleList(
            nn.Conv3d(features + i * growth, features if i == 4 else growth, 3, padding=1) for i in range(5)
        )

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Features of the same shape."""
        features = [x]
        for conv in self.convs[:-1]:
            features.append(F.leaky_relu(conv(torch.cat(features, dim=1)), 0.2))
        result: Tensor = x + self.scale * self.convs[-1](torch.cat(features, dim=1))
        return result


class Attention(nn.Module):
    """Multi-head attention with an additive bias (Vaswani et al., NeurIPS 2017, equation 1).

    Args:
        hidden_size: Channels of the queries and of the result.
        context_size: Channels of keys and values.
        num_heads: Number of heads; must divide `hidden_size`.
    """

    def __init__(self, hidden_size: int, context_size: int, num_heads: int) -> None:
        super().__init__()
        if hidden_size % num_heads:
            raise ValueError(f"hidden_size must be a multiple of num_heads, got {hidden_size} and {num_heads}")
        self.num_heads = num_heads
        self.query = nn.Linear(hidden_size, hidden_size)
        self.key_value = nn.Linear(context_size, 2 * hidden_size)
        self.out = nn.Linear(hidden_size, hidden_size)

    def forward(
        self, x: Float[Tensor, "B N C"], context: Float[Tensor, "B M D"], bias: Float[Tensor, "_ _ _ M"] | None = None
    ) -> Float[Tensor, "B N C"]:
        """Attend from N tokens to M context tokens; `bias` (B, heads, N, M), or 1 for each, is added to the logits."""
        query = self.query(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, H, N, C / H)
        key, value = self.key_value(context).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        mask = None if bias is None else bias.to(query.dtype)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        result: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return result


class ConditionedTransformerBlock(nn.Module):
    """Self-attention, cross-attention and an MLP, each modulated and gated by a condition vector.

    The modulation is adaLN-Zero (Peebles and Xie, ICCV 2023, section 3.2): an untrained block is the identity.

    Args:
        hidden_size: Channels of the tokens.
        context_size: Channels of the context tokens.
        condition_size: Length of the condition vector.
        num_heads: Attention heads.
        mlp_ratio: Width of the MLP over `hidden_size`.
    """

    def __init__(
        self, hidden_size: int, context_size: int, condition_size: int, num_heads: int, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size, elementwise_affine=False) for _ in range(3))
        self.self_attention = Attention(hidden_size, hidden_size, num_heads)
        self.cross_attention = Attention(hidden_size, context_size, num_heads)
        self.mlp = MLPBlock(hidden_size, int(mlp_ratio * hidden_size))
        modulation = nn.Linear(condition_size, 9 * hidden_size)
        nn.init.zeros_(modulation.weight)
        nn.init.zeros_(modulation.bias)
        self.modulation = nn.Sequential(nn.SiLU(), modulation)

    def forward(
        self,
        x: Float[Tensor, "B N C"],
        context: Float[Tensor, "B M D"],
        condition: Float[Tensor, "B E"],
        bias: Float[Tensor, "_ H N M"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """Update N tokens from each other and from M context tokens; `bias` steers the cross-attention."""
        parts = self.modulation(condition)[:, None].chunk(9, dim=-1)
        for i, norm in enumerate(self.norms):
            shift, scale, gate = parts[3 * i : 3 * i + 3]
            y = norm(x) * (1 + scale) + shift
            if i == 0:
                y = self.self_attention(y, y)
            elif i == 1:
                y = self.cross_attention(y, context, bias)
            else:
                y = self.mlp(y)
            x = x + gate * y
        return x


class FourierFeatures(nn.Module):
    """sin and cos of coordinates at frequencies pi * 2^0 ... pi * 2^(num_bands - 1), and the coordinates themselves.

    (Tancik et al., NeurIPS 2020, "positional encoding".)

    Args:
        num_bands: Number of frequencies.
    """

    frequencies: Tensor

    def __init__(self, num_bands: int) -> None:
        super().__init__()
        self.register_buffer("frequencies", torch.pi * 2.0 ** torch.arange(num_bands), persistent=False)
        self.num_bands = num_bands

    def out_channels(self, in_channels: int) -> int:
        """Number of features for a number of coordinates."""
        return in_channels * (2 * self.num_bands + 1)

    def forward(self, coordinates: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch F"]:
        """Features of coordinates that run over about [-1, 1]."""
        angles = (coordinates[..., None] * self.frequencies).flatten(-2)
        return torch.cat([coordinates, angles.sin(), angles.cos()], dim=-1)


class ResidualEncoder(nn.Module):
    """A stem that halves the image, then residual stages that halve it again each.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        channels: Channels after the stem and after each stage; the image shrinks by 2 ** len(channels).
        num_blocks: Residual blocks of each stage.
    """

    def __init__(self, spatial_dims: int, in_channels: int, channels: Sequence[int], num_blocks: int = 1) -> None:
        super().__init__()
        self.stem = Conv[Conv.CONV, spatial_dims](in_channels, channels[0], 5, 2, 2)
        self.stages = nn.ModuleList(
            PreActivationBlock(spatial_dims, before, after, stride=2) for before, after in zip(channels, channels[1:])
        )
        self.deeper = nn.ModuleList(
            nn.Sequential(*(PreActivationBlock(spatial_dims, after, after) for _ in range(num_blocks - 1)))
            for after in channels[1:]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of every scale, finest first."""
        features = [self.stem(image)]
        for stage, deeper in zip(self.stages, self.deeper):
            features.append(deeper(stage(features[-1])))
        return features


class FeaturePyramid(nn.Module):
    """A residual encoder, and a way back down: fine features that know what the coarse ones saw.

    (Lin et al., "Feature pyramid networks", CVPR 2017, with one residual block for each scale.)

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        channels: Channels of each stage of the encoder; the image shrinks by 2 ** len(channels).
        out_channels: Channels of the features of every scale.
        num_scales: Number of scales, the coarsest ones; all if None.
        num_blocks: Residual blocks of each stage.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        out_channels: int,
        num_scales: int | None = None,
        num_blocks: int = 1,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        scales = channels[-(num_scales or len(channels)) :]
        self.encoder = ResidualEncoder(spatial_dims, in_channels, channels, num_blocks)
        self.laterals = nn.ModuleList(conv(before, out_channels, 1) for before in scales)
        self.blocks = nn.ModuleList(PreActivationBlock(spatial_dims, out_channels, out_channels) for _ in scales)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Features of each scale, the coarsest first, each with `out_channels`."""
        result: list[Tensor] = []
        stages = self.encoder(image)[-len(self.laterals) :]
        for features, lateral, block in zip(stages[::-1], reversed(self.laterals), reversed(self.blocks)):
            x = lateral(features)
            result.append(block(x + F.interpolate(result[-1], size=x.shape[2:]) if result else x))
        return result
