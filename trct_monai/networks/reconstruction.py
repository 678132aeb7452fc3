"""What networks from radiographs to a volume share: views, the radiographs' scale, an initial volume, several sizes."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.networks.blocks import SubpixelUpsample
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trct_monai.geometry import preset, projection_matrices
from trct_monai.io.eight_bits import TakesEightBits
from trct_monai.networks.blocks import PreActivationBlock
from trct_monai.resampling import resize_cube

logger = logging.getLogger(__name__)


class ReconstructionNetwork(TakesEightBits, ABC):
    """An initial volume, corrected by what the radiographs show, at one scale or at several.

    A subclass gives `correct`, zero before training: an untrained network then returns its initial volume, and one that
    learns nothing cannot pass for one that does. Corrections of several scales add up as in a Laplacian pyramid (Burt
    and Adelson, IEEE Trans. Commun. 31, 1983): each is added to the trilinear interpolation of those before. A finer
    scale that has not been trained therefore changes nothing; it starts at the interpolated coarser result.

    Args:
        volume_size: Voxels along each side of the volume.
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        downsampling: Factor by which both sides of a radiograph must be divisible.
        num_scales: Scales that `correct` yields; each doubles the one before, the last has `volume_size` voxels.
        deep_supervision: While training, return the volumes of all scales, the finest first.
        initial_size: Voxels along each side of the initial volume; `volume_size` if None.
        max_views: Largest number of views of a network that takes any number; None for one that takes those of its
            geometry alone.
        image_mean: Line integral that the encoders take as zero.
        image_scale: Line integral that the encoders take as one, less `image_mean`.

    Raises:
        ValueError: If `volume_size` cannot be halved often enough.
    """

    matrices: Tensor

    extends_coarser = False
    """Whether a network with fewer scales or steps is a part of this one, weight for weight."""

    def __init__(
        self,
        volume_size: int,
        *,
        geometry: str,
        extent: float,
        downsampling: int,
        num_scales: int = 1,
        deep_supervision: bool = False,
        initial_size: int | None = None,
        max_views: int | None = None,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        super().__init__()
        if volume_size % 2 ** (num_scales - 1):
            raise ValueError(f"volume_size must be a multiple of {2 ** (num_scales - 1)}, got {volume_size}")
        cameras = preset(geometry)
        self.num_views, self.volume_size, self.extent = len(cameras), volume_size, extent
        self.downsampling, self.max_views = downsampling, max_views
        self.sizes = tuple(volume_size // 2**scale for scale in reversed(range(num_scales)))
        self.deep_supervision = deep_supervision
        self._output_size = volume_size
        self.image_mean, self.image_scale = image_mean, image_scale
        self.register_buffer("matrices", projection_matrices(cameras), persistent=False)
        self.initial_volume = nn.Parameter(torch.zeros(1, 1, *(initial_size or volume_size,) * 3))

    @property
    def output_size(self) -> int:
        """The finest scale that is computed: one of `sizes`. In evaluation a coarser result is interpolated."""
        return self._output_size

    @output_size.setter
    def output_size(self, size: int) -> None:
        if size not in self.sizes:
            raise ValueError(f"output_size must be one of {self.sizes}, got {size}")
        self._output_size = size

    @torch.no_grad()
    def start_from(self, volume: Float[Tensor, "1 1 X Y Z"]) -> None:
        """Set the initial volume, such as to the training mean: training then starts where that baseline ends.

        Args:
            volume: Values in [0, 1], at least as fine as the initial volume.
        """
        self.initial_volume.copy_(resize_cube(volume, self.initial_volume.shape[-1]))

    def start_from_coarser(self, state: Mapping[str, Tensor]) -> None:
        """Take over the weights of the same method with fewer scales or steps: its interpolated result is the start.

        The initial volume is interpolated with it. Finer scales and further steps keep what they were initialised with,
        which corrects nothing (only a step's rounds of SIRT, which are not learned, do).

        Args:
            state: A flat state dict, as `trct_monai.io.weights.load_state` reads it from a file.

        Raises:
            TypeError: If it is a path: networks open no files.
            ValueError: If the weights are not those of a coarser network of this kind, or this kind cannot take them.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"start_from_coarser takes weights, not {state!r}: start_from_coarser(load_state(path))")
        if not self.extends_coarser:
            raise ValueError(
                f"a coarser {type(self).__name__} is not a part of a finer one; train coarse to fine in one run, by "
                "bundles/common/multi_resolution.json"
            )
        state, own = dict(state), self.state_dict()
        if "initial_volume" in state and own["initial_volume"].shape != state["initial_volume"].shape:
            state["initial_volume"] = resize_cube(state["initial_volume"], own["initial_volume"].shape[-1])
        wrong = [name for name, value in state.items() if name not in own or own[name].shape != value.shape]
        if wrong or "initial_volume" not in state:
            raise ValueError(
                f"these are not the weights of a coarser {type(self).__name__}: "
                f"{len(wrong)} of {len(state)} tensors do not fit, such as {', '.join(wrong[:3]) or 'initial_volume'}"
            )
        self.load_state_dict(own | state)
        logger.info("started from coarser weights; %d tensors of finer scales stay", len(own) - len(state))

    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ _ 3 4"] | None = None,
        exposed: Bool[Tensor, "B V"] | None = None,
    ) -> Float[Tensor, "B 1 X Y Z"] | list[Tensor]:
        """The volume that the radiographs show, in [0, 1] (unbounded while training, so that gradients pass).

        With deep supervision, while training, a list of such volumes, the finest first.

        Args:
            image: Radiographs as line integrals, views in the order of the geometry. In a network that takes any number
                of views, one that is missing is NaN.
            matrices: World-to-detector matrices of each case, or one set for all, in place of the preset's; on any
                device. A network that reads cameras from them waits for a GPU to have them back, and not for the CPU.
            exposed: Which views have a known exposure, so that their line integrals are a fact; None if that is not
                known. A network that does not correct exposures takes no notice.

        Raises:
            ValueError: If the number of views or the size of the radiographs does not fit.
        """
        matrices = self.check_views(image, matrices)
        return self.corrected(self.initial_volume, image, matrices)

    def check_views(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ _ 3 4"] | None
    ) -> Float[Tensor, "_ V 3 4"]:
        """The matrices of these radiographs, those of the preset if there are none.

        Raises:
            ValueError: If the number of views or the size of the radiographs does not fit.
        """
        views = image.shape[1]
        accepted = views == self.num_views if self.max_views is None else 1 <= views <= self.max_views
        if not accepted or any(n % self.downsampling for n in image.shape[-2:]):
            wanted = str(self.num_views) if self.max_views is None else f"1 to {self.max_views}"
            raise ValueError(
                f"image must be (B, {wanted}, H, W) with H and W multiples of {self.downsampling}, "
                f"got shape {tuple(image.shape)}"
            )
        if views != (self.num_views if matrices is None else matrices.shape[1]):
            known = "none" if matrices is None else str(matrices.shape[1])
            raise ValueError(f"{views} radiographs need the matrices of {views} cameras, got {known}")
        is_traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        if is_traced and not torch.onnx.is_in_onnx_export():  # ONNX states the size itself
            _only_of_size(image, int(image.shape[-2]), int(image.shape[-1]))
        return self.matrices[None] if matrices is None else matrices

    def corrected(
        self,
        start: Float[Tensor, "_ 1 X Y Z"],
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ V 3 4"],
        *others: Tensor,
    ) -> Float[Tensor, "B 1 _ _ _"] | list[Tensor]:
        """A volume with the corrections of all scales; what `forward` gives.

        Args:
            start: The volume that is corrected, one for all cases or one for each, in [0, 1].
            image: Radiographs as line integrals.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            others: What else a network's `correct` takes.
        """
        residuals = self.correct((image - self.image_mean) / self.image_scale, matrices, start, *others)
        volumes: list[Tensor] = []
        correction = torch.zeros(())
        last = len(self.sizes) - 1 - self.sizes[::-1].index(self.output_size)  # a size may come more than once
        for number, (size, residual) in enumerate(zip(self.sizes, residuals)):
            correction = resize_cube(correction, size) + residual if correction.ndim else residual
            if self.training:
                volumes.append(resize_cube(start, size) + correction)
            if number == last:
                break
        if self.training:
            return volumes[::-1] if self.deep_supervision else volumes[-1]
        whole = resize_cube(start, self.volume_size) + resize_cube(correction, self.volume_size)
        return whole.clamp(0.0, 1.0)

    @abstractmethod
    def correct(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ V 3 4"],
        start: Float[Tensor, "_ 1 X Y Z"],
        *others: Any,
    ) -> Iterable[Tensor]:
        """What is added to that volume: (B, 1, n, n, n) for each n of `sizes`, the coarsest first.

        Only as many are drawn as are needed: a generator computes no more.

        Args:
            image: Radiographs, scaled to about [-1, 1].
            matrices: World-to-detector matrices, one set for all cases or one for each.
            start: The volume that is corrected.
        """


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _only_of_size(image: Tensor, height: int, width: int) -> Tensor:
    """The radiographs, which a trace refuses in another size than its example's: its numbers depend on it."""
    if image.shape[-2] != height or image.shape[-1] != width:
        raise ValueError(
            f"expected radiographs of {height} x {width} pixels, as the model was traced for, got "
            f"{image.shape[-2]} x {image.shape[-1]}"
        )
    return image


def beside(matrices: Tensor, image: Tensor) -> Tensor:
    """Matrices on the device of the image, copied without waiting for it."""
    # A trace would hold the device of a copy that is none.
    return matrices if matrices.device == image.device else matrices.to(image.device, non_blocking=True)


class FinerLevels(nn.Module):
    """Levels beyond a decoder's last: each doubles the features and gives a residual twice as fine, zero at first.

    Args:
        in_channels: Channels of the features.
        channels: Channels of each level; none for no level.
        use_checkpoint: Compute the levels again in the backward pass: less memory, more time.
    """

    def __init__(self, in_channels: int, channels: Sequence[int], use_checkpoint: bool = False) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.blocks = nn.ModuleList(
            PreActivationBlock(3, before, after) for before, after in zip((in_channels, *channels), channels)
        )
        self.heads = nn.ModuleList(zero_head(number) for number in channels)

    def forward(self, x: Float[Tensor, "B C X Y Z"]) -> Iterable[Tensor]:
        """The residual volume of each level, (B, 1, 4X, 4Y, 4Z) and so on, computed as they are drawn."""
        for level in range(len(self.blocks)):
            if self.use_checkpoint and self.training:
                x, residual = checkpoint(self._level, x, level, use_reentrant=False)
            else:
                x, residual = self._level(x, level)
            yield residual

    def _level(self, x: Tensor, level: int) -> tuple[Tensor, Tensor]:
        x = self.blocks[level](F.interpolate(x, scale_factor=2, mode="trilinear"))
        return x, self.heads[level](x)


def zero_head(in_channels: int) -> SubpixelUpsample:
    """Features to a volume twice as fine (Shi et al., CVPR 2016), zero before training."""
    head = SubpixelUpsample(3, in_channels, 1, scale_factor=2)
    nn.init.zeros_(head.conv_block.weight)
    nn.init.zeros_(head.conv_block.bias)
    return head
