"""Inferers: volumes made finer by interpolation or by a refiner in windows, and volumes made slice by slice."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.inferers import Inferer, SimpleInferer, SliceInferer, SlidingWindowInferer
from torch import Tensor, nn

from trct_monai.resampling import resize_cube


class InterpolatingInferer(SimpleInferer):
    """A network's volume at any size, by trilinear interpolation (by averaging where that is coarser).

    This is the cheapest way to more voxels, and what every dearer one has to beat.

    Args:
        size: Voxels along each side of the result.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise ValueError(f"size must be 1 or more, got {size}")
        self.size = size

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Float[Tensor, "B 1 X Y Z"]:
        """Radiographs (B, V, H, W) to a volume with `size` voxels along each side."""
        volume: Tensor = super().__call__(inputs, network, *args, **kwargs)
        return resize_cube(volume, self.size)


class RefinementInferer(SlidingWindowInferer):
    """A `VolumeRefiner` over a volume of any size, in overlapping windows that are blended by a Gaussian.

    Only the residual goes through windows; what it is added to is interpolated in one piece. The memory for features is
    that of one window, however large the volume.

    Args:
        roi_size: Voxels of the coarse volume along each side of a window.
        overlap: Share of a window that its neighbour covers too, at least.
        sw_batch_size: Windows at once.
        progress: Show a bar over the windows.
    """

    def __init__(
        self, roi_size: int = 40, overlap: float = 0.25, sw_batch_size: int = 1, progress: bool = False
    ) -> None:
        super().__init__(roi_size, sw_batch_size, overlap, mode="gaussian", progress=progress)
        self.window = roi_size

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Float[Tensor, "B 1 _ _ _"]:
        """A coarse volume (B, 1, X, Y, Z) in [0, 1] to the finer one, in [0, 1]."""
        refiner = getattr(network, "module", network)
        # A window beyond the volume would be filled with zeros, which stand for air.
        self.roi_size = [min(self.window, n) for n in inputs.shape[2:]]
        residual = super().__call__(inputs, refiner.residual, *args, **kwargs)
        fine = F.interpolate(inputs, scale_factor=float(refiner.scale), mode="trilinear")
        return fine.add_(residual).clamp_(0.0, 1.0)


class TwoStageInferer(Inferer):
    """A coarse volume from the network, made finer by a refiner.

    Quantiles that a network gives beside its volume keep their distance from it: that is interpolated.

    Args:
        refiner: The refiner, with its weights, on the network's device.
        inferer: How it is applied.
        times: How often: each time to the result of the one before.
    """

    def __init__(self, refiner: nn.Module, inferer: Inferer, times: int = 1) -> None:
        if times < 1:
            raise ValueError(f"times must be positive, got {times}")
        self.refiner, self.inferer, self.times = refiner.eval(), inferer, times

    def __call__(self, inputs: Tensor, network: Any, *args: Any, **kwargs: Any) -> Float[Tensor, "B C _ _ _"]:
        """Radiographs (B, V, H, W) to the finer volume, and its quantiles if the network gives any."""
        return self.refine(network(inputs, *args, **kwargs))

    def refine(self, result: Float[Tensor, "B C X Y Z"]) -> Float[Tensor, "B C _ _ _"]:
        """A volume in [0, 1] made finer, and its quantiles around it.

        Args:
            result: What a network gives: the volume as first channel, quantiles as the others.
        """
        volume, distances = result[:, :1], result[:, 1:] - result[:, :1]
        for _ in range(self.times):
            volume = self.inferer(volume, self.refiner)
        if not distances.shape[1]:
            return volume
        return torch.cat([volume, (resize_cube(distances, volume.shape[-1]) + volume).clamp(0.0, 1.0)], dim=1)


class SliceContextInferer(SliceInferer):
    """A 2-D network over the axial slices of a volume, each with its neighbours as channels (2.5-D).

    Args:
        num_slices: Slices that the network sees: an odd number. Beyond the volume's ends the last slice is repeated.
        sw_batch_size: Slices, or windows, at once.
        roi_size: Sides of a window within a slice, blended as Gaussians; whole slices if None. A slice that is smaller
            is padded by air.
        overlap: Share of a window that the next one covers again.
        progress: Show a bar over the windows.

    Raises:
        ValueError: If `num_slices` is not odd.
    """

    def __init__(
        self,
        num_slices: int = 1,
        sw_batch_size: int = 8,
        roi_size: Sequence[int] | None = None,
        overlap: float = 0.25,
        progress: bool = False,
    ) -> None:
        if num_slices < 1 or num_slices % 2 == 0:
            raise ValueError(f"num_slices must be odd and positive, got {num_slices}")
        super().__init__(
            spatial_dim=2,
            roi_size=(-1, -1) if roi_size is None else tuple(roi_size),  # -1: the whole side
            sw_batch_size=sw_batch_size,
            overlap=overlap,
            mode="gaussian",
            progress=progress,
        )
        self.num_slices = num_slices

    def __call__(
        self, inputs: Float[Tensor, "B 1 X Y Z"], network: Any, *args: Any, **kwargs: Any
    ) -> Float[Tensor, "B 1 X Y Z"]:
        """A volume in [0, 1] to the network's volume of the same size."""
        result: Tensor = super().__call__(with_neighbours(inputs, self.num_slices), network, *args, **kwargs)
        return result


def with_neighbours(volume: Float[Tensor, "B 1 X Y Z"], num_slices: int) -> Float[Tensor, "B C X Y Z"]:
    """The neighbours of each axial slice as channels, the slice itself in the middle; the ends are repeated."""
    depth = volume.shape[-1]
    places = torch.arange(depth, device=volume.device)
    shifts = range(-(num_slices // 2), num_slices // 2 + 1)
    return torch.cat([volume[..., (places + shift).clamp(0, depth - 1)] for shift in shifts], dim=1)
