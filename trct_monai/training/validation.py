"""A validation in Hounsfield units."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from monai.engines import SupervisedEvaluator

from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW
from trct_monai.metrics import hu_scores
from trct_monai.transforms.save import UnitToHUd


class HUEvaluator(SupervisedEvaluator):
    """MONAI's SupervisedEvaluator for a network whose volumes are in [0, 1]: post-processing to HU, and scores in HU.

    The key metric is PSNR in dB over the whole volume; SSIM and the mean absolute error in HU come with it
    (see `trct_monai.metrics.hu_metrics`). On the CPU it computes in float32, whatever `amp` says.

    Args:
        hu_window: HU of 0 and of 1.
        extent: Side of the volumes in mm.
        postprocessing: In place of `UnitToHUd` of prediction and label; False for none.
        key_val_metric: In place of PSNR; False for none.
        additional_metrics: In place of SSIM and MAE; False for none.
        non_blocking: Copy to the device without waiting.
        options: As of SupervisedEvaluator.
    """

    def __init__(
        self,
        *,
        hu_window: Sequence[float] = HU_WINDOW,
        extent: float = DEFAULT_EXTENT,
        postprocessing: Callable[..., Any] | bool | None = None,
        key_val_metric: Mapping[str, Any] | bool | None = None,
        additional_metrics: Mapping[str, Any] | bool | None = None,
        non_blocking: bool = True,
        **options: Any,
    ) -> None:
        to_hu, scores = UnitToHUd(["pred", "label"], hu_window, extent), partial(hu_scores, hu_window=hu_window)
        super().__init__(
            postprocessing=_chosen(postprocessing, to_hu),
            key_val_metric=_chosen(key_val_metric, scores(["psnr"])),
            additional_metrics=_chosen(additional_metrics, scores(["ssim", "mae_hu"])),
            non_blocking=non_blocking,
            **options,
        )
        self.amp = bool(options.get("amp")) and self.state.device.type == "cuda"


def _chosen(given: Any, standard: Any) -> Any:
    """What was given; what is standard in place of None, None in place of False."""
    return standard if given is None else None if given is False else given
