"""The `hu` protocol as MONAI metrics, for the log of a training: whole-volume PSNR, SSIM and MAE in Hounsfield units.

`trct_monai.metrics.protocols` has the same figures, and everybody else's, for whole evaluations.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric, MAEMetric, PSNRMetric, SSIMMetric
from torch import Tensor

from trct_monai.intensity import HU_WINDOW, check_hu_window
from trct_monai.metrics.protocols import SSIM_WINDOW


def hu_metrics(hu_window: Sequence[float] = HU_WINDOW) -> dict[str, CumulativeIterationMetric]:
    """MONAI metrics by name, for volumes in HU above the floor of the window (see `above_floor`).

    - ``psnr``: 10 log10(width^2 / MSE) over the whole volume, in dB, width = that of the window.
    - ``ssim``: mean structural similarity with a uniform 7 x 7 x 7 window, K1 = .01, K2 = .03, range = width
      (Wang et al., IEEE Trans. Image Process. 13(4), 2004).
    - ``mae``: mean absolute error in HU.

    Args:
        hu_window: Lowest and highest HU.
    """
    low, high = check_hu_window(hu_window)
    width = high - low
    return {
        "psnr": PSNRMetric(max_val=width),
        "ssim": SSIMMetric(spatial_dims=3, data_range=width, kernel_type="uniform", win_size=SSIM_WINDOW),
        "mae": MAEMetric(),
    }


def above_floor(hu: Tensor, hu_window: Sequence[float] = HU_WINDOW) -> Tensor:
    """HU clipped to the window, counted from its floor: 0 to its width.

    SSIM compares means and so depends on where zero is. Counted from water, soft tissue has a mean near zero and the
    figure is noise; counted from the floor it equals that of volumes in [0, 1].
    """
    low, high = check_hu_window(hu_window)
    return hu.clamp(low, high) - low


class HUMetric(IgniteMetricHandler):
    """One of `hu_metrics` for MONAI's evaluator, whose output holds `pred` and `label` in HU.

    Args:
        metric: ``psnr``, ``ssim`` or ``mae``.
        hu_window: Lowest and highest HU.
        key: What is compared with the label.
    """

    def __init__(
        self, metric: Literal["psnr", "ssim", "mae"], hu_window: Sequence[float] = HU_WINDOW, key: str = "pred"
    ) -> None:
        low, high = check_hu_window((hu_window[0], hu_window[1]))
        pair: Callable[[Any], Sequence[Sequence[Tensor]]] = from_engine([key, "label"])

        def pair_above_floor(output: Any) -> list[list[Tensor]]:
            return [[above_floor(volume, (low, high)) for volume in volumes] for volumes in pair(output)]

        super().__init__(hu_metrics((low, high))[metric], output_transform=pair_above_floor)


def hu_scores(names: Sequence[str], hu_window: Sequence[float] = HU_WINDOW, key: str = "pred") -> dict[str, HUMetric]:
    """Metrics for MONAI's evaluator by name, whose output holds `pred` and `label` in HU.

    Args:
        names: Out of ``psnr``, ``ssim`` and ``mae_hu``.
        hu_window: Lowest and highest HU.
        key: What is compared with the label.

    Raises:
        ValueError: If there is no such metric.
    """
    kinds: dict[str, Literal["psnr", "ssim", "mae"]] = {"psnr": "psnr", "ssim": "ssim", "mae_hu": "mae"}
    unknown = [name for name in names if name not in kinds]
    if unknown:
        raise ValueError(f"names must be out of {', '.join(kinds)}, got {', '.join(unknown)}")
    return {name: HUMetric(kinds[name], hu_window, key) for name in names}
