"""A convolutional network with outputs at several scales: stage 1 of the two-stage method."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.blocks import FourierFeatures, ResidualEncoder, residual_blocks
from trct_monai.networks.lifting import lift
from trct_monai.networks.reconstruction import ReconstructionNetwork, beside, zero_head


class MultiScaleCNN(ReconstructionNetwork):
    """Deep encoders of the radiographs, and a residual decoder that gives a volume at each of several scales.

    At each level the decoder takes the radiographs' features of that level, lifted along each view's own rays, beside
    what the coarser level made; positions enter at the coarsest. Each of the last levels adds its correction to the
    interpolated ones before (see `ReconstructionNetwork`), and can be supervised by itself.

    Args:
        volume_size: Voxels along each side; the coarsest level has volume_size / 2 ** len(decoder_channels).
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        encoder_channels: Channels of each stage of the encoders; a radiograph shrinks by 2 ** len(encoder_channels).
        decoder_channels: Channels of each level of the decoder, the coarsest first; at most as many as
            `encoder_channels`.
        num_blocks: Residual blocks of a stage and of a level.
        skip_channels: Channels to which a view's features are reduced before they are lifted.
        num_scales: Number of volumes: those of the last levels.
        deep_supervision: While training, return the volumes of all scales; see `ReconstructionNetwork`.
        num_bands: Frequencies of the positional encoding.
        image_mean: Line integral that the encoders take as zero.
        image_scale: Line integral that the encoders take as one, less `image_mean`.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    extends_coarser = True

    def __init__(
        self,
        volume_size: int = 64,
        *,
        geometry: str = "x2ct",
        extent: float = DEFAULT_EXTENT,
        encoder_channels: Sequence[int] = (64, 128, 256, 384),
        decoder_channels: Sequence[int] = (256, 128, 64),
        num_blocks: int = 2,
        skip_channels: int = 64,
        num_scales: int = 3,
        deep_supervision: bool = False,
        num_bands: int = 4,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        num_levels = len(decoder_channels)
        if not 1 <= num_scales <= num_levels <= len(encoder_channels) or volume_size % 2**num_levels:
            raise ValueError(
                f"num_scales must be at most the number of decoder_channels, which must be at most that of "
                f"encoder_channels, and volume_size a multiple of 2 ** len(decoder_channels), got {num_scales}, "
                f"{tuple(decoder_channels)}, {tuple(encoder_channels)} and {volume_size}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            num_scales=num_scales,
            deep_supervision=deep_supervision,
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.encoders = nn.ModuleList(
            ResidualEncoder(2, 1, encoder_channels, num_blocks) for _ in range(self.num_views)
        )
        self.skips = nn.ModuleList(
            nn.Conv2d(channels, skip_channels, 1)
            for channels in list(reversed(encoder_channels))[:num_levels]
            for _ in range(self.num_views)
        )
        self.positions = FourierFeatures(num_bands)
        self.levels = nn.ModuleList()
        self.heads = nn.ModuleDict()  # by level: finer levels leave the others' names alone
        before = self.positions.out_channels(3)
        for level, channels in enumerate(decoder_channels):
            size = volume_size // 2 ** (num_levels - level)
            centers = voxel_centers((size,) * 3, extent / size).float()
            self.register_buffer(f"centers_{level}", centers, persistent=False)
            merged = before + self.num_views * skip_channels
            self.levels.append(residual_blocks(3, merged, channels, num_blocks))
            if level >= num_levels - num_scales:
                self.heads[str(level)] = zero_head(channels)
            before = channels

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        matrices = beside(matrices, image)
        views = [encoder(image[:, view : view + 1])[::-1] for view, encoder in enumerate(self.encoders)]
        x = self.positions(self.get_buffer("centers_0") * (2 / self.extent)).movedim(-1, 0)
        x = x.expand(len(image), -1, -1, -1, -1)
        for level, block in enumerate(self.levels):
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            reduced = [self.skips[level * self.num_views + v](features[level]) for v, features in enumerate(views)]
            lifted = lift(torch.stack(reduced, dim=1), matrices, self.get_buffer(f"centers_{level}"))
            x = block(torch.cat([x, lifted.flatten(1, 2)], dim=1))
            if str(level) in self.heads:
                yield self.heads[str(level)](x)
