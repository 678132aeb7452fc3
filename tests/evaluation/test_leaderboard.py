"""One table of every method and baseline on one data set."""

import csv
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.evaluation.leaderboard import compare, format_lines, leaderboard
from trct_monai.io.datalist import load_datalist


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A leaderboard of three baselines and two methods: one that is nearly right, one that always predicts the mean."""
    folder = tmp_path_factory.mktemp("board")
    make_phantoms(str(folder / "data"), size=16, radiograph_size=32, split="8/3/6", num_workers=0)
    datalist = folder / "data" / "datalist.json"
    cases = load_datalist(datalist, "test")
    truths = [nibabel.load(case["label"]).get_fdata() for case in cases]
    for name, volumes in (("good", [hu + 30 for hu in truths]), ("stubborn", [np.mean(truths, axis=0)] * 6)):
        (folder / name).mkdir()
        for case, hu in zip(cases, volumes):
            image = nibabel.Nifti1Image(hu.astype(np.float32), nibabel.load(case["label"]).affine)
            nibabel.save(image, folder / name / f"{case['case_id']}.nii.gz")
    run(folder)
    return folder


def run(folder: Path, **options: str) -> None:
    leaderboard(
        datalist=str(folder / "data" / "datalist.json"),
        output=str(folder / "out"),
        methods=f"good={folder / 'good'},stubborn={folder / 'stubborn'}",
        baselines="mean_volume,nearest_neighbour,backprojection",
        num_workers=0,
        **{"style": "text", **options},
    )


def table(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "out" / "leaderboard.csv", encoding="utf-8") as file:
        return {row["method"]: row for row in csv.DictReader(file)}


def test_methods_and_baselines_are_ranked_together(board: Path) -> None:
    rows = table(board)
    scores = [float(row["hu.psnr_3d"]) for row in rows.values()]
    assert scores == sorted(scores, reverse=True) and len(rows) == 5
    assert next(iter(rows)) == "good"
    assert [name for name, row in rows.items() if row["kind"] == "baseline"] == [
        name for name in rows if name not in ("good", "stubborn")
    ]
    for row in rows.values():
        assert float(row["hu.psnr_3d.low"]) <= float(row["hu.psnr_3d"]) <= float(row["hu.psnr_3d.high"])


def test_a_method_is_tested_against_the_best_baseline(board: Path) -> None:
    rows = table(board)
    best = max((row for row in rows.values() if row["kind"] == "baseline"), key=lambda row: float(row["hu.psnr_3d"]))
    assert best["over_best_baseline.mean"] == "" and best["p_value_paired"] == ""
    gain = float(rows["good"]["hu.psnr_3d"]) - float(best["hu.psnr_3d"])
    assert float(rows["good"]["over_best_baseline.mean"]) == pytest.approx(gain)
    assert float(rows["good"]["p_value_paired"]) == pytest.approx(2 / 2**6)  # six of six patients


def test_a_method_that_ignores_its_input_is_marked(board: Path) -> None:
    rows = table(board)
    marked = {name for name, row in rows.items() if "ignores its input" in row["warnings"]}
    assert {"stubborn", "mean_volume"} <= marked and not marked & {"good", "nearest_neighbour", "backprojection"}
    text = (board / "out" / "leaderboard.txt").read_text(encoding="utf-8")
    assert "ignores its input" in next(line for line in text.splitlines() if line.startswith("stubborn"))


def test_complete_predictions_are_not_made_again(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    before = {path: path.stat().st_mtime_ns for path in board.glob("out/predictions/*/*.nii.gz")}
    run(board, style="markdown", sort="hu.mae")
    printed = capsys.readouterr().out
    assert "fitting" not in printed and "| method | hu.mae |" not in printed
    rows = [line for line in printed.splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| --- |") and rows[2].startswith("| good |")
    assert {path: path.stat().st_mtime_ns for path in board.glob("out/predictions/*/*.nii.gz")} == before
    errors = [float(row["hu.mae"]) for row in table(board).values()]
    assert errors == sorted(errors) and len(before) == 18


def test_a_lost_prediction_is_made_again(board: Path) -> None:
    lost = sorted(board.glob("out/predictions/backprojection/*.nii.gz"))[0]
    kept = nibabel.load(lost).get_fdata()
    lost.unlink()
    run(board)
    np.testing.assert_array_equal(nibabel.load(lost).get_fdata(), kept)


@pytest.mark.parametrize("damage", ["{", "[]"])
def test_predictions_with_a_damaged_record_are_made_again(
    board: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = board / "out" / "predictions" / "backprojection" / "made_from.json"
    whole = record.read_text(encoding="utf-8")
    record.write_text(damage, encoding="utf-8")
    run(board)
    assert record.read_text(encoding="utf-8") == whole and "fitting backprojection" in capsys.readouterr().out


def test_predictions_are_made_again_where_the_scale_of_a_radiograph_changes(board: Path, tmp_path: Path) -> None:
    shutil.copytree(board / "data", tmp_path / "data")
    path = tmp_path / "data" / "datalist.json"
    options = {"datalist": str(path), "output": str(tmp_path / "out"), "baselines": "backprojection"}
    leaderboard(**options, num_workers=0)  # type: ignore[arg-type]
    page = json.loads(path.read_text(encoding="utf-8"))
    case = page["test"][0]
    prediction = tmp_path / "out" / "predictions" / "backprojection" / f"{case['case_id']}.nii.gz"
    before = nibabel.load(prediction).get_fdata()
    case["intensity"] = [{"quantitative": False, "gain": 2.0, "offset": 0.0}] * 2
    path.write_text(json.dumps(page), encoding="utf-8")
    leaderboard(**options, num_workers=0)  # type: ignore[arg-type]
    assert nibabel.load(prediction).get_fdata().mean() > before.mean() + 50


def test_bad_arguments_are_refused_before_anything_runs(board: Path, tmp_path: Path) -> None:
    datalist, output = str(board / "data" / "datalist.json"), str(tmp_path / "out")
    for options, message in (
        ({"baselines": "ridge"}, "baselines must be all, none or out of mean_volume"),
        ({"baselines": "none"}, "needs methods with different names, got none"),
        ({"methods": "good"}, "methods must be name=FOLDER"),
        ({"methods": f"mean_volume={board / 'good'}"}, "different names"),
        ({"methods": f"x={tmp_path}"}, "6 of 6 predictions are missing"),
        ({"bundles": "direct_regression+nothing"}, "bundle 'direct_regression.nothing' has no .*nothing.json"),
        ({"methods": f"mean volume={board / 'good'}"}, "name must not be 'mean volume'"),
        ({"style": "html"}, "style must be one of text, markdown, csv"),
        ({"sort": "psnr"}, "cannot be sorted by 'psnr'; choose one of hu.psnr_3d"),
        ({"sort": "reprojection_truth"}, "'reprojection_truth' is a control"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            leaderboard(datalist=datalist, output=output, **options)
    assert not Path(output).exists()


def test_a_column_that_a_method_does_not_have_is_refused(board: Path) -> None:
    page = json.loads((board / "out" / "evaluations" / "good" / "summary.json").read_text(encoding="utf-8"))
    with pytest.raises(ValueError, match="good has no value of 'coverage_90' to sort by; choose one of hu.psnr_3d"):
        compare({"good": page}, {"good": {}}, {}, set(), "coverage_90")
    with pytest.raises(ValueError, match="cannot be sorted by 'psnr'; choose one of hu.psnr_3d"):
        compare({"good": page}, {"good": {}}, {}, set(), "psnr")


def test_coverage_is_ranked_and_compared_by_its_distance_from_the_nominal_value(board: Path) -> None:
    page = json.loads((board / "out" / "evaluations" / "good" / "summary.json").read_text(encoding="utf-8"))
    cases = [f"case{number}" for number in range(6)]
    means = {"wide": 0.99, "good": 0.92, "narrow": 0.60}
    pages, values = {}, {}
    for name, mean in means.items():
        estimate = {"mean": mean, "low": mean, "high": mean, "std": 0.0, "cases": 6}
        pages[name] = page | {"metrics": {name: page["metrics"]["good"] | {"coverage_90": estimate}}}
        values[name] = dict.fromkeys(cases, mean)
    lines = compare(pages, values, dict(zip(cases, cases)), {"wide"}, "coverage_90")
    assert [line["method"] for line in lines] == ["good", "wide", "narrow"]
    assert lines[0]["over_best_baseline"]["mean"] == pytest.approx(0.02 - 0.09)
    assert lines[2]["over_best_baseline"]["mean"] == pytest.approx(0.30 - 0.09)
    title, first, *_ = format_lines(lines, "coverage_90", "text").splitlines()
    assert "over wide in the distance of coverage_90 from 0.9" in title and "-0.07 [" in first
    values["good"] = dict.fromkeys(cases, 0.81)  # as far below as `wide` is above
    equal = compare(pages, values, dict(zip(cases, cases)), {"wide"}, "coverage_90")[0]
    assert equal["over_best_baseline"]["mean"] == pytest.approx(0.0)


def test_cases_without_a_value_are_left_out_of_the_comparison(board: Path) -> None:
    pages = {
        name: json.loads((board / "out" / "evaluations" / name / "summary.json").read_text(encoding="utf-8"))
        for name in ("good", "backprojection")
    }
    cases = [f"case{number}" for number in range(8)]
    values = {"good": dict.fromkeys(cases, 2.0), "backprojection": dict.fromkeys(cases, 1.0)}
    values["good"]["case3"] = float("nan")
    lines = compare(pages, values, dict(zip(cases, cases)), {"backprojection"}, "hu.psnr_3d")
    good = next(line for line in lines if line["method"] == "good")
    assert good["over_best_baseline"]["mean"] == 1.0 and good["over_best_baseline"]["cases"] == 7
    assert good["p_value"] == pytest.approx(2 / 2**7)
    first = format_lines([line | {"cases": 8} for line in lines], "hu.psnr_3d", "text").splitlines()[1]
    assert "+1.00 [+1.00, +1.00] (7 of 8 cases)" in first


def test_without_baselines_there_is_nothing_to_test_against(board: Path) -> None:
    page = json.loads((board / "out" / "evaluations" / "good" / "summary.json").read_text(encoding="utf-8"))
    lines = compare({"good": page}, {"good": {}}, {}, set(), "hu.psnr_3d")
    assert "over" not in format_lines(lines, "hu.psnr_3d", "text").splitlines()[0]


def test_baselines_refuse_cases_of_different_views(board: Path, tmp_path: Path) -> None:
    shutil.copytree(board / "data", tmp_path / "data")
    path = tmp_path / "data" / "datalist.json"
    page = json.loads(path.read_text(encoding="utf-8"))
    page["test"][1]["cameras"][0]["detector_center"][0] += 5.0
    path.write_text(json.dumps(page), encoding="utf-8")
    options = {"datalist": str(path), "output": str(tmp_path / "out"), "baselines": "mean_volume"}
    with pytest.raises(ValueError, match="its cases have different views, and a baseline has one geometry"):
        leaderboard(**options, num_workers=0)  # type: ignore[arg-type]
    for case in (*page["training"], *page["validation"], *page["test"]):
        del case["cameras"]
    path.write_text(json.dumps(page), encoding="utf-8")
    with pytest.raises(ValueError, match="its cases have no cameras, which baselines need"):
        leaderboard(**options, num_workers=0)  # type: ignore[arg-type]


def test_a_bundle_is_run_with_the_weights_of_the_overlay_that_has_some(board: Path, tmp_path: Path) -> None:
    """A bundle of two lines: its "network" writes where it was told to, and its weights' path."""
    bundle = tmp_path / "mine"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models" / "small").mkdir(parents=True)
    inference = {
        "imports": ["$import shutil", "$import os"],
        "datalist": "",
        "section": "",
        "ckpt_path": "",
        "output_dir": "",
        "run": [
            "$shutil.copytree(@good, @output_dir, dirs_exist_ok=True)",
            "$shutil.copy(@ckpt_path, os.path.join(@output_dir, 'weights'))",
        ],
        "good": str(board / "good"),
    }
    pages = {"inference": inference, "small": {}, "other": {}, "metadata": {}}
    for name, page in pages.items():
        (bundle / "configs" / f"{name}.json").write_text(json.dumps(page), encoding="utf-8")
    spec = {"bundles": f"{bundle}+small+other", "output": str(tmp_path / "out"), "baselines": "none", "num_workers": 0}
    datalist = str(board / "data" / "datalist.json")
    with pytest.raises(ValueError, match="has no .*models/small/model.pt; train it"):
        leaderboard(datalist=datalist, **spec)  # type: ignore[arg-type]
    (bundle / "models" / "small" / "model.pt").write_bytes(b"weights of small")
    leaderboard(datalist=datalist, **spec)  # type: ignore[arg-type]
    written = tmp_path / "out" / "predictions" / "mine+small+other"
    assert (written / "weights").read_bytes() == b"weights of small"

    # A run with other weights that fails half way leaves predictions of both, and no record.
    other = {"run": [*inference["run"], "$1 / 0"]}
    (bundle / "configs" / "other.json").write_text(json.dumps(other), encoding="utf-8")
    (bundle / "models" / "small" / "model.pt").write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"mine\+small\+other failed, see above"):
        leaderboard(datalist=datalist, **spec)  # type: ignore[arg-type]
    assert (written / "weights").read_bytes() == b"other weights" and not (written / "made_from.json").exists()
