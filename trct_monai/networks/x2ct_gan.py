"""X2CT-GAN: two branches from a radiograph to a volume, fused in the patient's frame (Ying et al., "X2CT-GAN:
reconstructing CT from biplanar X-rays with generative adversarial networks", CVPR 2019)."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.blocks import PreActivationBlock, group_norm
from trct_monai.networks.dense_encoder import DenseNetEncoder
from trct_monai.networks.lifting import lift
from trct_monai.networks.reconstruction import ReconstructionNetwork, beside, zero_head


class X2CTGenerator(ReconstructionNetwork):
    """The generator: a 2-D encoder and a 3-D decoder for each view, and a decoder that fuses them.

    The paper's three kinds of connection (section 3.2.2):

    - A: the encoder's last features, averaged over the picture, make a coarse volume by a fully connected layer.
    - B: at each finer scale the encoder's features join the decoder's. A level of a half, a quarter, ... of the
      volume's resolution takes the features of a half, a quarter, ... of the radiograph's.
    - C: at each scale the branches' features are averaged. The average goes on in both branches and joins the decoder
      that fuses them, whose last features become the volume.

    In the paper features are repeated along an axis of the volume, as if rays were parallel, and the branches work in
    the frames of their detectors, whose axes are exchanged before they are averaged. Here they are lifted along the
    rays of each case's own cameras, so that every branch works in the patient's frame. The blocks are this library's:
    group norm, SiLU and residual pre-activation blocks in the decoders, trilinear upsampling, and the correction of an
    initial volume. With one view there is one branch, and nothing to fuse.

    With the default sizes it has 60.9 million parameters.

    Args:
        volume_size: Voxels along each side, a multiple of 2 ** len(dense_layers).
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        stem_channels: Channels of the radiographs' features at full resolution.
        dense_layers: Layers of the dense block at each scale; a radiograph shrinks by 2 ** len(dense_layers).
        growth_rate: Channels that each of these layers adds.
        decoder_channels: Channels of the decoders, from volume_size / 2 ** len(dense_layers) on: as many as
            `dense_layers` and one more end at the volume's resolution, as in the paper; without the last they end at
            half of it, and the head doubles once more.
        dropout: Share of the coarse volumes of connection A that is dropped in training.
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
        stem_channels: int = 64,
        dense_layers: Sequence[int] = (6, 12, 24, 16, 6),
        growth_rate: int = 32,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16, 16),
        dropout: float = 0.5,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        factor, finest = 2 ** len(dense_layers), len(dense_layers) + 1 - len(decoder_channels)
        if finest not in (0, 1) or volume_size % factor:
            raise ValueError(
                f"volume_size must be a multiple of 2 ** len(dense_layers), and decoder_channels as many as "
                f"dense_layers or one more, got {volume_size}, {tuple(dense_layers)} and {tuple(decoder_channels)}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=factor,
            image_mean=image_mean,
            image_scale=image_scale,
        )
        grid_size = volume_size // factor
        for level in range(1, len(decoder_channels)):
            size = grid_size * 2**level
            centers = voxel_centers((size,) * 3, extent / size).float()
            self.register_buffer(f"centers_{level}", centers, persistent=False)
        branches = [
            ViewBranch(stem_channels, dense_layers, growth_rate, decoder_channels, grid_size, dropout)
            for _ in range(self.num_views)
        ]
        self.branches: Sequence[ViewBranch] = nn.ModuleList(branches)  # type: ignore[assignment]  # what it holds
        self.fusion = Decoder(decoder_channels) if self.num_views > 1 else None
        self.head = zero_head(decoder_channels[-1]) if finest else _zero_conv(decoder_channels[-1])

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        matrices = beside(matrices, image)
        encoded = [branch.encode(view[:, None]) for branch, view in zip(self.branches, image.unbind(1))]
        volumes = [volume for volume, _ in encoded]
        fused = mean = _mean(volumes)
        for level in range(len(encoded[0][1])):
            centers = self.get_buffer(f"centers_{level + 1}")
            volumes = [
                branch.join(level, mean, scales[level], matrices[:, view : view + 1], centers)
                for view, (branch, (_, scales)) in enumerate(zip(self.branches, encoded))
            ]
            mean = _mean(volumes)
            fused = mean if self.fusion is None else self.fusion(level, fused, mean)
        yield self.head(fused)


class ViewBranch(nn.Module):
    """One view: its encoder, what connects it with the volume (A and B), and its decoder.

    Args:
        stem_channels: Channels of the radiograph's features at full resolution.
        dense_layers: Layers of the dense block at each scale.
        growth_rate: Channels that each of these layers adds.
        decoder_channels: Channels of the decoder, from coarse to fine.
        grid_size: Cells along each side of the coarsest volume.
        dropout: Share of it that is dropped in training.
    """

    def __init__(
        self,
        stem_channels: int,
        dense_layers: Sequence[int],
        growth_rate: int,
        decoder_channels: Sequence[int],
        grid_size: int,
        dropout: float,
    ) -> None:
        super().__init__()
        coarsest, *finer = decoder_channels
        self.encoder = DenseNetEncoder(1, stem_channels, dense_layers, growth_rate)
        self.volume = nn.Sequential(
            group_norm(self.encoder.channels[-1]),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(self.encoder.channels[-1], coarsest * grid_size**3),
            nn.Dropout(dropout),
            nn.SiLU(),
            nn.Unflatten(1, (coarsest, *(grid_size,) * 3)),
        )
        scales = list(reversed(self.encoder.channels[:-1]))[: len(finer)]
        self.flat = nn.ModuleList(_block(nn.Conv2d(before, after, 1)) for before, after in zip(scales, finer))
        self.links = nn.ModuleList(_block(nn.Conv3d(channels, channels, 3, padding=1)) for channels in finer)
        self.decoder = Decoder(decoder_channels)

    def encode(self, view: Float[Tensor, "B 1 H W"]) -> tuple[Float[Tensor, "B C X Y Z"], list[Tensor]]:
        """The coarse volume of connection A, and the features (B, C, h, w) for each further level of the decoder."""
        *scales, last = self.encoder(view)
        return self.volume(last), [flat(x) for flat, x in zip(self.flat, reversed(scales))]

    def join(
        self,
        level: int,
        volume: Float[Tensor, "B C X Y Z"],
        features: Float[Tensor, "B D h w"],
        matrices: Float[Tensor, "_ 1 3 4"],
        centers: Float[Tensor, "2*X 2*Y 2*Z 3"],
    ) -> Float[Tensor, "B D 2*X 2*Y 2*Z"]:
        """Double a volume, and join it with the features of this view by connection B.

        Args:
            level: Number of the doubling.
            volume: What goes on from the level before.
            features: Those that `encode` gives for this level.
            matrices: World-to-detector matrices of this view.
            centers: Centres of the voxels in mm.
        """
        lifted = lift(features[:, None], matrices, centers)
        joined: Tensor = self.decoder(level, volume, self.links[level](lifted[:, 0]))
        return joined


class Decoder(nn.Module):
    """Levels that each double a volume and join it with features of its new size.

    Args:
        channels: Channels of the coarsest volume and of each level.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        pairs = list(zip(channels, channels[1:]))
        self.ups = nn.ModuleList(_block(nn.Conv3d(before, after, 3, padding=1)) for before, after in pairs)
        self.blocks = nn.ModuleList(PreActivationBlock(3, 2 * after, after) for _, after in pairs)

    def forward(
        self, level: int, volume: Float[Tensor, "B C X Y Z"], features: Float[Tensor, "B D 2*X 2*Y 2*Z"]
    ) -> Float[Tensor, "B D 2*X 2*Y 2*Z"]:
        """The next, finer volume."""
        doubled = F.interpolate(self.ups[level](volume), scale_factor=2, mode="trilinear")
        joined: Tensor = self.blocks[level](torch.cat([doubled, features], dim=1))
        return joined


def _block(conv: nn.Conv2d | nn.Conv3d) -> nn.Sequential:
    """A convolution, norm and SiLU."""
    return nn.Sequential(conv, group_norm(conv.out_channels), nn.SiLU())


def _mean(volumes: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(volumes)).mean(dim=0) if len(volumes) > 1 else volumes[0]


def _zero_conv(in_channels: int) -> nn.Conv3d:
    """Features to a volume of their size, zero before training."""
    head = nn.Conv3d(in_channels, 1, 7, padding=3)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)  # type: ignore[arg-type]  # it has one
    return head
