"""How well a phase is predicted: the error where it moves and elsewhere, the place of its borders, and flicker."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from monai.handlers import IgniteMetricHandler, from_engine
from monai.metrics import CumulativeIterationMetric
from scipy.ndimage import gaussian_filter
from scipy.spatial import KDTree
from skimage.metrics import structural_similarity
from torch import Tensor

from trct_monai.intensity import HU_WINDOW, LUNG_HU, check_hu_window
from trct_monai.metrics.hu import hu_scores
from trct_monai.metrics.protocols import SSIM_WINDOW, psnr

Array = np.ndarray

MOVES_HU = 50.0
"""A voxel moves if average and phase differ by more than this, after a blur of one voxel against noise."""


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
    psnr: Of the whole volume in the window, in dB; `NO_ERROR` where there is no error.
    diaphragm_mm, heart_mm: See `border_distances`.
    flicker: Mean absolute change of the slices' mean error from one slice to the next, in HU.

    Args:
        prediction_hu: The predicted phase.
        phase_hu: The true phase.
        average_hu: The time average.
        hu_window: Lowest and highest HU; values outside are clipped.
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
    scores = {"psnr": psnr(error, high - low)}
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
    """Mean distance in mm from the true lung border, where it moves, to the predicted one; NaN where there is none.

    A border runs through the points between two neighbouring voxels at which the linear interpolation crosses
    `LUNG_HU`. Points between neighbours along z count for the diaphragm, the others for the heart and what else moves.

    Args:
        prediction_hu: The predicted phase.
        phase_hu: The true phase.
        moving: Where the phase differs from the average.
        voxel_spacing: Voxel sides in mm.
    """
    spacing = np.array([float(side) for side in voxel_spacing])
    predicted = np.concatenate([points for points, _ in _crossings(prediction_hu, np.ones_like(moving))]) * spacing
    true = [points[inside] * spacing for points, inside in _crossings(phase_hu, moving)]
    tree = KDTree(predicted) if len(predicted) else None
    distances = [tree.query(points)[0] if tree else np.zeros(0) for points in true]
    x, y, z = distances
    return {"diaphragm_mm": _average(z), "heart_mm": _average(np.concatenate([x, y]))}


def _crossings(volume: Array, region: Array) -> list[tuple[Array, Array]]:
    """By axis: where a volume crosses `LUNG_HU` between neighbours (N, 3) in voxels, and whether one is in a region."""
    result = []
    for axis in range(3):
        before, after = (np.take(volume, np.arange(n, volume.shape[axis] - 1 + n), axis) for n in (0, 1))
        near, far = (np.take(region, np.arange(n, region.shape[axis] - 1 + n), axis) for n in (0, 1))
        crossed = (before < LUNG_HU) != (after < LUNG_HU)
        points = np.argwhere(crossed).astype(float)
        points[:, axis] += (LUNG_HU - before[crossed]) / (after[crossed] - before[crossed])
        result.append((points, (near | far)[crossed]))
    return result


Motion = Literal["mae_moving", "mae_still", "gain_moving", "gain_still"]


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
        metric: Motion,
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        window = check_hu_window((hu_window[0], hu_window[1]))
        volumes: Callable[[Any], Sequence[Sequence[Tensor]]] = from_engine(["pred", "label", "image"])

        def prediction_and_truth(output: Any) -> list[list[Tensor]]:
            prediction, phase, average = ([v.clamp(*window) for v in each] for each in volumes(output))
            return [prediction, [torch.cat(pair) for pair in zip(phase, average)]]

        super().__init__(_MotionError(metric), output_transform=prediction_and_truth)


def motion_scores(names: Sequence[str], hu_window: Sequence[float] = HU_WINDOW) -> dict[str, IgniteMetricHandler]:
    """Metrics for MONAI's evaluator by name, of volumes in HU.

    Args:
        names: Metrics of `MotionMetric`, and of `trct_monai.metrics.hu_scores`.
        hu_window: Lowest and highest HU.

    Raises:
        ValueError: If there is no such metric.
    """
    own = {name: MotionMetric(name, hu_window) for name in get_args(Motion) if name in names}
    return {name: own[name] if name in own else hu_scores([name], hu_window)[name] for name in names}


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
        """The mean over the cases that have such a region.

        Raises:
            ValueError: If none has one.
        """
        mean = torch.as_tensor(self.get_buffer()).nanmean()
        if bool(mean.isnan()):
            raise ValueError(f"nothing moves by more than {MOVES_HU:g} HU in any case: are average and phase the same?")
        return mean


def _mean(values: Array, region: Array) -> float:
    return float(values[region].mean()) if region.any() else float("nan")


def _average(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
