"""Inferers: finer volumes by interpolation or by a refiner in windows, and volumes slice by slice."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.inferers import Inferer, SimpleInferer, SliceInferer, SlidingWindowInferer
from torch import Tensor, nn

from trct_monai.resampling import resize_cube


class InterpolatingInferer(SimpleInferer):
    """A network's volume at any size, by trilinear interpolation, or by averaging to a coarser size.

    It is the baseline for every other way to more voxels.

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

    Only the residual is computed in windows; the volume that it is added to is interpolated as a whole. The features
    take the memory of one window, however large the volume.

    Args:
        roi_size: Voxels of the coarse volume along each side of a window.
        overlap: Least share of a window that the next one covers too.
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
        # A window larger than the volume would be padded by zeros.
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
        times: How often it is applied, each time to the result of the time before.
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
        num_slices: Slices that the network takes: an odd number. At the volume's ends the last slice is repeated.
        sw_batch_size: Slices, or windows, at once.
        roi_size: Sides of a window within a slice, blended by a Gaussian; None for whole slices. A smaller slice is
            padded by air.
        overlap: Share of a window that the next one covers too.
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
    """The neighbours of each axial slice as channels, the slice itself in the middle; the last slices are repeated."""
    depth = volume.shape[-1]
    places = torch.arange(depth, device=volume.device)
    shifts = range(-(num_slices // 2), num_slices // 2 + 1)
    return torch.cat([volume[..., (places + shift).clamp(0, depth - 1)] for shift in shifts], dim=1)
