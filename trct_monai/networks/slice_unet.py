"""Slices to slices: the U-Net of the phase generator."""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from monai.networks.nets import UNet
from torch import Tensor, nn

from trct_monai.io.eight_bits import TakesEightBits


class SliceUNet(TakesEightBits):
    """The time average's slice, corrected by a U-Net that sees it and its neighbours.

    pix2pix's generator (Isola et al., CVPR 2017) out of MONAI's U-Net: eight halvings by convolutions of stride 2, a
    norm, a tanh at the end. The tanh bounds a correction that is zero before training: an untrained network is the
    identity, the baseline that has to be beaten. With the defaults it has 35.3 million parameters (the original's
    4 x 4 kernels make 54.4 million).

    Args:
        num_slices: Slices of the input, the one to be corrected in the middle: an odd number.
        channels: Channels of each level; each but the last halves the slice.
        norm: MONAI's name of a norm: ``instance``, ``batch``, or ``syncbatch`` over several GPUs;
            None for none.
        min_change: In evaluation corrections are pulled toward zero by so much, and smaller ones vanish: 20 HU of the
            usual window. What does not move then stays as it was.

    Raises:
        ValueError: If `num_slices` is not odd.
    """

    def __init__(
        self,
        num_slices: int = 1,
        channels: Sequence[int] = (64, 128, 256, 512, 512, 512, 512, 512, 512),
        norm: str | None = "instance",
        min_change: float = 0.008,
    ) -> None:
        super().__init__()
        if num_slices < 1 or num_slices % 2 == 0:
            raise ValueError(f"num_slices must be odd and positive, got {num_slices}")
        self.min_change = float(min_change)
        self.num_slices, self.multiple = num_slices, 2 ** (len(channels) - 1)
        self.unet = UNet(
            2,
            num_slices,
            1,
            channels,
            (2,) * (len(channels) - 1),
            num_res_units=0,
            act=("leakyrelu", {"negative_slope": 0.2}),
            norm=norm,
            bias=norm is None,  # a norm takes it away again; the last convolution needs none
        )
        last = [module for module in self.unet.modules() if isinstance(module, nn.ConvTranspose2d)][-1]
        nn.init.zeros_(last.weight)
        if last.bias is not None:
            nn.init.zeros_(last.bias)

    def forward(self, image: Float[Tensor, "B C X Y"]) -> Float[Tensor, "B 1 X Y"]:
        """Phase 0 in [0, 1] (unbounded while training, so that gradients pass); any size in the plane.

        Args:
            image: Slices of the time average in [0, 1] of the HU window.

        Raises:
            ValueError: If the number of slices does not fit.
        """
        if image.shape[1] != self.num_slices:
            raise ValueError(f"image must be (B, {self.num_slices}, X, Y), got shape {tuple(image.shape)}")
        middle = image[:, self.num_slices // 2 : self.num_slices // 2 + 1]
        # Instance norm needs two values at least where the slice is smallest.
        sizes = [max(-(-n // self.multiple), 2) * self.multiple for n in image.shape[2:]]
        before = [(size - n) // 2 for size, n in zip(sizes, image.shape[2:])]
        after = [size - n - b for size, n, b in zip(sizes, image.shape[2:], before)]
        padded = F.pad(2 * image - 1, (before[1], after[1], before[0], after[0]), value=-1.0)
        x, y = (slice(b, b + n) for b, n in zip(before, image.shape[2:]))
        change = self.unet(padded)[..., x, y].tanh()
        result: Tensor = middle + (change if self.training else F.softshrink(change, self.min_change))
        return result if self.training else result.clamp(0.0, 1.0)
