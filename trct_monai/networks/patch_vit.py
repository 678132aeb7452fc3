"""A vision transformer on patches of the radiographs, without geometry: what a general image network makes of them."""

from collections.abc import Iterable, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets import ViT
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.networks.blocks import PreActivationBlock
from trct_monai.networks.reconstruction import FinerLevels, ReconstructionNetwork, zero_head


class PatchViT(ReconstructionNetwork):
    """Patches of all views side by side as tokens; their channels are read as depth; a decoder makes voxels of them.

    The way from 2-D features to a volume is that of PatRecon (Shen, Zhao and Xing, Nature Biomedical Engineering 3,
    2019): a reshape, which leaves it to the weights to find out where each voxel is. It is here to be compared with
    networks that know the rays. Camera matrices are ignored.

    Args:
        volume_size: Voxels along each side: grid_size * 2 ** (len(decoder_channels) + len(finer_channels)).
        geometry: Preset of `trct_monai.geometry.preset`; its number of views counts.
        extent: Side of the volume in mm.
        image_size: Rows and columns of the radiographs.
        patch_size: Pixels along the side of a patch.
        hidden_size: Channels of the tokens.
        num_layers: Transformer blocks.
        num_heads: Attention heads.
        grid_size: Voxels along each side of the coarsest volume.
        decoder_channels: Channels at the coarsest grid and at each doubling up to the first volume.
        finer_channels: Channels at each doubling beyond, each of which adds to the interpolated volume.
        deep_supervision: While training, return the volumes of all scales; see `ReconstructionNetwork`.
        image_mean: Line integral that the network takes as zero.
        image_scale: Line integral that the network takes as one, less `image_mean`.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    extends_coarser = True

    def __init__(
        self,
        volume_size: int = 256,
        *,
        geometry: str = "x2ct",
        extent: float = DEFAULT_EXTENT,
        image_size: int = 512,
        patch_size: int = 16,
        hidden_size: int = 256,
        num_layers: int = 6,
        num_heads: int = 8,
        grid_size: int = 16,
        decoder_channels: Sequence[int] = (64, 32),
        finer_channels: Sequence[int] = (16, 8),
        deep_supervision: bool = False,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        if grid_size * 2 ** (len(decoder_channels) + len(finer_channels)) != volume_size:
            raise ValueError(
                f"volume_size must be grid_size * 2 ** (len(decoder_channels) + len(finer_channels)), got "
                f"{volume_size}, {grid_size}, {tuple(decoder_channels)} and {tuple(finer_channels)}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=patch_size,
            num_scales=1 + len(finer_channels),
            deep_supervision=deep_supervision,
            initial_size=volume_size // 2 ** len(finer_channels),
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.grid_size, self.num_patches = grid_size, image_size // patch_size
        self.encoder = ViT(
            in_channels=self.num_views,
            img_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            mlp_dim=4 * hidden_size,
            num_layers=num_layers,
            num_heads=num_heads,
            spatial_dims=2,
        )
        for block in self.encoder.blocks:  # MONAI makes this norm for cross-attention, and never uses it
            block.norm_cross_attn = nn.Identity()
        self.to_depth = nn.Linear(hidden_size, decoder_channels[0] * grid_size)
        self.decoder = nn.ModuleList(
            PreActivationBlock(3, before, after)
            for before, after in zip((decoder_channels[0], *decoder_channels), decoder_channels)
        )
        self.head = zero_head(decoder_channels[-1])
        self.finer = FinerLevels(decoder_channels[-1], finer_channels)

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        if image.shape[-1] != self.num_patches * self.downsampling or image.shape[-2] != image.shape[-1]:
            side = self.num_patches * self.downsampling
            raise ValueError(f"image must be (B, {self.num_views}, {side}, {side}), got shape {tuple(image.shape)}")
        tokens, _ = self.encoder(image)
        x = self.to_depth(tokens).unflatten(1, (self.num_patches, -1)).unflatten(3, (-1, self.grid_size))
        # (B, rows, columns, C, depth) to (B, C, X, Y, Z): row 0 is superior, column 0 the patient's right.
        x = x.permute(0, 3, 2, 4, 1).flip(2, 4)
        x = F.interpolate(x, size=(self.grid_size,) * 3, mode="trilinear")
        for level, block in enumerate(self.decoder):
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            x = block(x)
        yield self.head(x)
        yield from self.finer(x)
