"""Which value of a column is the best: known for every column that a case can have."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from trct_monai.evaluation.columns import COLUMNS, CONTROLS, ranking_column
from trct_monai.evaluation.scores import CaseRadiographs, score_case
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.datalist import load_datalist
from trct_monai.io.nifti import read_volume
from trct_monai.metrics.uncertainty import quantiles_from_std


def test_every_column_of_a_case_has_a_best_value_or_is_a_control(phantoms: Path) -> None:
    one, two = load_datalist(phantoms, "test")
    truth = read_volume(one["label"])
    prediction = MetaTensor(truth + 20 * torch.randn(truth.shape, generator=torch.Generator().manual_seed(0)))
    intervals = quantiles_from_std(prediction[0].numpy(), np.full(truth.shape[1:], 20.0))
    scores = score_case(
        prediction,
        truth,
        HU_WINDOW,
        mean_volume=truth,
        radiographs=CaseRadiographs(one),
        other=CaseRadiographs(two),
        quantiles=intervals,
    )
    assert set(scores) == {*COLUMNS, *CONTROLS}


@pytest.mark.parametrize(
    ("name", "better", "worse"),
    [
        ("hu.psnr_3d", 30.0, 20.0),
        ("x2ct.mae", 100.0, 200.0),
        ("dice_bone", 0.9, 0.5),
        ("reprojection", 0.02, 0.2),
        ("coverage_90", 0.91, 0.97),
        ("coverage_90", 0.88, 0.8),
        ("coverage_50", 0.5, 0.9),
        ("width_90", 100.0, 300.0),
        ("spread_error_correlation", 0.5, -0.5),
        ("contrast_ratio", 1.1, 0.5),
        ("contrast_ratio", 0.95, 1.5),
        ("orientation_left_right", 0.9, -1.0),
    ],
)
def test_the_better_value_has_the_lower_loss(name: str, better: float, worse: float) -> None:
    column = ranking_column(name)
    assert column.loss(better) < column.loss(worse)


@pytest.mark.parametrize("name", ["psnr", "hu.psnr", "coverage", "xmed.mae", "variance_ratio", ""])
def test_an_unknown_column_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be sorted by '{name}'; choose one of hu.psnr_3d, "):
        ranking_column(name)


def test_a_control_is_refused() -> None:
    with pytest.raises(ValueError, match="'reprojection_truth' is a control"):
        ranking_column("reprojection_truth")
