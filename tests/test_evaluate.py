"""Scores of a folder of predictions, whoever made them, beside the mean volume."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from trct_monai.baselines import MeanVolume
from trct_monai.data import load_datalist
from trct_monai.evaluate import evaluate, summarize


@pytest.fixture
def predictions(phantoms: Path, tmp_path: Path) -> Path:
    """The truths themselves as predictions, one in a folder of its own."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for number, case in enumerate(load_datalist(phantoms, "test")):
        target = folder / case["case_id"] if number else folder
        target.mkdir(exist_ok=True)
        (target / f"{case['case_id']}.nii.gz").write_bytes(Path(case["label"]).read_bytes())
    return folder


def rewrite(path: Path, data: np.ndarray | None = None, affine: np.ndarray | None = None) -> None:
    image = nibabel.load(path)
    data = image.get_fdata() if data is None else data
    nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), image.affine if affine is None else affine), path)


def test_truth_against_itself_is_perfect_and_the_mean_volume_is_not(
    phantoms: Path, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(predictions=str(predictions), datalist=str(phantoms), output=str(tmp_path / "out"), figures=1)
    with open(tmp_path / "out" / "cases.csv") as file:
        rows = list(csv.DictReader(file))
    cases = load_datalist(phantoms, "test")
    own = [row for row in rows if row["method"] == "prediction"]
    assert [row["case_id"] for row in own] == [case["case_id"] for case in cases]
    for row in own:
        assert float(row["psnr"]) >= 100.0 and float(row["ssim"]) == pytest.approx(1.0) and float(row["mae"]) < 1e-3
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())["methods"]
    assert 12 < summary["mean volume"]["psnr"] < 25 and summary["mean volume"]["mae"] > 50
    printed = capsys.readouterr().out
    assert printed.index("| prediction | 2 | 1") < printed.index("| mean volume | 2 |")
    assert [path.name for path in (tmp_path / "out").glob("*.png")] == [f"{cases[0]['case_id']}.png"]


def test_a_constant_error_has_the_textbook_scores(phantoms: Path, predictions: Path, tmp_path: Path) -> None:
    path = next(predictions.glob("*.nii.gz"))
    truth = nibabel.load(path).get_fdata().clip(-1024, 1376)
    rewrite(path, truth + 100)
    evaluate(predictions=str(predictions), datalist=str(phantoms), output=str(tmp_path / "out"), figures=0)
    with open(tmp_path / "out" / "cases.csv") as file:
        row = next(row for row in csv.DictReader(file) if path.name.startswith(row["case_id"]))
    assert float(row["mae"]) == pytest.approx(100, abs=1)
    assert float(row["psnr"]) == pytest.approx(20 * np.log10(2500 / 100), abs=0.1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "expected one file .*, found none"),
        (lambda path: rewrite(path, np.zeros((16, 16, 12))), "must be a finite cube"),
        (lambda path: rewrite(path, np.full((16, 16, 16), np.nan)), "must be a finite cube"),
        (
            lambda path: rewrite(path, affine=np.diag([20.0, 20, 20, 1])),
            "lies elsewhere than its CT: expected",
        ),
        (lambda path: rewrite(path, affine=np.diag([-1.0, 1, 1, 1]) @ nibabel.load(path).affine), "lies elsewhere"),
    ],
    ids=["missing", "no cube", "NaN", "elsewhere", "mirrored"],
)
def test_what_cannot_be_compared_is_refused(phantoms: Path, predictions: Path, tmp_path: Path, spoil, message) -> None:
    spoil(next(predictions.glob("*.nii.gz")))
    with pytest.raises(ValueError, match=message):
        evaluate(predictions=str(predictions), datalist=str(phantoms), output=str(tmp_path / "out"))
    assert not (tmp_path / "out" / "cases.csv").exists()


def test_summary_is_mean_and_standard_deviation_by_method() -> None:
    rows = [{"method": "a", "case_id": str(i), "psnr": 20.0 + i, "ssim": 0.5, "mae": 10.0} for i in (0, 2)]
    assert summarize(rows) == {
        "a": {
            "cases": 2,
            "psnr": 21.0,
            "psnr_std": pytest.approx(2**0.5),
            "ssim": 0.5,
            "ssim_std": 0.0,
            "mae": 10.0,
            "mae_std": 0.0,
        }
    }


def test_mean_volume_is_the_mean_and_needs_one(phantoms: Path) -> None:

    volumes = [torch.zeros(1, 4, 4, 4), torch.ones(1, 4, 4, 4)]
    assert torch.equal(MeanVolume(4).fit(volumes)(torch.zeros(3, 2, 8, 8)), torch.full((3, 1, 4, 4, 4), 0.5))
    with pytest.raises(ValueError, match="at least one training volume"):
        MeanVolume(4).fit([])
