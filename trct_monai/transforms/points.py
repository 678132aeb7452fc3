"""Random points of a label, for networks that are asked for intensities point by point."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.resampling import values_at


class SamplePoints:
    """MONAI's `prepare_batch` for training a field: in place of the label its values at random points.

    The points are drawn uniformly from the cube for each batch, by PyTorch's generator, and are the same for all of its
    cases. The network is given them by name, as `trct_monai.networks.DIFNet` takes them.

    Args:
        prepare_batch: What prepares the radiographs and the label, such as `PrepareViews` or `RenderViews`.
        num_points: Points of a batch.
        extent: Side of the cube in mm.
    """

    def __init__(
        self, prepare_batch: Callable[..., tuple[Any, ...]], num_points: int, extent: float = DEFAULT_EXTENT
    ) -> None:
        if num_points < 1:
            raise ValueError(f"num_points must be positive, got {num_points}")
        self.prepare_batch, self.num_points, self.extent = prepare_batch, num_points, extent

    def __call__(
        self, batchdata: Any, device: torch.device | str | None, non_blocking: bool, **kwargs: Any
    ) -> tuple[Tensor, Tensor, tuple[Any, ...], dict[str, Any]]:
        """What `prepare_batch` gives, with values (B, 1, N) in place of the label; by name the points (N, 3) in mm."""
        image, label, args, named = self.prepare_batch(batchdata, device, non_blocking, **kwargs)
        points = (self.extent * (torch.rand(self.num_points, 3) - 0.5)).to(label.device, non_blocking=non_blocking)
        return image, values_at(label, points, self.extent), args, {**named, "points": points}
