"""The hybrid of convolutions and transformers, for any number of views."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets.swin_unetr import BasicLayer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.blocks import FourierFeatures, PreActivationBlock, ResidualDenseBlock, ResidualEncoder
from trct_monai.networks.cross_view import CrossViewAttention, ViewExchange
from trct_monai.networks.reconstruction import ReconstructionNetwork, beside, zero_head


class HybridCNNViT(ReconstructionNetwork):
    """A 3-D U-Net on what any number of views say of each voxel.

    All views share one encoder. Their coarsest features attend to each other (`ViewExchange`). At each scale the
    features are lifted along each view's own rays and merged at every voxel by attention over the views
    (`CrossViewAttention`). Down and up again go residual dense blocks, with 3-D shifted-window attention (Swin, Liu et
    al., ICCV 2021, MONAI's) at the coarser levels and attention gates (Oktay et al., MIDL 2018) in the skips. Each
    level of the way up adds its correction at its own scale (see `ReconstructionNetwork`) and can be supervised by
    itself. The defaults make 84.8 million parameters.

    The order of the views does not matter, their number may be anything from 1 to `max_views` and differ from call to
    call, and a view may be missing (NaN). Without `matrices` the views are those of the geometry.

    Args:
        volume_size: Voxels along each side; the coarsest level has volume_size / 2 ** len(channels).
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        encoder_channels: Channels of each scale of the encoder; a radiograph shrinks by 2 ** len(encoder_channels).
        channels: Channels of each level of the U-Net, the finest first; at most as many as `encoder_channels`, of which
            they see the coarsest.
        growth: Channels that each convolution of a dense block adds, over those of its level.
        num_blocks: Dense blocks of a level, on the way down and on the way up.
        num_swin_levels: Levels with Swin blocks: the coarsest ones.
        num_heads: Attention heads, between views and in Swin blocks.
        window_size: Side of a Swin window in voxels.
        num_exchange_layers: Transformer blocks between the views' coarsest features.
        max_views: Largest number of views.
        deep_supervision: While training, return the volumes of all levels; see `ReconstructionNetwork`.
        use_checkpoint: Compute the levels again in the backward pass: less memory, more time.
        num_bands: Frequencies of the positional encoding.
        image_mean: Line integral that the encoder takes as zero.
        image_scale: Line integral that the encoder takes as one, less `image_mean`.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    def __init__(
        self,
        volume_size: int = 128,
        *,
        geometry: str = "x2ct",
        extent: float = DEFAULT_EXTENT,
        encoder_channels: Sequence[int] = (64, 128, 256, 512),
        channels: Sequence[int] = (64, 128, 192, 384),
        growth: float = 0.5,
        num_blocks: int = 1,
        num_swin_levels: int = 2,
        num_heads: int = 8,
        window_size: int = 4,
        num_exchange_layers: int = 2,
        max_views: int = 8,
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
        num_bands: int = 4,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        num_levels = len(channels)
        if not 1 <= num_levels <= len(encoder_channels) or volume_size % 2**num_levels:
            raise ValueError(
                f"channels must be at most as many as encoder_channels, and volume_size a multiple of 2 ** "
                f"len(channels), got {tuple(channels)}, {tuple(encoder_channels)} and {volume_size}"
            )
        if any(number % num_heads for number in (*channels, encoder_channels[-1])):
            raise ValueError(
                f"channels and the last of encoder_channels must be multiples of num_heads {num_heads}, "
                f"got {tuple(channels)} and {encoder_channels[-1]}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            num_scales=num_levels,
            deep_supervision=deep_supervision,
            max_views=max_views,
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.encoder = ResidualEncoder(2, 1, encoder_channels)
        self.exchange = ViewExchange(encoder_channels[-1], num_heads, num_exchange_layers, extent)
        self.positions = FourierFeatures(num_bands)
        self.views = nn.ModuleList()
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.heads = nn.ModuleList()
        for level, (number, in_channels) in enumerate(zip(channels, encoder_channels[-num_levels:])):
            size = volume_size // 2 ** (level + 1)
            self.register_buffer(
                f"centers_{level}", voxel_centers((size,) * 3, extent / size).float(), persistent=False
            )
            coarsest = level == num_levels - 1
            swin = num_heads if level >= num_levels - num_swin_levels else 0
            finer = channels[level - 1] if level else 0
            position = self.positions.out_channels(3) if coarsest else 0
            self.views.append(CrossViewAttention(in_channels, number, num_heads))
            self.down.append(
                Level(number + finer + position, number, growth, num_blocks, swin, window_size, use_checkpoint)
            )
            if not coarsest:
                coarser = channels[level + 1]
                self.gates.append(AttentionGate(number, coarser))
                self.up.append(Level(number + coarser, number, growth, num_blocks, swin, window_size, use_checkpoint))
            self.heads.append(zero_head(number))

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        batch, views = image.shape[:2]
        matrices = beside(matrices, image)
        present = ~image.isnan().any(dim=3).any(dim=2)
        image = image.nan_to_num(0.0)
        scales = self.encoder(image.flatten(0, 1)[:, None])[-len(self.down) :]
        features = [f.unflatten(0, (batch, views)) for f in scales]
        features[-1] = self.exchange(features[-1], matrices, present)

        skips: list[Tensor] = []
        for level, (merge, block) in enumerate(zip(self.views, self.down)):
            centers = self.get_buffer(f"centers_{level}")
            parts = [merge(features[level], matrices, present, centers)]
            if skips:
                parts.append(F.avg_pool3d(skips[-1], 2))
            if level == len(self.down) - 1:
                position = self.positions(centers * (2 / self.extent)).movedim(-1, 0)
                parts.append(position.expand(batch, -1, -1, -1, -1).to(parts[0].dtype))
            skips.append(block(torch.cat(parts, dim=1)))

        x = skips.pop()
        yield self.heads[-1](x)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="trilinear")
            x = self.up[level](torch.cat([self.gates[level](skips[level], x), x], dim=1))
            yield self.heads[level](x)


class Level(nn.Module):
    """One level of the U-Net: a residual block that sets the channels, dense blocks, and Swin blocks if asked for.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the result.
        growth: Growth of the dense blocks over `channels`.
        num_blocks: Dense blocks.
        swin_heads: Heads of two Swin blocks, the second of shifted windows; 0 for none.
        window_size: Side of a window in voxels.
        use_checkpoint: Compute it again in the backward pass.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        growth: float,
        num_blocks: int,
        swin_heads: int,
        window_size: int,
        use_checkpoint: bool,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.Sequential(
            PreActivationBlock(3, in_channels, channels),
            *(ResidualDenseBlock(channels, max(int(growth * channels), 1)) for _ in range(num_blocks)),
        )
        self.swin = (
            BasicLayer(channels, 2, swin_heads, [window_size] * 3, drop_path=[0.0, 0.0])
            if swin_heads
            else nn.Identity()
        )

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B D X Y Z"]:
        """Features of the same size."""
        if self.use_checkpoint and self.training:
            x = checkpoint(self._run, x, use_reentrant=False)
        else:
            x = self._run(x)
        return x

    def _run(self, x: Tensor) -> Tensor:
        result: Tensor = self.swin(self.blocks(x))
        return result


class AttentionGate(nn.Module):
    """Lets through of a skip what the coarser level asks for (Oktay et al., MIDL 2018, equation 2), without batch norm.

    Args:
        channels: Channels of the skip.
        gate_channels: Channels of the coarser level, already at the skip's size.
    """

    def __init__(self, channels: int, gate_channels: int) -> None:
        super().__init__()
        inner = max(channels // 2, 1)
        self.skip = nn.Conv3d(channels, inner, 1, bias=False)
        self.gate = nn.Conv3d(gate_channels, inner, 1)
        self.weigh = nn.Conv3d(inner, 1, 1)

    def forward(self, skip: Float[Tensor, "B C X Y Z"], gate: Float[Tensor, "B G X Y Z"]) -> Float[Tensor, "B C X Y Z"]:
        """The skip, weighed voxel by voxel."""
        weight: Tensor = self.weigh(F.silu(self.skip(skip) + self.gate(gate))).sigmoid()
        return skip * weight
