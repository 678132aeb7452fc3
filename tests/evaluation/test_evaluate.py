"""Scores of a folder of predictions, whoever made them, beside the mean volume."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.io.datalist import load_datalist


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datalist of phantoms enough for the conditioning probe."""
    folder = tmp_path_factory.mktemp("many")
    make_phantoms(str(folder), size=16, radiograph_size=32, split="4/0/6", num_workers=0)
    return folder / "datalist.json"


def write(folder: Path, datalist: Path, change: Callable[[np.ndarray, int], np.ndarray] = lambda hu, _: hu) -> Path:
    """The truths as predictions, changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, case in enumerate(load_datalist(datalist, "test")):
        label = nibabel.load(case["label"])
        hu = change(label.get_fdata(), number).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(hu, label.affine), folder / f"{case['case_id']}.nii.gz")
    return folder


def score(predictions: Path, datalist: Path, **options: Any) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Summary and rows of the method itself."""
    output = predictions.parent / "evaluation"
    options = {"figures": 0, "num_workers": 0, **options}
    evaluate(predictions=str(predictions), datalist=str(datalist), output=str(output), **options)
    with open(output / "cases.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "prediction"]
    return json.loads((output / "summary.json").read_text(encoding="utf-8")), rows


def flags(summary: dict[str, Any]) -> set[str]:
    return {flag["name"] for flag in summary["flags"]}


def test_the_truth_against_itself_is_perfect_everywhere(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, rows = score(write(tmp_path / "p", many), many, figures=1)
    assert [row["case_id"] for row in rows] == [case["case_id"] for case in load_datalist(many, "test")]
    perfect = {
        **{"psnr_3d": 100.0, "psnr_avg": 100.0, "ssim": 1.0, "mae": 0.0, "dice": 1.0, "lung": 0.0, "equivalent": 0.0},
        **{"contrast": 1.0, "orientation": 1.0},
    }
    checked = 0
    for row in rows:
        for column, value in row.items():
            word = column.rpartition(".")[2]
            expected = perfect.get(word, perfect.get(word.partition("_")[0]))
            if expected is not None and (value or column != "dice_vessels"):  # coarse voxels may hold no vessel
                assert float(value) == pytest.approx(expected, abs=1e-6), column
                checked += 1
        assert row["reprojection"] == row["reprojection_truth"] and float(row["held_out_view"]) == 0.0
        assert float(row["reprojection"]) < 0.5 * float(row["reprojection_shuffled"])
    assert checked == 6 * 35 + sum(row["dice_vessels"] != "" for row in rows)
    assert summary["flags"] == [] and summary["skill"]["mean"] == pytest.approx(1.0, abs=1e-4)
    assert summary["conditioning"]["matching_rank"] == 1.0
    mean = summary["metrics"]["mean volume"]
    assert 12 < mean["hu.psnr_3d"]["mean"] < 25 and mean["hu.mae"]["low"] <= mean["hu.mae"]["mean"]
    printed = capsys.readouterr().out
    assert printed.index("| prediction | 6 | 100") < printed.index("| mean volume | 6 |")
    assert [path.name for path in tmp_path.glob("evaluation/*.png")] == [f"{rows[0]['case_id']}.png"]


def test_a_constant_error_has_the_textbook_scores(many: Path, tmp_path: Path) -> None:
    _, rows = score(write(tmp_path / "p", many, lambda hu, _: hu.clip(-1024, 1376) + 100), many)
    for row in rows:
        assert float(row["hu.mae"]) == pytest.approx(100, abs=1)
        assert float(row["hu.psnr_3d"]) == pytest.approx(20 * np.log10(2500 / 100), abs=0.1)
        assert float(row["mae_soft_tissue"]) == pytest.approx(100, abs=1e-3)


def test_the_mean_volume_with_a_little_noise_ignores_its_input(
    many: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truths = np.stack([nibabel.load(case["label"]).get_fdata() for case in load_datalist(many, "test")])
    noise = np.random.default_rng(0).normal(0, 20, truths.shape)
    summary, _ = score(write(tmp_path / "p", many, lambda _, number: truths.mean(axis=0) + noise[number]), many)
    assert "ignores its input" in flags(summary)
    assert abs(summary["conditioning"]["shuffled_psnr_drop"]) < 0.1
    assert "WARNING: prediction ignores its input: the rank of the matching CT is" in capsys.readouterr().out


@pytest.mark.parametrize(("axis", "name"), [(0, "mirrored left-right"), (1, "mirrored front-back"), (2, "upside down")])
def test_a_mirrored_prediction_is_warned_of(many: Path, tmp_path: Path, axis: int, name: str) -> None:
    summary, _ = score(write(tmp_path / "p", many, lambda hu, _: np.flip(hu, axis)), many)
    assert flags(summary) & {"mirrored left-right", "mirrored front-back", "upside down"} == {name}


def test_a_uniform_volume_and_another_patient_are_warned_of(many: Path, tmp_path: Path) -> None:
    summary, _ = score(write(tmp_path / "p", many, lambda hu, _: np.full_like(hu, hu.mean())), many)
    assert {"nearly uniform", "worse than the mean volume"} <= flags(summary)
    cases = load_datalist(many, "test")
    others = [nibabel.load(cases[(number + 1) % len(cases)]["label"]).get_fdata() for number in range(len(cases))]
    summary, _ = score(write(tmp_path / "q" / "p", many, lambda _, number: others[number]), many)
    assert {"ignores its input", "contradicts its radiographs"} <= flags(summary)


def test_intervals_are_scored_where_a_method_gives_them(many: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    folder = write(tmp_path / "p", many, lambda hu, _: hu.clip(-700, 1000) + generator.normal(0, 50, hu.shape))
    for path in sorted(folder.glob("*.nii.gz")):
        image = nibabel.load(path)
        std = np.full(image.shape, 50, dtype=np.float32)
        nibabel.save(
            nibabel.Nifti1Image(std, image.affine), path.with_name(path.name.replace(".nii.gz", "_std.nii.gz"))
        )
    summary, _ = score(folder, many)
    assert 0.75 < summary["metrics"]["prediction"]["coverage_90"]["mean"] < 0.95
    assert 0.35 < summary["metrics"]["prediction"]["coverage_50"]["mean"] < 0.55


def test_scores_are_kept_until_the_prediction_changes(many: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "p", many)
    score(folder, many)
    kept = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("evaluation/scores/*.json")}
    changed = sorted(folder.glob("*.nii.gz"))[2]
    image = nibabel.load(changed)
    nibabel.save(nibabel.Nifti1Image(image.get_fdata().astype(np.float32) + 10, image.affine), changed)
    score(folder, many)
    now = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("evaluation/scores/*.json")}
    assert [name for name in kept if now[name] != kept[name]] == [changed.name.replace(".nii.gz", ".json")]


def test_a_damaged_file_of_scores_or_of_the_mean_volume_is_made_again(many: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "p", many)
    summary, rows = score(folder, many)
    files = [tmp_path / "evaluation" / "mean_volume.json", *tmp_path.glob("evaluation/scores/*.json")]
    assert len(files) == 7
    for number, file in enumerate(files):
        text = file.read_text(encoding="utf-8")
        file.write_text((text[: len(text) // 2], "", "[]", "{}")[number % 4], encoding="utf-8")
    assert score(folder, many) == (summary, rows)
    assert all("stamp" in json.loads(file.read_text(encoding="utf-8")) for file in files)


@pytest.mark.parametrize("field", ["cameras", "intensity", "side-car"])
def test_scores_are_kept_until_the_view_or_the_scale_of_a_radiograph_changes(
    many: Path, tmp_path: Path, field: str
) -> None:
    """The datalist and the side-cars decide what the residuals are, as much as the pictures do."""
    shutil.copytree(many.parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    folder = write(tmp_path / "p", datalist)
    _, before = score(folder, datalist)
    page = json.loads(datalist.read_text(encoding="utf-8"))
    case = page["test"][2]
    if field == "side-car":
        path = (tmp_path / "data" / case["image"][0]).with_suffix(".json")
        side_car = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps(side_car | {"scale": 2 * side_car["scale"]}), encoding="utf-8")
    elif field == "cameras":
        case["cameras"][0]["detector_center"][2] += 40.0
    else:
        case["intensity"][0] = {"quantitative": False, "gain": 2.0, "offset": 0.0}
    datalist.write_text(json.dumps(page), encoding="utf-8")
    _, after = score(folder, datalist)
    changed = [row["case_id"] for row, old in zip(after, before) if row["reprojection"] != old["reprojection"]]
    assert changed == [case["case_id"]]
    shuffled = [row["reprojection_shuffled"] != old["reprojection_shuffled"] for row, old in zip(after, before)]
    assert shuffled == [False, True, False, False, False, False]  # it is the other patient of the case before


def test_training_cts_of_different_sizes_are_refused_until_one_is_chosen(many: Path, tmp_path: Path) -> None:
    shutil.copytree(many.parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    label = tmp_path / "data" / json.loads(datalist.read_text(encoding="utf-8"))["training"][1]["label"]
    image = nibabel.load(label)
    halved = image.get_fdata().reshape(8, 2, 8, 2, 8, 2).mean(axis=(1, 3, 5))
    affine = image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = image.affine[:3, 3] + np.diag(image.affine)[:3] / 2
    nibabel.save(nibabel.Nifti1Image(halved, affine), label)
    folder = write(tmp_path / "p", datalist)
    with pytest.raises(ValueError, match="its size differs from .*; choose one with --size"):
        score(folder, datalist)
    assert "mean volume" in score(folder, datalist, size=8, resample=True)[0]["metrics"]


def test_at_another_size_the_truth_is_averaged(many: Path, tmp_path: Path) -> None:
    def halve(hu: np.ndarray, _: int) -> np.ndarray:
        return hu.reshape(8, 2, 8, 2, 8, 2).mean(axis=(1, 3, 5))

    folder = write(tmp_path / "p", many, halve)
    for path in folder.glob("*.nii.gz"):
        image = nibabel.load(path)
        affine = image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
        affine[:3, 3] = image.affine[:3, 3] + np.diag(image.affine)[:3] / 2
        nibabel.save(nibabel.Nifti1Image(image.get_fdata().astype(np.float32), affine), path)
    with pytest.raises(ValueError, match="6 of 6 predictions cannot be compared; .* is on another grid"):
        score(folder, many)
    summary, _ = score(folder, many, size=8)
    assert summary["metrics"]["prediction"]["hu.mae"]["mean"] < 1.0
    summary, _ = score(folder, many, resample=True)
    assert summary["metrics"]["prediction"]["hu.mae"]["mean"] > 10.0
    assert summary["size"] is None and summary["resample"] is True


def test_without_training_cases_there_is_no_mean_volume(phantoms: Path, tmp_path: Path) -> None:
    page = json.loads(phantoms.read_text(encoding="utf-8"))
    page["training"] = []
    datalist = phantoms.with_name("test_only.json")
    datalist.write_text(json.dumps(page), encoding="utf-8")
    summary, _ = score(write(tmp_path / "p", datalist), datalist)
    assert set(summary["metrics"]) == {"prediction"} and summary["skill"] is None and summary["conditioning"] is None


def test_radiographs_without_cameras_are_left_out(many: Path, tmp_path: Path) -> None:
    page = json.loads(many.read_text(encoding="utf-8"))
    for case in page["test"]:
        del case["cameras"]
    datalist = many.with_name("no_cameras.json")
    datalist.write_text(json.dumps(page), encoding="utf-8")
    summary, rows = score(write(tmp_path / "p", datalist), datalist, figures=1)
    assert [path.name for path in tmp_path.glob("evaluation/*.png")] == [f"{rows[0]['case_id']}.png"]
    assert "reprojection" not in rows[0] and "held_out_view" not in summary["metrics"]["prediction"]
    assert summary["metrics"]["prediction"]["dice_bone"]["mean"] == 1.0


def test_a_truth_that_is_not_a_cube_is_refused(many: Path, tmp_path: Path) -> None:
    page = json.loads(many.read_text(encoding="utf-8"))
    label = nibabel.load(many.parent / page["test"][0]["label"])
    nibabel.save(nibabel.Nifti1Image(label.get_fdata()[:, :, :12], label.affine), tmp_path / "flat.nii.gz")
    page["test"] = [{"case_id": "flat", "label": str(tmp_path / "flat.nii.gz")}]
    (many.with_name("flat.json")).write_text(json.dumps(page), encoding="utf-8")
    folder = write(tmp_path / "p", many.with_name("flat.json"))
    with pytest.raises(
        ValueError, match=r"expected a cube of equal voxels, got \(16, 16, 12\) voxels of .* run prepare"
    ):
        score(folder, many.with_name("flat.json"))


def test_bad_input_is_refused_in_one_line(many: Path, tmp_path: Path) -> None:
    folder = write(tmp_path / "p", many)
    next(folder.glob("*.nii.gz")).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 6 predictions are missing; no prediction of phantom_"):
        score(folder, many)
    with pytest.raises(FileNotFoundError, match="no such folder of predictions"):
        score(tmp_path / "nowhere", many)
    with pytest.raises(ValueError, match="section 'validation' has no case to score"):
        score(folder, many, section="validation")
    with pytest.raises(ValueError, match="size must be at least 7"):
        score(folder, many, size=4)
    with pytest.raises(ValueError, match="figures must not be negative, got -1"):
        score(folder, many, figures=-1)
    with pytest.raises(ValueError, match="name must not be 'mean volume'"):
        score(folder, many, name="mean volume")
    assert not (tmp_path / "evaluation" / "cases.csv").exists()
