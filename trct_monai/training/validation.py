"""A validation in Hounsfield units."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from monai.engines import SupervisedEvaluator

from trct_monai.intensity import HU_WINDOW
from trct_monai.metrics import hu_scores
from trct_monai.transforms.save import UnitToHUd


class HUEvaluator(SupervisedEvaluator):
    """MONAI's SupervisedEvaluator for a network whose volumes are in [0, 1]: post-processing to HU, and scores in HU.

    The key metric is PSNR in dB over the whole volume; SSIM and the mean absolute error in HU come with it
    (see `trct_monai.metrics.hu_metrics`).

    Args:
        hu_window: HU of 0 and of 1.
        postprocessing: In place of `UnitToHUd` of prediction and label.
        key_val_metric: In place of PSNR.
        additional_metrics: In place of SSIM and MAE.
        non_blocking: Copy to the device without waiting.
        options: As of SupervisedEvaluator.
    """

    def __init__(
        self,
        *,
        hu_window: Sequence[float] = HU_WINDOW,
        postprocessing: Callable[..., Any] | None = None,
        key_val_metric: Mapping[str, Any] | None = None,
        additional_metrics: Mapping[str, Any] | None = None,
        non_blocking: bool = True,
        **options: Any,
    ) -> None:
        to_hu = UnitToHUd(["pred", "label"], hu_window)
        others = hu_scores(["ssim", "mae_hu"], hu_window) if additional_metrics is None else dict(additional_metrics)
        super().__init__(
            postprocessing=to_hu if postprocessing is None else postprocessing,
            key_val_metric=hu_scores(["psnr"], hu_window) if key_val_metric is None else dict(key_val_metric),
            additional_metrics=others,
            non_blocking=non_blocking,
            **options,
        )
