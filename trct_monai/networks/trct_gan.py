"""TRCT-GAN: dense encoders, a transformer bridge from radiographs to a volume, and a decoder with attention in
attention (Wang, Sun, Zeng and Lam, Digital Signal Processing 140, 2023, 104123)."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.attention_in_attention import AttentionInAttention
from trct_monai.networks.blocks import PreActivationBlock
from trct_monai.networks.bridge import Queries, VolumeBridge
from trct_monai.networks.dense_encoder import DenseEncoder
from trct_monai.networks.lifting import lift
from trct_monai.networks.reconstruction import ReconstructionNetwork, beside, zero_head


class TRCTGenerator(ReconstructionNetwork):
    """The generator: radiographs to a volume.

    Each view has a dense encoder of its own, with 2-D attention in attention at its end. The bridge turns the coarsest
    features of all views into a coarse volume. The decoder doubles it; at each scale it takes the radiographs' features
    of that scale, lifted along each view's own rays, and applies 3-D attention in attention. The head doubles once more
    and ends in tanh: the correction of the initial volume, zero before training.

    With the default sizes it has 102.9 million parameters (the reduced size 24.2 million; the first implementation's
    reduced generator had 73.9 million, most of them in its bridge).

    Args:
        volume_size: Voxels along each side: 2 ** len(decoder_channels) cells of the bridge along each side.
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        encoder_channels: Channels of each scale of the encoders; a radiograph shrinks by 2 ** len(encoder_channels).
        hidden_size: Channels of the bridge.
        num_layers: Transformer blocks of the bridge.
        num_heads: Attention heads of the bridge.
        decoder_channels: Channels of the decoder, from the bridge's scale to half of the volume's.
        skip_channels: Channels to which a view's features are reduced before they are lifted; 0 lifts none: then the
            bridge alone tells the decoder where things are.
        queries: ``volume``, or ``depth`` for the ablation; see `VolumeBridge`.
        upsampling: ``trilinear`` or ``nearest``.
        use_checkpoint: Compute the decoder again in the backward pass: less memory, a third more time.
        channels_last: Keep the decoder's features with their channels side by side in memory, as tensor cores like it.
        image_mean: Line integral that the encoders take as zero.
        image_scale: Line integral that the encoders take as one, less `image_mean`.

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
        hidden_size: int = 512,
        num_layers: int = 6,
        num_heads: int = 8,
        decoder_channels: Sequence[int] = (512, 256, 128, 64),
        skip_channels: int = 32,
        queries: Queries = "volume",
        upsampling: Literal["trilinear", "nearest"] = "trilinear",
        use_checkpoint: bool = False,
        channels_last: bool = False,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        grid_size = volume_size // 2 ** len(decoder_channels)
        if grid_size * 2 ** len(decoder_channels) != volume_size or len(encoder_channels) < len(decoder_channels) - 1:
            raise ValueError(
                f"volume_size must be a multiple of 2 ** len(decoder_channels), with at most one more of them than "
                f"encoder_channels, got {volume_size}, {tuple(decoder_channels)} and {tuple(encoder_channels)}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.upsampling, self.use_checkpoint = upsampling, use_checkpoint

        self.encoders = nn.ModuleList(DenseEncoder(1, encoder_channels) for _ in range(self.num_views))
        self.attention = nn.ModuleList(AttentionInAttention(2, encoder_channels[-1]) for _ in range(self.num_views))
        self.bridge = VolumeBridge(
            encoder_channels[-1],
            hidden_size,
            num_views=self.num_views,
            num_layers=num_layers,
            num_heads=num_heads,
            grid_size=grid_size,
            extent=extent,
            queries=queries,
        )
        # The decoder's scales from coarse to fine take the encoders' from coarse to fine, the finest twice if need be.
        scales = [*reversed(encoder_channels), encoder_channels[0]][: len(decoder_channels)]
        self.skips = nn.ModuleList(
            nn.Conv2d(channels, skip_channels, 1) for channels in scales for _ in range(self.num_views) if skip_channels
        )
        self.levels = nn.ModuleList()
        before = hidden_size
        for level, after in enumerate(decoder_channels):
            merged = before + self.num_views * skip_channels
            self.register_buffer(
                f"centers_{level}",
                voxel_centers((grid_size * 2**level,) * 3, extent / grid_size / 2**level).float(),
                persistent=False,
            )
            self.levels.append(nn.Sequential(PreActivationBlock(3, merged, after), AttentionInAttention(3, after)))
            before = after
        self.head = zero_head(decoder_channels[-1])
        self.memory_format = torch.channels_last_3d if channels_last else torch.contiguous_format
        self.levels.to(memory_format=self.memory_format)  # type: ignore[call-overload]  # not in its stub

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        matrices = beside(matrices, image)
        scales = self._encode(image)
        x = self.bridge(torch.stack(scales[0], dim=1), matrices)
        for level, features in enumerate(scales):
            arguments = (x, features, matrices, level)
            if self.use_checkpoint and self.training:
                x = checkpoint(self._decode, *arguments, use_reentrant=False)
            else:
                x = self._decode(*arguments)
        yield torch.tanh(self.head(x))

    def _encode(self, image: Tensor) -> list[list[Tensor]]:
        """Features of each view, for each of the decoder's scales from coarse to fine."""
        views = []
        for view, (encoder, attention) in enumerate(zip(self.encoders, self.attention)):
            features = encoder(image[:, view : view + 1])
            features[-1] = attention(features[-1])
            views.append([*reversed(features), features[0]])
        return [[view[level] for view in views] for level in range(len(self.levels))]

    def _decode(self, x: Tensor, features: list[Tensor], matrices: Tensor, level: int) -> Tensor:
        """One scale of the decoder: double the volume (but for the first), add what the radiographs show, attend."""
        if level:
            corners = None if self.upsampling == "nearest" else False
            x = F.interpolate(x, scale_factor=2, mode=self.upsampling, align_corners=corners)
        if self.skips:
            first = level * self.num_views
            skips = torch.stack([self.skips[first + view](x2d) for view, x2d in enumerate(features)], dim=1)
            lifted = lift(skips, matrices, self.get_buffer(f"centers_{level}"))
            x = torch.cat([x, lifted.flatten(1, 2)], dim=1)
        result: Tensor = self.levels[level](x.contiguous(memory_format=self.memory_format))
        return result
