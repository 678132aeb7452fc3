"""Predicted intervals: coverage, width, and whether they are wide where the error is large."""

from collections.abc import Mapping
from math import nan, sqrt

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

Array = np.ndarray
QUANTILES = (0.05, 0.25, 0.75, 0.95)
"""Lower ends of the 90 and 50 % interval, and their upper ends."""


def quantiles_from_std(prediction: Float[Array, "X Y Z"], std: Float[Array, "X Y Z"]) -> Float[Array, "X Y Z 4"]:
    """The `QUANTILES` of a normal distribution around each voxel.

    Args:
        prediction: Means in HU.
        std: Standard deviations in HU.
    """
    deviates = sqrt(2.0) * special.erfinv(2.0 * np.array(QUANTILES) - 1.0)
    return np.asarray(prediction[..., None] + std[..., None] * deviates)


def interval_scores(
    quantiles: Float[Array, "X Y Z 4"],
    prediction: Float[Array, "X Y Z"],
    truth: Float[Array, "X Y Z"],
    mask: Bool[Array, "X Y Z"],
) -> Mapping[str, float]:
    """Scores of predicted intervals among the voxels of a mask.

    - ``coverage_50``, ``coverage_90``: Share of voxels with their truth in the interval, ends included.
    - ``width_90``: Mean width of the 90 % interval in HU.
    - ``spread_error_correlation``: Spearman's rank correlation between the width of the 90 % interval and the absolute
      error; NaN where one of them is the same everywhere.

    Args:
        quantiles: The `QUANTILES` of each voxel in HU.
        prediction: Predicted HU.
        truth: True HU.
        mask: Voxels that count, such as the body: outside it everybody predicts air.

    Raises:
        ValueError: If a lower quantile is above a higher one.
    """
    low_90, low_50, high_50, high_90 = np.moveaxis(quantiles[mask], -1, 0)
    if bool((np.diff(quantiles[mask], axis=-1) < 0).any()):
        raise ValueError(f"quantiles must not cross: {QUANTILES} must ascend in every voxel")
    y, width = truth[mask], high_90 - low_90
    error = np.abs(prediction[mask] - y)
    if y.size == 0:
        return dict.fromkeys(("coverage_50", "coverage_90", "width_90", "spread_error_correlation"), nan)
    varied = float(np.ptp(width)) > 0 and float(np.ptp(error)) > 0
    return {
        "coverage_50": float(((low_50 <= y) & (y <= high_50)).mean()),
        "coverage_90": float(((low_90 <= y) & (y <= high_90)).mean()),
        "width_90": float(width.mean()),
        "spread_error_correlation": float(stats.spearmanr(width, error).statistic) if varied else nan,
    }
