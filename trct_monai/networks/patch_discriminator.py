"""A PatchGAN discriminator: one score for each patch of a volume or an image."""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Float
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from trct_monai.networks.blocks import group_norm


class PatchDiscriminator(nn.Module):
    """Convolutions of stride 2, then one score for each patch (Isola et al., CVPR 2017, section 3.2.2).

    MONAI's discriminator of the same name returns the features of every layer; this one returns the scores alone. With
    the default channels in 3-D it has 11.0 million parameters and 8 x 8 x 8 scores for 128 x 128 x 128 voxels.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of what it judges, those of a condition included.
        channels: Channels of each convolution; each but the last halves the input, and the last too if its stride is 2.
        norm: ``spectral`` bounds each convolution (Miyato et al., ICLR 2018) and so what the discriminator can win by;
            ``group`` normalises the features, ``instance`` each channel by itself.
        last_stride: Stride of the last of these convolutions. With 1, the default channels and ``head_size`` 4 each
            score sees 70 x 70 pixels, as in pix2pix.
        head_size: Kernel of the convolution that gives the scores.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512),
        norm: Literal["spectral", "group", "instance"] = "spectral",
        last_stride: int = 2,
        head_size: int = 3,
    ) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        bound = spectral_norm if norm == "spectral" else lambda module: module
        layers: list[nn.Module] = []
        for level, (before, after) in enumerate(zip((in_channels, *channels), channels)):
            stride = last_stride if level == len(channels) - 1 else 2
            instance = norm == "instance" and level > 0  # it takes a bias away again
            layers.append(bound(conv(before, after, 4, stride, 1, bias=not instance)))
            if norm == "group" and level:
                layers.append(group_norm(after))
            elif instance:
                layers.append(nn.GroupNorm(after, after))
            layers.append(nn.LeakyReLU(0.2))
        self.layers = nn.Sequential(*layers, bound(conv(channels[-1], 1, head_size, padding=1)))

    def forward(self, x: Float[Tensor, "B C *spatial"]) -> Float[Tensor, "B 1 *patches"]:
        """Scores of the patches, without an activation.

        Args:
            x: Volumes or images in [0, 1].
        """
        scores: Tensor = self.layers(2.0 * x - 1.0)
        return scores
