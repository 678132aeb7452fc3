"""Scores of a predicted phase: a disc of tissue that rises in a lung by a known distance."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from trct_monai.metrics import MotionMetric
from trct_monai.metrics.motion import border_distances, moving_region, phase_scores
from trct_monai.metrics.protocols import NO_ERROR

WINDOW = (-1024.0, 1476.0)
SIZE = 32


def chest(level: int) -> np.ndarray:
    """A box of lung above tissue whose flat border lies at a height of so many voxels."""
    volume = np.full((SIZE,) * 3, 40.0)
    volume[6:-6, 6:-6, level:-4] = -850.0
    return volume


def test_the_truth_is_perfect_and_the_average_is_as_far_off_as_it_moved() -> None:
    phase, average = chest(12), chest(15)
    best = phase_scores(phase, phase, average, WINDOW, (2.0, 2.0, 2.0))
    assert best["mae_moving"] == best["mae_still"] == best["flicker"] == best["diaphragm_mm"] == 0
    assert best["ssim_moving"] == best["ssim_still"] == 1 and best["psnr"] == NO_ERROR
    identity = phase_scores(average, phase, average, WINDOW, (2.0, 2.0, 2.0))
    assert identity["diaphragm_mm"] == pytest.approx(6.0, rel=0.1)
    assert identity["mae_moving"] > 300 and identity["mae_still"] < 10 and identity["flicker"] > 0


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5), (2.0, 2.0, 1.0)])
def test_a_border_is_as_far_off_as_it_was_moved(spacing: tuple[float, float, float]) -> None:
    """Whatever the shape of the voxels; only borders that move count."""
    distances = border_distances(chest(14), chest(12), moving_region(chest(16), chest(12)), spacing)
    assert distances["diaphragm_mm"] == pytest.approx(2 * spacing[2], rel=0.1)
    nothing = border_distances(chest(14), chest(12), moving_region(chest(12), chest(12)), spacing)
    assert np.isnan(nothing["diaphragm_mm"]) and np.isnan(nothing["heart_mm"])


def test_a_border_is_where_the_interpolation_crosses_the_threshold() -> None:
    """A blurred border crosses -500 HU where the interpolation does."""
    sharp, shifted = chest(12), chest(12)
    shifted[6:-6, 6:-6, 12] = -405.0  # half tissue: the crossing is half a voxel higher
    distances = border_distances(shifted, sharp, moving_region(chest(16), sharp), (1.0, 1.0, 2.0))
    assert distances["diaphragm_mm"] == pytest.approx(2 * (1 + 95 / 445 - 540 / 890), rel=0.15)


def test_an_empty_region_has_no_score() -> None:
    scores = phase_scores(chest(12), chest(12), chest(12), WINDOW, (1.0, 1.0, 1.0))
    assert np.isnan(scores["mae_moving"]) and scores["mae_still"] == 0


def test_slices_that_jump_flicker() -> None:
    phase, average = chest(12), chest(15)
    steady, jumping = phase + 10.0, phase + 10.0 * (-1.0) ** np.arange(SIZE)
    scores = [phase_scores(volume, phase, average, WINDOW, (1.0, 1.0, 1.0)) for volume in (steady, jumping)]
    assert scores[0]["flicker"] == pytest.approx(0.0, abs=1e-6) and scores[1]["flicker"] == pytest.approx(20.0)
    assert scores[0]["mae_moving"] == pytest.approx(scores[1]["mae_moving"])


def test_the_metric_of_the_training_log_equals_the_scores() -> None:
    phase, average, prediction = chest(12), chest(15), chest(13)
    output = [
        {key: torch.from_numpy(v)[None] for key, v in (("pred", prediction), ("label", phase), ("image", average))}
    ]
    scores = [phase_scores(v, phase, average, WINDOW, (1.0, 1.0, 1.0)) for v in (prediction, average)]
    for region in ("moving", "still"):
        for kind, expected in (
            ("mae", scores[0][f"mae_{region}"]),
            ("gain", scores[1][f"mae_{region}"] - scores[0][f"mae_{region}"]),
        ):
            engine = Engine(lambda engine, batch: output)
            MotionMetric(f"{kind}_{region}").attach(engine, "motion")  # type: ignore[arg-type]
            assert engine.run([0]).metrics["motion"] == pytest.approx(expected, rel=1e-4), (kind, region)
