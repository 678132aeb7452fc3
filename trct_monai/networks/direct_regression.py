"""Direct regression of a CT volume from radiographs: a 3-D transformer that attends along X-rays."""

from collections.abc import Iterable, Sequence
from math import log2

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.blocks import ConditionedTransformerBlock, FourierFeatures, PreActivationBlock, ResidualEncoder
from trct_monai.networks.reconstruction import FinerLevels, ReconstructionNetwork, beside, zero_head
from trct_monai.networks.tokens import RadiographTokens


class DirectRegression(ReconstructionNetwork):
    """A learned initial volume, corrected by tokens that gather what the radiographs say along their rays.

    Each view has an encoder of its own. Its feature map becomes tokens that carry the course of their rays; the
    volume is cut into cubes whose tokens carry their positions. In the transformer the volume's tokens attend to each
    other and to the radiographs' tokens, with a bias that falls with the squared distance between cube and ray: the
    heads range from "only rays that hit me" to "all rays alike" (fixed slopes, as in ALiBi, Press et al., ICLR 2022).
    A vector pooled from all views modulates every block. A convolutional decoder turns the tokens into a correction
    of the initial volume, zero before training: an untrained network returns its initial volume.

    With `finer_channels` the decoder goes on beyond the size that the tokens were cut for, twice as fine at each level,
    and adds what the interpolation lacks. Its coarser part is then the same network, weight for weight.

    Args:
        volume_size: Voxels along each side of the volume.
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        encoder_channels: Channels of each radiograph encoder; a radiograph shrinks by 2 ** len(encoder_channels).
        hidden_size: Channels of the volume's tokens.
        num_layers: Transformer blocks.
        num_heads: Attention heads.
        patch_size: Voxels along the side of one token's cube: a power of two.
        decoder_channels: Channels at each doubling from tokens to voxels: log2(patch_size) numbers.
        finer_channels: Channels at each doubling beyond; the tokens' cubes are counted in the voxels before those.
        deep_supervision: While training, return the volumes of all scales; see `ReconstructionNetwork`.
        use_checkpoint: Compute the finer levels again in the backward pass: less memory, more time.
        num_bands: Frequencies of the positional encodings.
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
        encoder_channels: Sequence[int] = (32, 64, 128, 512),
        hidden_size: int = 256,
        num_layers: int = 4,
        num_heads: int = 4,
        patch_size: int = 4,
        decoder_channels: Sequence[int] = (80, 40),
        finer_channels: Sequence[int] = (),
        deep_supervision: bool = False,
        use_checkpoint: bool = False,
        num_bands: int = 6,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        num_levels = int(log2(patch_size)) if patch_size > 1 else 0
        token_size = patch_size * 2 ** len(finer_channels)
        if (
            num_levels < 1
            or 2**num_levels != patch_size
            or volume_size % token_size
            or len(decoder_channels) != num_levels
        ):
            raise ValueError(
                f"patch_size must be a power of two with one of decoder_channels for each doubling, and volume_size a "
                f"multiple of patch_size * 2 ** len(finer_channels), got patch_size {patch_size}, volume_size "
                f"{volume_size}, decoder_channels {tuple(decoder_channels)}, finer_channels {tuple(finer_channels)}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            num_scales=1 + len(finer_channels),
            deep_supervision=deep_supervision,
            initial_size=volume_size // 2 ** len(finer_channels),
            image_mean=image_mean,
            image_scale=image_scale,
        )
        grid_size, feature_size = volume_size // token_size, encoder_channels[-1]
        self.grid_size = grid_size
        centers = voxel_centers((grid_size,) * 3, extent / grid_size).float().flatten(0, 2)  # (N, 3) mm

        self.encoders = nn.ModuleList(ResidualEncoder(2, 1, encoder_channels) for _ in range(self.num_views))
        self.tokens = RadiographTokens(feature_size, centers, extent / grid_size, num_heads, extent, num_bands)
        self.positions = FourierFeatures(num_bands)
        self.condition = nn.Sequential(
            nn.Linear(self.num_views * (feature_size + 2), hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.patch_embedding = nn.Conv3d(1, hidden_size, patch_size, patch_size)
        self.position_embedding = nn.Linear(self.positions.out_channels(3), hidden_size)
        self.blocks = nn.ModuleList(
            ConditionedTransformerBlock(hidden_size, feature_size, hidden_size, num_heads) for _ in range(num_layers)
        )
        self.decoder = nn.ModuleList(
            PreActivationBlock(3, before, after)
            for before, after in zip((hidden_size, *decoder_channels), decoder_channels)
        )
        self.head = zero_head(decoder_channels[-1])
        self.finer = FinerLevels(decoder_channels[-1], finer_channels, use_checkpoint)

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        matrices = beside(matrices, image)
        context, bias, condition = self._read(image, matrices)
        x = self.patch_embedding(self.initial_volume).flatten(2).transpose(1, 2)  # (1, N, C)
        x = (x + self.position_embedding(self.positions(self.tokens.centers * (2 / self.extent)))).expand(
            len(image), -1, -1
        )
        for block in self.blocks:
            x = block(x, context, condition, bias)
        x = x.transpose(1, 2).unflatten(2, (self.grid_size,) * 3)
        for level, block in enumerate(self.decoder):
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            x = block(x)
        yield self.head(x)
        yield from self.finer(x)

    def _read(self, x: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (B, M, F) of all radiographs, their bias (1 or B, heads, N, M) and the condition vector (B, C)."""
        features = torch.stack([encoder(x[:, v : v + 1])[-1] for v, encoder in enumerate(self.encoders)], dim=1)
        context, bias = self.tokens(features, matrices)
        statistics = torch.stack([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=-1).to(features.dtype)
        condition = self.condition(torch.cat([features.mean(dim=(3, 4)), statistics], dim=-1).flatten(1))
        return context, bias, condition
