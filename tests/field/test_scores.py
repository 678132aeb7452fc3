"""Predictions as other software writes them: scored as what they are, or refused in one line."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel import orientations

from tests.field.inputs import Ran, run
from trct_monai.io.datalist import load_datalist
from trct_monai.io.files import read_csv
from trct_monai.io.nifti import read_nifti


@pytest.fixture
def predictions(phantoms: Path, tmp_path: Path) -> Path:
    """A prediction of each test case: its CT, somewhat wrong."""
    folder = tmp_path / "predictions"
    folder.mkdir()
    for case in load_datalist(phantoms, "test"):
        truth = read_nifti(case["label"])
        noise = np.random.default_rng(0).normal(0, 60, truth.values.shape)
        save(folder / f"{case['case_id']}.nii.gz", truth.values + noise, truth.affine)
    return folder


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)


def evaluate(predictions: Path, datalist: Path, **flags: object) -> Ran:
    output = predictions.parent / "scores"
    return run(
        "evaluate", output, predictions=predictions, datalist=datalist, output=output, figures=0, num_workers=1, **flags
    )


def psnr_of(ran: Ran) -> list[float]:
    assert ran.code == 0, ran.text
    rows = read_csv(ran.output / "cases.csv")
    return [float(row["hu.psnr_3d"]) for row in rows if row["method"] == "prediction"]


def first(folder: Path) -> Path:
    return sorted(folder.glob("*.nii*"))[0]


def change(path: Path, function) -> None:  # type: ignore[no-untyped-def]
    image = nibabel.load(path)
    values, affine = function(np.asarray(image.dataobj), image.affine)
    save(path, values, affine)


@pytest.mark.parametrize(
    ("function", "guess"),
    [
        pytest.param(lambda hu: (hu.clip(-1024, 1476) + 1024) / 2500, "[0, 1]", id="i04_unit"),
        pytest.param(lambda hu: (hu.clip(-1024, 1476) - 226) / 1250, "[-1, 1]", id="i04_minus_one_to_one"),
        pytest.param(lambda hu: hu + 1024, "HU + 1024", id="i04_offset"),
        pytest.param(lambda hu: hu + 1000, "HU + 1000", id="i04_offset_1000"),
        pytest.param(lambda hu: hu - 1024, "HU - 1024", id="offset twice"),
        pytest.param(lambda hu: (hu.clip(-1024, 1476) + 1024) / 2500 * 255, "0.1 times the CT's", id="8 bits"),
        pytest.param(lambda hu: (hu - hu.mean()) / hu.std(), "times the CT's", id="z-score"),
        pytest.param(lambda hu: -hu, "-0.997 times the CT's", id="negative"),
    ],
)
def test_predictions_that_are_no_hu_are_named(predictions: Path, phantoms: Path, function, guess: str) -> None:  # type: ignore[no-untyped-def]
    change(first(predictions), lambda hu, affine: (function(hu), affine))
    ran = evaluate(predictions, phantoms)
    assert ran.code == 2 and guess in ran.error and first(predictions).name in ran.error
    assert not (ran.output / "cases.csv").exists()


def test_a_bad_prediction_in_hu_is_scored(predictions: Path, phantoms: Path) -> None:
    for path in predictions.iterdir():
        change(path, lambda hu, affine: (hu * 0 - 400 + np.arange(16), affine))
    assert len(psnr_of(evaluate(predictions, phantoms))) == 2


@pytest.mark.parametrize("codes", ["LPS", "SAR", "PIL"])
def test_i1x_another_orientation_scores_the_same(predictions: Path, phantoms: Path, codes: str) -> None:
    expected = psnr_of(evaluate(predictions, phantoms))
    for path in predictions.iterdir():
        image = nibabel.load(path)
        turn = orientations.ornt_transform(
            orientations.io_orientation(image.affine), orientations.axcodes2ornt(tuple(codes))
        )
        turned = image.as_reoriented(turn)
        save(path, np.asarray(turned.dataobj), turned.affine)
    assert psnr_of(evaluate(predictions, phantoms)) == pytest.approx(expected, abs=1e-6)


def test_i13_a_mirrored_prediction_is_seen(predictions: Path, phantoms: Path) -> None:
    for path in predictions.iterdir():
        change(path, lambda hu, affine: (hu[::-1], affine))
    assert "mirror" in evaluate(predictions, phantoms).text


def test_a_prediction_beside_its_ct_is_not_resampled(predictions: Path, phantoms: Path) -> None:
    change(first(predictions), lambda hu, affine: (hu, np.eye(4)))
    ran = evaluate(predictions, phantoms, resample=True)
    assert ran.code == 2 and "of its CT, at least 50% are needed to resample it" in ran.error


def test_a_case_that_is_there_twice_is_refused(predictions: Path, phantoms: Path, tmp_path: Path) -> None:
    content = json.loads(phantoms.read_text(encoding="utf-8"))
    datalist = phantoms.parent / f"{tmp_path.name}.json"
    for test, message in (
        ([*content["test"], content["test"][0]], "is there 2 times (test, test)"),
        ([*content["test"], content["training"][0]], "is there 2 times (training, test)"),
        ([{**content["test"][0], "label": None}], "label"),
        ([None], "the section test must be a list of cases, each with its fields"),
        ({"a": 1}, "the section test must be a list of cases, each with its fields"),
    ):
        datalist.write_text(json.dumps(content | {"test": test}), encoding="utf-8")
        ran = run("check", tmp_path, datalist=datalist, num_pictures=0)
        assert ran.code == 2 and message in ran.text, test
        ran = evaluate(predictions, datalist)
        assert ran.code == 2 and ran.error, test
    swapped = json.loads(phantoms.read_text(encoding="utf-8"))
    swapped["test"][0]["image"] = swapped["test"][1]["image"]
    datalist.write_text(json.dumps(swapped), encoding="utf-8")
    ran = run("check", tmp_path, datalist=datalist, num_pictures=0)
    assert ran.code == 2 and "does not hold the pixels that were written for this case" in ran.text
    datalist.unlink()


def test_a_radiograph_that_lost_its_side_car_is_no_picture_of_another_scale(
    predictions: Path, phantoms: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms.parent, data)
    side_car = next(data.glob("phantom_000009/*_pa_drr.json"))
    side_car.unlink()
    ran = evaluate(predictions, data / "datalist.json")
    assert ran.code == 2 and f"but {side_car.name}, which states their scale, is missing" in ran.error


def test_split_drops_no_case_without_its_record(phantoms: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantoms.parent, data)
    (data / "phantom_000001" / "case.json").unlink()
    ran = run("split", data, data=data)
    assert ran.code == 2 and "phantom_000001 has no case.json any more" in ran.error
    shutil.rmtree(data / "phantom_000001")
    ran = run("split", data, data=data)
    assert ran.code == 0 and "1 cases of the last datalist are gone: phantom_000001" in ran.text


def damaged(raw: bytes, at: int, block: bytes) -> bytes:
    return raw[:at] + block + raw[at + len(block) :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda raw: damaged(raw, 112, np.array([1, np.nan], "<f4").tobytes()), id="i07_nan_intercept"),
        pytest.param(lambda raw: damaged(raw, 70, b"\xff\x7f"), id="i20b_type"),
        pytest.param(lambda raw: damaged(raw, 40, b"\x03\x00\xff\x7f\xff\x7f"), id="shape"),
        pytest.param(lambda raw: damaged(raw, 40, b"\x09\x00"), id="nine dimensions"),
        pytest.param(lambda raw: raw[:-100], id="cut"),
        pytest.param(lambda raw: raw[:200], id="cut in the header"),
        pytest.param(lambda raw: b"", id="empty"),
    ],
)
def test_a_damaged_prediction_never_scores(predictions: Path, phantoms: Path, damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = first(predictions)
    plain = path.with_name(path.name.removesuffix(".gz"))
    nibabel.save(nibabel.load(path), plain)
    path.unlink()
    plain.write_bytes(damage(plain.read_bytes()))
    ran = evaluate(predictions, phantoms)
    assert ran.code == 2 and plain.name in ran.error
    # The same damage in a label.
    data = tmp_path / "data"
    shutil.copytree(phantoms.parent, data)
    label = data / json.loads((data / "datalist.json").read_text(encoding="utf-8"))["test"][0]["label"]
    content = json.loads((data / "datalist.json").read_text(encoding="utf-8"))
    nibabel.save(nibabel.load(label), label.with_name("label.nii"))
    label.with_name("label.nii").write_bytes(damage(label.with_name("label.nii").read_bytes()))
    content["test"][0]["label"] = str(label.with_name("label.nii").relative_to(data))
    (data / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    ran = run("check", data, datalist=data / "datalist.json", num_pictures=0)
    assert ran.code == 2 and "label.nii: damaged" in ran.error


def test_compressed_damage_never_scores(predictions: Path, phantoms: Path) -> None:
    path = first(predictions)
    raw = path.read_bytes()
    for at in (12, len(raw) // 2, len(raw) - 6):
        path.write_bytes(damaged(raw, at, bytes([255 - value for value in raw[at : at + 4]])))
        ran = evaluate(predictions, phantoms)
        assert ran.code == 2 and path.name in ran.error, at


def test_i18_a_changed_prediction_is_scored_anew(predictions: Path, phantoms: Path) -> None:
    before = psnr_of(evaluate(predictions, phantoms))
    change(first(predictions), lambda hu, affine: (hu[::-1, ::-1], affine))  # as many bytes
    after = psnr_of(evaluate(predictions, phantoms))
    assert after[0] < before[0] - 1 and after[1] == before[1]
