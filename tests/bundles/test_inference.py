"""What trained bundles write: CTs in HU on the grids of their cases, with intervals, finer, or by a baseline."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.miniature import (
    OVERLAY_MINIATURE,
    RECONSTRUCTION,
    SIZES,
    DataOf,
    Trained,
    arguments,
    files,
    run,
    smoke,
)
from tests.bundles.sources import BUNDLES, COMMON, RADIOGRAPHS, having, name
from trct_monai.baselines import BASELINES
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.io.datalist import load_datalist
from trct_monai.networks import VolumeRefiner

pytestmark = pytest.mark.slow


def scores(predictions: Path, datalist: Path, output: Path) -> list[dict[str, str]]:
    """What `evaluate` finds, a line for each case and method."""
    evaluate(predictions=str(predictions), datalist=str(datalist), output=str(output), figures=0, num_workers=0)
    with open(output / "cases.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def moved(datalist: Path, folder: Path) -> Path:
    """The same cases with their CTs elsewhere in the world, as patients in a scanner are."""
    page = json.loads(datalist.read_text(encoding="utf-8"))
    for section in ("training", "validation", "test"):
        for case in load_datalist(datalist, section):
            image = nibabel.load(case["label"])
            affine = image.affine.copy()
            affine[:3, 3] += [-13.0, 7.0, -170.0]
            target = folder / Path(case["label"]).name
            target.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), target)
            own = next(own for own in page[section] if own["case_id"] == case["case_id"])
            own.update(label=str(target), image=case["image"])
    (folder / "datalist.json").write_text(json.dumps(page), encoding="utf-8")
    return folder / "datalist.json"


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_inference_writes_hu_on_the_grid_of_the_ct(
    bundle: Path, trained: Trained, phantoms: Path, tmp_path: Path
) -> None:
    datalist, predictions = moved(phantoms, tmp_path / "moved"), tmp_path / "predictions"
    options = arguments(bundle, datalist, predictions, trained(bundle) / "model.pt")
    run(files(bundle, "inference.json"), **SIZES | options)
    cases = load_datalist(datalist, "test")
    assert sorted(path.name for path in predictions.iterdir()) == sorted(f"{case['case_id']}.nii.gz" for case in cases)
    for case in cases:
        truth, prediction = nibabel.load(case["label"]), nibabel.load(predictions / f"{case['case_id']}.nii.gz")
        np.testing.assert_allclose(prediction.affine, truth.affine, atol=1e-4)
        values = prediction.get_fdata()
        assert values.shape == truth.shape and values.min() >= -1024 and values.max() <= 1476 and values.min() < -900
    rows = scores(predictions, datalist, tmp_path / "scores")
    assert len(rows) == 2 * len(cases) and {row["method"] for row in rows} == {"prediction", "mean volume"}


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_inference_takes_one_pair_of_radiographs(
    bundle: Path, trained: Trained, phantoms: Path, tmp_path: Path
) -> None:
    case = load_datalist(phantoms, "test")[0]
    options = SIZES | arguments(bundle, phantoms, tmp_path / "predictions", trained(bundle) / "model.pt")
    options |= {"datalist": None, "dataset_dir": str(tmp_path / "not made"), "radiographs": case["image"]}
    run(files(bundle, "inference.json"), **options)
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["reconstruction.nii.gz"]
    assert not (tmp_path / "not made").exists()


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_runs_as_a_bundle(baseline: str, phantoms: Path, tmp_path: Path) -> None:
    options = arguments(RECONSTRUCTION, phantoms, tmp_path) | SIZES | {"baseline": baseline}
    run(files(RECONSTRUCTION, "inference.json", COMMON / "baseline.json"), **options)
    for case in load_datalist(phantoms, "test"):
        prediction, truth = (nibabel.load(path) for path in (tmp_path / f"{case['case_id']}.nii.gz", case["label"]))
        np.testing.assert_allclose(prediction.affine, truth.affine, atol=1e-4)
        assert prediction.shape == truth.shape


def test_inference_without_a_model_says_what_to_do(data: DataOf, tmp_path: Path) -> None:
    for bundle in BUNDLES:
        with pytest.raises(RuntimeError) as error:
            run(files(bundle, "inference.json"), **arguments(bundle, data(bundle), tmp_path))
        assert "no trained model at" in str(error.value.__cause__)


@pytest.mark.parametrize("bundle", having("train_intervals.json"), ids=name)
def test_intervals_are_fitted_written_and_scored(
    bundle: Path, trained: Trained, phantoms: Path, tmp_path: Path
) -> None:
    output = shutil.copytree(trained(bundle), tmp_path / "trained")  # fitted intervals are written beside the model
    options = arguments(bundle, phantoms, output) | SIZES | {"interval_channels": 4}
    fit = files(bundle, "train.json", smoke(bundle), bundle / "configs" / "train_intervals.json")
    run(fit, **options, interval_steps=4)
    predict = files(bundle, "inference.json", bundle / "configs" / "intervals.json")
    run(predict, **options | {"output_dir": str(tmp_path / "predictions")})
    run(files(bundle, "inference.json"), **options | {"output_dir": str(tmp_path / "alone")})
    for case in load_datalist(phantoms, "test"):
        prediction = nibabel.load(tmp_path / "predictions" / f"{case['case_id']}.nii.gz")
        same = nibabel.load(tmp_path / "alone" / f"{case['case_id']}.nii.gz")
        quantiles = nibabel.load(tmp_path / "predictions" / f"{case['case_id']}_quantiles.nii.gz")
        np.testing.assert_allclose(prediction.get_fdata(), same.get_fdata(), atol=1e-2)
        assert quantiles.shape == (*prediction.shape, 4) and (np.diff(quantiles.get_fdata(), axis=-1) >= 0).all()
    rows = [
        row for row in scores(tmp_path / "predictions", phantoms, tmp_path / "scores") if row["method"] == "prediction"
    ]
    assert all(0 < float(row["coverage_50"]) < float(row["coverage_90"]) <= 1 for row in rows)


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_interpolation_reaches_any_size(bundle: Path, trained: Trained, phantoms: Path, tmp_path: Path) -> None:
    weights = shutil.copy(trained(bundle) / "model.pt", tmp_path / "model.pt")  # without a refiner beside it
    options = SIZES | arguments(bundle, phantoms, tmp_path / "out", weights) | {"max_cases": 1, "output_size": 20}
    alone = [path for path in [bundle / "configs" / "stage1.json"] if path.is_file()]
    run(files(bundle, "inference.json", *alone, COMMON / "interpolate.json"), **options)
    (path,) = (tmp_path / "out").iterdir()
    assert nibabel.load(path).shape == (20, 20, 20)


@pytest.mark.parametrize("bundle", having("train_refine.json"), ids=name)
def test_the_gain_of_a_refiner_is_zero_before_training(
    bundle: Path, trained: Trained, phantoms: Path, tmp_path: Path
) -> None:
    changes = {"stage1_path": str(trained(bundle) / "model.pt"), "learning_rate": 0.0}
    changes |= OVERLAY_MINIATURE["train_refine"]
    parser = ConfigParser()
    parser.read_config(files(bundle, "train.json", smoke(bundle), bundle / "configs" / "train_refine.json"))
    parser.update({**arguments(bundle, phantoms, tmp_path), **changes})
    evaluator = parser.get_parsed_content("validate::evaluator")
    evaluator.run()
    metrics = evaluator.state.metrics
    assert metrics["psnr_gain"] == 0 and metrics["ssim_gain"] == 0 and metrics["psnr"] == metrics["psnr_interpolated"]


def test_the_refiner_takes_any_coarse_ct(phantoms: Path, tmp_path: Path) -> None:
    bundle = RECONSTRUCTION.with_name("two_stage")
    torch.manual_seed(0)
    refiner = VolumeRefiner(1, 4, 2).eval()
    torch.nn.init.normal_(refiner.heads[0].weight, std=0.05)  # type: ignore[arg-type]
    torch.save(refiner.state_dict(), tmp_path / "refiner.pt")
    affine = np.diag([-4.0, 5.0, 6.0, 1.0]) + np.array([[0, 0, 0, 30], [0, 0, 0, -20], [0, 0, 0, 7], [0, 0, 0, 0]])
    coarse = np.random.default_rng(0).uniform(-1000, 400, (9, 12, 10)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(coarse, affine), tmp_path / "thorax.nii.gz")
    options: dict[str, Any] = arguments(bundle, phantoms, tmp_path / "fine", tmp_path / "refiner.pt")
    options |= {"volumes": [str(tmp_path / "thorax.nii.gz")]}
    config = files(bundle, "inference.json", bundle / "configs" / "refine_volumes.json")
    run(config, **options)
    fine = nibabel.load(tmp_path / "fine" / "thorax.nii.gz")
    assert fine.shape == (18, 24, 20)
    middle = [affine @ [*(np.array(coarse.shape) / 2 - 0.5), 1], fine.affine @ [*(np.array(fine.shape) / 2 - 0.5), 1]]
    np.testing.assert_allclose(*middle, atol=1e-4)
    upright = torch.as_tensor((coarse[::-1].copy() + 1024) / 2500).clamp(0, 1)  # the refiner knows RAS; the file is LAS
    with torch.no_grad():
        expected = refiner(upright[None, None])[0, 0].numpy() * 2500 - 1024
    np.testing.assert_allclose(nibabel.as_closest_canonical(fine).get_fdata(), expected, atol=1.0)
    options["volumes"] = [str(tmp_path / "thorax.nii.gz")] * 2
    with pytest.raises(RuntimeError) as error:
        run(config, **options)
    assert "have one name" in str(error.value.__cause__)
