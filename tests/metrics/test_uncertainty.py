"""Coverage, width and spread of predicted intervals."""

import math

import numpy as np
import pytest

from trct_monai.metrics.uncertainty import interval_scores, quantiles_from_std

SHAPE = (20, 20, 20)


def test_the_true_spread_has_the_stated_coverage_and_follows_the_error() -> None:
    generator = np.random.default_rng(0)
    prediction, std = generator.normal(size=SHAPE), generator.uniform(1.0, 100.0, SHAPE)
    truth = prediction + std * generator.normal(size=SHAPE)
    everywhere = np.ones(SHAPE, dtype=bool)
    scores = interval_scores(quantiles_from_std(prediction, std), prediction, truth, everywhere)
    assert scores["coverage_50"] == pytest.approx(0.5, abs=0.02)
    assert scores["coverage_90"] == pytest.approx(0.9, abs=0.01)
    assert scores["width_90"] == pytest.approx(2 * 1.645 * std.mean(), rel=1e-3)
    assert scores["spread_error_correlation"] > 0.4
    narrow = interval_scores(quantiles_from_std(prediction, std / 4), prediction, truth, everywhere)
    assert narrow["coverage_90"] < 0.4


def test_scores_are_those_of_the_mask_and_undefined_where_nothing_varies() -> None:
    truth, mask = np.zeros(SHAPE), np.zeros(SHAPE, dtype=bool)
    mask[0] = True
    quantiles = quantiles_from_std(truth, np.zeros(SHAPE))
    quantiles[1:] = 7.0
    scores = interval_scores(quantiles, truth, truth, mask)
    assert (scores["coverage_50"], scores["coverage_90"], scores["width_90"]) == (1.0, 1.0, 0.0)
    assert math.isnan(scores["spread_error_correlation"])
    assert math.isnan(interval_scores(quantiles, truth, truth, ~mask & mask)["coverage_90"])


def test_crossing_quantiles_are_refused() -> None:
    with pytest.raises(ValueError, match="quantiles must not cross"):
        interval_scores(np.zeros((*SHAPE, 4)) - np.arange(4), np.zeros(SHAPE), np.zeros(SHAPE), np.ones(SHAPE, bool))
