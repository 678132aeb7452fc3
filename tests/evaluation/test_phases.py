"""`evaluate` on pairs of phases: beside the identity, with a warning where a method does harm."""

import importlib.util
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trct_monai.datasets.phase_slices import load_phases
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.evaluation.leaderboard import leaderboard
from trct_monai.evaluation.report import report
from trct_monai.metrics.lpips import lpips_score


def predict(datalist: Path, folder: Path, share: float, harm: float = 0.0) -> Path:
    """Predictions that take a share of the way from the average to phase 0, and add something everywhere."""
    folder.mkdir()
    for case in load_phases(datalist, "test"):
        average, phase = (nibabel.load(case[key]) for key in ("image", "label"))
        volume = (1 - share) * average.get_fdata() + share * phase.get_fdata() + harm
        nibabel.save(nibabel.Nifti1Image(volume.astype(np.float32), phase.affine), folder / f"{case['case_id']}.nii.gz")
    return folder


def run(datalist: Path, predictions: Path, output: Path, **options: object) -> dict[str, object]:
    options = {"figures": 0, "num_workers": 0, **options}
    evaluate(predictions=str(predictions), datalist=str(datalist), output=str(output), **options)  # type: ignore[arg-type]
    page: dict[str, object] = json.loads((output / "summary.json").read_text(encoding="utf-8"))
    return page


def test_half_the_way_halves_the_error(phase_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = run(phase_pairs, predict(phase_pairs, tmp_path / "half", 0.5), tmp_path / "out", name="half", figures=1)
    metrics = summary["metrics"]
    for column in ("mae_moving", "mae_still", "flicker"):
        means = [metrics[method][column]["mean"] for method in ("half", "identity")]  # type: ignore[index]
        assert means[0] == pytest.approx(means[1] / 2, rel=1e-3), column
    assert summary["warnings"] == []
    text = capsys.readouterr().out
    assert "| | half | identity | p |" in text and "MAE where it moves (HU)" in text
    assert len(list((tmp_path / "out").glob("*.png"))) == 1 and (tmp_path / "out" / "cases.csv").is_file()


def test_the_truth_has_no_error(phase_pairs: Path, tmp_path: Path) -> None:
    metrics = run(phase_pairs, predict(phase_pairs, tmp_path / "truth", 1.0), tmp_path / "out")["metrics"]
    perfect = {column: value and value["mean"] for column, value in metrics["prediction"].items()}  # type: ignore[index]
    assert perfect["mae_moving"] == perfect["mae_still"] == perfect["diaphragm_mm"] == perfect["flicker"] == 0
    assert perfect["psnr"] == 100 and perfect["ssim_moving"] == 1


def test_the_identity_and_an_error_where_nothing_moves_are_warned_of(phase_pairs: Path, tmp_path: Path) -> None:
    same = run(phase_pairs, predict(phase_pairs, tmp_path / "same", 0.0), tmp_path / "one")
    assert same["warnings"] == ["prediction is no better than the identity where it moves"]
    harmed = run(phase_pairs, predict(phase_pairs, tmp_path / "harm", 0.9, harm=30.0), tmp_path / "two")
    (warning,) = harmed["warnings"]  # type: ignore[misc]
    assert warning.startswith("prediction does harm where nothing moves: 3")


def test_another_grid_and_missing_files_are_refused(phase_pairs: Path, tmp_path: Path) -> None:
    folder = predict(phase_pairs, tmp_path / "p", 0.5)
    first = sorted(folder.iterdir())[0]
    image = nibabel.load(first)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata()[1:], image.affine), first)
    with pytest.raises(
        ValueError, match=r"is on another grid than its CT: expected shape \(16, 16, 16\) .* got shape \(15, 16, 16\)"
    ):
        run(phase_pairs, folder, tmp_path / "out")
    first.unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 predictions are missing; no prediction of phantom_"):
        run(phase_pairs, folder, tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError, match="no such folder of predictions"):
        run(phase_pairs, folder, tmp_path / "out")
    with pytest.raises(ValueError, match="--size and --resample are for radiographs"):
        run(phase_pairs, folder, tmp_path / "out", size=8)


def test_scores_are_kept_and_damaged_ones_are_made_again(phase_pairs: Path, tmp_path: Path) -> None:
    folder = predict(phase_pairs, tmp_path / "p", 0.5)
    summary = run(phase_pairs, folder, tmp_path / "out")
    first, second = sorted((tmp_path / "out" / "scores").iterdir())
    kept, whole = first.stat().st_mtime_ns, second.read_text(encoding="utf-8")
    second.write_text(whole[: len(whole) // 2], encoding="utf-8")
    assert run(phase_pairs, folder, tmp_path / "out") == summary
    assert first.stat().st_mtime_ns == kept and second.read_text(encoding="utf-8") == whole


def test_pairs_in_which_nothing_moves_are_left_out_and_the_table_tells(
    phase_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(phase_pairs.parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    still, _ = load_phases(datalist, "test")
    shutil.copy(still["label"], still["image"])
    summary = run(datalist, predict(datalist, tmp_path / "p", 0.5), tmp_path / "out")
    estimate = summary["metrics"]["prediction"]["mae_moving"]  # type: ignore[index]
    assert estimate["cases"] == 1 and summary["num_cases"] == 2
    assert "(1 of 2 cases)" in next(line for line in capsys.readouterr().out.splitlines() if "where it moves" in line)
    assert summary["p_values_against_identity"]["mae_moving"] is None  # type: ignore[index]
    assert summary["p_values_against_identity"]["mae_still"] is not None  # type: ignore[index]


def test_leaderboard_and_report_refuse_phases(phase_pairs: Path, tmp_path: Path) -> None:
    folder = predict(phase_pairs, tmp_path / "p", 0.5)
    for options in ({"methods": f"half={folder}", "baselines": "none"}, {"baselines": "mean_volume"}):
        with pytest.raises(ValueError, match="holds pairs of phases"):
            leaderboard(datalist=str(phase_pairs), output=str(tmp_path / "board"), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "board").exists()
    run(phase_pairs, folder, tmp_path / "out")
    with pytest.raises(ValueError, match="holds an evaluation of phases, and report shows CTs from radiographs only"):
        report(evaluation=str(tmp_path / "out"))


def test_lpips_says_what_it_needs(phase_pairs: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("lpips"):
        pytest.skip("lpips is installed")
    with pytest.raises(
        ValueError, match=r"LPIPS needs a package that is not installed: pip install 'trct-monai\[lpips\]'"
    ):
        run(phase_pairs, predict(phase_pairs, tmp_path / "p", 0.5), tmp_path / "out", lpips=True)


def test_lpips_is_a_mean_over_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a distance that can be worked out by hand in the network's place: mean absolute difference in [-1, 1]."""
    monkeypatch.setattr(
        "trct_monai.metrics.lpips._model", lambda: lambda a, b: (a - b).abs().mean(dim=(1, 2, 3), keepdim=True)
    )
    truth = np.zeros((8, 8, 20))
    assert lpips_score(truth + 100, truth, (-1000.0, 1000.0)) == pytest.approx(0.1)
    assert lpips_score(truth, truth, (-1000.0, 1000.0)) == 0
