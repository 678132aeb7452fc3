"""How well a phase is shown: inside what moves and outside, where its borders lie, and whether slices flicker."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric
from scipy.ndimage import distance_transform_edt, gaussian_filter
from skimage.metrics import structural_similarity
from torch import Tensor

from trct_monai.intensity import HU_WINDOW, check_hu_window

Array = np.ndarray

MOVES_HU = 50.0
"""A voxel moves if average and phase differ by more than this, after a blur of one voxel against noise."""

LUNG_HU = -500.0
"""Border between lung and soft tissue."""

SSIM_WINDOW = 7

UPRIGHT = 0.7
"""A border whose normal has a larger part than this along z belongs to the diaphragm, another to the heart."""


def moving_region(average_hu: Float[Array, "X Y Z"], phase_hu: Float[Array, "X Y Z"]) -> Bool[Array, "X Y Z"]:
    """The voxels in which a phase differs from the time average."""
    result: Array = gaussian_filter(np.abs(average_hu - phase_hu), 1.0) > MOVES_HU
    return result


def phase_scores(
    prediction_hu: Float[Array, "X Y Z"],
    phase_hu: Float[Array, "X Y Z"],
    average_hu: Float[Array, "X Y Z"],
    hu_window: Sequence[float],
    voxel_spacing: Sequence[float],
) -> dict[str, float]:
    """Everything that is measured of a predicted phase; scores of a region that is empty are NaN.

    mae_moving, mae_still: Mean absolute error in HU inside and outside the region that moves.
    ssim_moving, ssim_still: Mean of the local SSIM (7 x 7 x 7, range of the window) inside and outside.
    psnr: Of the whole volume in the window, in dB.
    diaphragm_mm, heart_mm: Mean distance from the phase's lung border, where it moves, to the prediction's; the borders
        with a normal along z and the others.
    flicker: Mean absolute change of the slices' mean error from one slice to the next, in HU.

    Args:
        prediction_hu: The predicted phase.
        phase_hu: The true phase.
        average_hu: The time average.
        hu_window: Lowest and highest HU; what lies outside counts as its end.
        voxel_spacing: Voxel sides in mm, (x, y, z).
    """
    low, high = hu_window
    prediction, phase, average = (
        np.clip(v, low, high).astype(np.float64) for v in (prediction_hu, phase_hu, average_hu)
    )
    moving = moving_region(average, phase)
    error = prediction - phase
    similarity = structural_similarity(
        prediction - low, phase - low, data_range=high - low, win_size=SSIM_WINDOW, full=True
    )[1]
    mse = float(np.square(error).mean())
    scores = {"psnr": 10 * np.log10((high - low) ** 2 / mse) if mse else float("inf")}
    for name, region in (("moving", moving), ("still", ~moving)):
        scores[f"mae_{name}"] = _mean(np.abs(error), region)
        scores[f"ssim_{name}"] = _mean(similarity, region)
    scores.update(border_distances(prediction, phase, moving, voxel_spacing))
    scores["flicker"] = float(np.abs(np.diff(error.mean(axis=(0, 1)))).mean())
    return scores


def border_distances(
    prediction_hu: Float[Array, "X Y Z"],
    phase_hu: Float[Array, "X Y Z"],
    moving: Bool[Array, "X Y Z"],
    voxel_spacing: Sequence[float],
) -> dict[str, float]:
    """Mean distance in mm from the true lung border, where it moves, to the predicted one.

    Args:
        prediction_hu: The predicted phase.
        phase_hu: The true phase.
        moving: Where the phase differs from the average.
        voxel_spacing: Voxel sides in mm.
    """
    spacing = [float(side) for side in voxel_spacing]
    predicted, true = (_signed_distance(volume < LUNG_HU, spacing) for volume in (prediction_hu, phase_hu))
    if predicted is None or true is None:
        return {"diaphragm_mm": float("nan"), "heart_mm": float("nan")}
    border = (np.abs(true) <= max(spacing) / 2 + 1e-6) & moving
    normal = np.stack(np.gradient(gaussian_filter(true, 1.0), *spacing))
    upright = np.abs(normal[2]) > UPRIGHT * np.maximum(np.linalg.norm(normal, axis=0), 1e-9)
    distance = np.abs(predicted - true)
    return {
        "diaphragm_mm": _mean(distance, border & upright),
        "heart_mm": _mean(distance, border & ~upright),
    }


class MotionMetric(IgniteMetricHandler):
    """The error where a phase moves, or where it does not, for MONAI's evaluator.

    Its output holds ``pred``, ``label`` (the phase) and ``image`` (the time average) in HU.

    Args:
        metric: ``mae_moving`` or ``mae_still``, in HU inside and outside of `moving_region`; ``gain_moving`` and
            ``gain_still``, by how much it is below the identity's.
        hu_window: Lowest and highest HU.
    """

    def __init__(
        self,
        metric: Literal["mae_moving", "mae_still", "gain_moving", "gain_still"],
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        window = check_hu_window((hu_window[0], hu_window[1]))
        volumes: Callable[[Any], Sequence[Sequence[Tensor]]] = from_engine(["pred", "label", "image"])

        def prediction_and_truth(output: Any) -> list[list[Tensor]]:
            prediction, phase, average = ([v.clamp(*window) for v in each] for each in volumes(output))
            return [prediction, [torch.cat(pair) for pair in zip(phase, average)]]

        super().__init__(_MotionError(metric), output_transform=prediction_and_truth)


class _MotionError(CumulativeIterationMetric):
    """See `MotionMetric`; the truth has two channels, phase and average."""

    def __init__(self, metric: str) -> None:
        super().__init__()
        self.kind, self.region = metric.split("_")

    def _compute_tensor(self, y_pred: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        assert y is not None
        values = []
        for prediction, (phase, average) in zip(y_pred[:, 0].cpu().double().numpy(), y.cpu().double().numpy()):
            region = moving_region(average, phase)
            region = region if self.region == "moving" else ~region
            error = _mean(np.abs(prediction - phase), region)
            values.append(_mean(np.abs(average - phase), region) - error if self.kind == "gain" else error)
        return torch.tensor(values, dtype=torch.float32)[:, None]

    def aggregate(self) -> Tensor:
        """The mean over the cases that have such a region."""
        buffer = self.get_buffer()
        return torch.as_tensor(buffer).nanmean()


def _mean(values: Array, region: Array) -> float:
    return float(values[region].mean()) if region.any() else float("nan")


def _signed_distance(mask: Array, spacing: Sequence[float]) -> Array | None:
    """Distance in mm to the border of a mask, negative inside; None where there is no border."""
    if not mask.any() or mask.all():
        return None
    outside, inside = (distance_transform_edt(m, sampling=spacing) for m in (~mask, mask))
    half = min(spacing) / 2
    result: Array = np.where(mask, half - inside, outside - half)
    return result
