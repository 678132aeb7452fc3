"""A coarse CT made finer: residual-in-residual dense blocks over trilinear interpolation."""

from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.utils import pixelshuffle
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trct_monai.networks.blocks import ResidualDenseBlock


class VolumeRefiner(nn.Module):
    """Doubles the resolution of a volume once or more, and adds what trilinear interpolation lacks.

    After ESRGAN (Wang et al., ECCV Workshops 2018) in three dimensions: a convolution, residual-in-residual dense
    blocks without normalisation, channel attention, then 3-D pixel shuffles; nearly all the work is done at the coarse
    resolution. Each doubling has a head that adds to the interpolation of what came before. Heads are zero before
    training: an untrained refiner returns the trilinear interpolation to the bit, so it starts where that ends.

    It is made of convolutions and local means only, and so takes volumes of any size, whole or window by window; see
    `RefinementInferer`. The defaults make 0.68 million parameters for 64 to 256; 64 features,
    growth 32 and 3 blocks 7.0 million.

    Args:
        num_doublings: Doublings of the resolution: 1 or more.
        features: Channels at the coarse resolution; halved at each doubling.
        growth: Channels that each convolution of a dense block adds.
        num_blocks: Residual-in-residual dense blocks.
        deep_supervision: While training, return the volumes of all doublings, the finest first.
        use_checkpoint: Compute the blocks again in the backward pass: less memory, a third more time.

    Raises:
        ValueError: If `num_doublings` or `features` is too small.
    """

    def __init__(
        self,
        num_doublings: int = 2,
        features: int = 32,
        growth: int = 16,
        num_blocks: int = 1,
        *,
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if num_doublings < 1 or features % 2**num_doublings:
            raise ValueError(
                f"num_doublings must be 1 or more and features a multiple of 2 ** num_doublings, "
                f"got {num_doublings} and {features}"
            )
        self.scale = 2**num_doublings
        self.deep_supervision, self.use_checkpoint = deep_supervision, use_checkpoint
        self.stem = nn.Conv3d(1, features, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualInResidualDenseBlock(features, growth) for _ in range(num_blocks))
        self.upsamplers = nn.ModuleList()
        self.heads = nn.ModuleList()
        for doubling in range(1, num_doublings + 1):
            before, after = features // 2 ** (doubling - 1), features // 2**doubling
            self.upsamplers.append(nn.Conv3d(before, 8 * after, 3, padding=1))
            head = nn.Conv3d(after, 1, 3, padding=1)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)  # type: ignore[arg-type]  # a convolution with bias
            self.heads.append(head)

    def forward(self, volume: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B 1 _ _ _"] | list[Tensor]:
        """The volume, `scale` times as fine, in [0, 1] (unbounded while training).

        With deep supervision, while training, a list of volumes, the finest first.

        Args:
            volume: CT in [0, 1] of the HU window.
        """
        residuals = self._residuals(volume)
        if not self.training:
            return (interpolate(volume, self.scale) + residuals[-1]).clamp(0.0, 1.0)
        volumes = [interpolate(volume, 2 ** (i + 1)) + residual for i, residual in enumerate(residuals)]
        return volumes[::-1] if self.deep_supervision else volumes[-1]

    def residual(self, volume: Float[Tensor, "B 1 X Y Z"], **_: Any) -> Float[Tensor, "B 1 _ _ _"]:
        """What is added to the interpolated volume at the finest resolution."""
        return self._residuals(volume)[-1]

    def _residuals(self, volume: Tensor) -> list[Tensor]:
        """What is added to the interpolated volume after each doubling."""
        x = first = self.stem(2 * volume - 1)
        for block in self.blocks:
            if self.use_checkpoint and self.training:
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        x = x + first
        residuals: list[Tensor] = []
        for upsampler, head in zip(self.upsamplers, self.heads):
            x = F.leaky_relu(pixelshuffle(upsampler(x), spatial_dims=3, scale_factor=2), 0.2)
            residual = head(x)
            residuals.append(interpolate(residuals[-1], 2) + residual if residuals else residual)
        return residuals


class ResidualInResidualDenseBlock(nn.Module):
    """Three residual dense blocks and a channel attention within one more residual (ESRGAN, figure 4).

    Args:
        features: Channels.
        growth: Channels that each convolution adds.
        scale: Weight of each residual.
    """

    def __init__(self, features: int, growth: int, scale: float = 0.2) -> None:
        super().__init__()
        self.scale = scale
        self.blocks = nn.ModuleList(ResidualDenseBlock(features, growth, scale) for _ in range(3))
        self.attention = LocalChannelAttention(features)

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Features of the same shape."""
        y = x
        for block in self.blocks:
            y = block(y)
        result: Tensor = x + self.scale * self.attention(y)
        return result


class LocalChannelAttention(nn.Module):
    """Weights of channels from their means in a neighbourhood: squeeze and excitation (Hu et al., CVPR 2018) in place.

    The original takes the mean over the whole volume, which a sliding window does not see: windows would not fit
    together.

    Args:
        features: Channels.
        window: Side of the neighbourhood in voxels: an odd number.
        reduction: Factor by which the channels are squeezed.
    """

    def __init__(self, features: int, window: int = 7, reduction: int = 4) -> None:
        super().__init__()
        self.window = window
        squeezed = max(features // reduction, 4)
        self.weigh = nn.Sequential(
            nn.Conv3d(features, squeezed, 1), nn.SiLU(), nn.Conv3d(squeezed, features, 1), nn.Sigmoid()
        )

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """Features of the same shape."""
        mean = x
        for axis in range(3):
            sides = [self.window if axis == i else 1 for i in range(3)]
            mean = F.avg_pool3d(mean, sides, 1, [side // 2 for side in sides], count_include_pad=False)
        result: Tensor = x * self.weigh(mean)
        return result


def interpolate(volume: Float[Tensor, "B C X Y Z"], scale: int) -> Float[Tensor, "B C _ _ _"]:
    """Trilinear interpolation to a whole multiple of the resolution."""
    return F.interpolate(volume, scale_factor=float(scale), mode="trilinear")
