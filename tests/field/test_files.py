"""CT files as people write them: read as they are, or refused in one line."""

import shutil
import sys
from pathlib import Path

import h5py
import itk
import nibabel
import numpy as np
import pytest
import torch

from tests.field.inputs import hu_off, prepare, run
from tests.files import save_nifti
from trct_monai.geometry import preset
from trct_monai.phantoms import Phantom
from trct_monai.projector import project_hu


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def padded(ct_hu: np.ndarray, value: float) -> np.ndarray:
    """The volume with a padding outside of the scanner's circle."""
    y, x = np.mgrid[-19.5:20, -19.5:20]
    return np.where((x**2 + y**2 > 19.5**2)[:, :, None], value, ct_hu)


@pytest.mark.parametrize(
    ("change", "guess", "rescale"),
    [
        pytest.param(lambda ct: padded(ct + 1000, -1000), "HU + 1000", "1,-1000", id="f07_offset_with_padding"),
        pytest.param(lambda ct: ct + 1024, "HU + 1024", "1,-1024", id="f06_plus1024"),
        pytest.param(lambda ct: padded(ct + 1024, -1024), "HU + 1024", "1,-1024", id="HU + 1024, padding -1024"),
        pytest.param(lambda ct: padded(ct + 1024, -2000), "HU + 1024", "1,-1024", id="HU + 1024, padding -2000"),
        pytest.param(lambda ct: (ct + 1024).clip(30), "HU + 1024", "1,-1024", id="HU + 1024, clipped"),
        pytest.param(lambda ct: (ct.clip(-1024, 1476) + 1024) / 2500, "[0, 1]", "2500,-1024", id="f06_unit"),
        pytest.param(lambda ct: (ct.clip(-1024, 1476) - 226) / 1250, "[-1, 1]", "1250,226", id="-1 to 1"),
        pytest.param(lambda ct: ((ct.clip(-1024, 1476) + 1024) / 2500 * 255).round(), "8 bits", None, id="uint8"),
    ],
)
def test_numbers_that_are_no_hu_are_refused_with_a_guess(
    folder: Path, phantom: Phantom, change, guess, rescale
) -> None:  # type: ignore[no-untyped-def]
    save_nifti(folder / "a.nii.gz", change(phantom.ct_hu).astype(np.float32), phantom.affine)
    ran = prepare(folder)
    assert ran.code == 2 and "no CT in HU" in ran.error and guess in ran.error
    if rescale:
        assert f"--rescale {rescale}" in ran.error
        mended = prepare(folder, rescale=rescale)
        (label,) = mended.labels().values()
        inside = padded(np.zeros(label.shape), 1) == 0
        assert np.abs(label - phantom.ct_hu)[inside].mean() < 30  # but for air that was clipped
        assert label.min() >= -1024


def test_an_array_of_x2ct_with_other_axes_is_refused(folder: Path, phantom: Phantom) -> None:
    views = project_hu(torch.from_numpy(phantom.ct_hu)[None], preset("x2ct", 64), 8.0)
    for array, message in (
        (phantom.ct_hu[::-1, ::-1].T, ""),
        (phantom.ct_hu[::-1, ::-1], "so the array's axes are not SPL"),
    ):
        with h5py.File(folder / "ct_xray_data.h5", "w") as file:
            file["ct"] = array + 1024
            file["xray1"], file["xray2"] = (view.numpy() for view in views)
            file["ori_size"], file["spacing"] = 320, [1.0, 1.0, 1.0]
        ran = prepare(folder, center="body", geometry="x2ct")
        assert (ran.code == 2 and message in ran.error) if message else hu_off(ran, phantom) < 0.6


@pytest.mark.parametrize("value", [0, -400])
def test_a_background_in_the_middle_of_the_scale_is_refused(folder: Path, phantom: Phantom, value: int) -> None:
    ends = phantom.ct_hu.copy()
    ends[:, :, -4:] = value
    for ct in (padded(phantom.ct_hu, value), ends):
        save_nifti(folder / "a.nii", ct.astype(np.int16), phantom.affine)
        assert f"a background of {value} in its corners or end slices" in prepare(folder).error


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000.0), ("micron", 0.001)])
def test_units_of_the_header_count(folder: Path, phantom: Phantom, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(phantom.ct_hu, np.diag([1 / factor] * 3 + [1.0]) @ phantom.affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, folder / "a.nii")
    assert hu_off(prepare(folder), phantom) < 0.3


def test_l08_a_unit_of_x2ct_is_named_as_it_is_stored(folder: Path, phantom: Phantom) -> None:
    with h5py.File(folder / "ct_xray_data.h5", "w") as file:
        file["ct"] = (phantom.ct_hu[::-1, ::-1].T + 1024) / 2500
        file["xray1"] = file["xray2"] = np.zeros((4, 4))
        file["ori_size"], file["spacing"] = 320, [1.0, 1.0, 1.0]
    assert "values 0.0096 to" in (error := prepare(folder).error) and "[0, 1]?" in error


def test_f11_mended_source(folder: Path, phantom: Phantom) -> None:
    save_nifti(folder / "a.nii", phantom.ct_hu[::-1], phantom.affine)
    wrong = hu_off(prepare(folder), phantom)
    save_nifti(folder / "a.nii", phantom.ct_hu, phantom.affine)
    assert wrong > 50 and hu_off(prepare(folder), phantom) < 0.6


def test_a_ct_that_went_away_leaves_the_datalist_and_is_named(folder: Path, phantom: Phantom) -> None:
    for name in "ab":
        save_nifti(folder / f"{name}.nii", phantom.ct_hu + ord(name), phantom.affine)
    assert set(prepare(folder).cases()) == {"a", "b"}
    (folder / "a.nii").unlink()
    ran = prepare(folder)
    assert set(ran.cases()) == {"b"} and "left out of the datalist: a" in ran.text


def test_a_ct_that_vanishes_while_others_are_made_is_refused_by_name(folder: Path, phantom: Phantom) -> None:
    from trct_monai.datasets import driver, prepare_case
    from trct_monai.datasets.sources import find_sources

    for name in "ab":
        save_nifti(folder / f"{name}.nii", phantom.ct_hu + ord(name), phantom.affine)
    sources = find_sources(folder).sources
    (folder / "a.nii").unlink()
    options = prepare_case.Options(16, 320.0, "x2ct", 16, (-1024.0, 3071.0), False, False, False, None, 0.0, 0.7, "SPL")
    output = folder.parent / "out"
    make = driver.Recipe(lambda source: prepare_case.products(source, options, folder, output), {}, "prepare")
    run_of = driver.run_jobs(
        output, [driver.Job((one.case_id,), one) for one in sources], make, num_workers=0, max_skipped=0.5
    )
    assert [job.names for job in run_of.refused] == [("a",)] and (output / "b" / "case.json").is_file()


@pytest.mark.parametrize("mirrored", ["qform", "sform"])
def test_f01_sform_qform(folder: Path, phantom: Phantom, mirrored: str) -> None:
    image = nibabel.Nifti1Image(phantom.ct_hu, phantom.affine)
    other = phantom.affine @ np.diag([-1.0, 1, 1, 1])
    other[0, 3] *= -1
    image.set_sform(other if mirrored == "sform" else phantom.affine, 1)
    image.set_qform(other if mirrored == "qform" else phantom.affine, 1)
    nibabel.save(image, folder / "a.nii")
    ran = prepare(folder)
    assert ran.code == 2 and "sform and qform disagree" in ran.error and "RAS" in ran.error and "LAS" in ran.error
    image.set_sform(phantom.affine, 1)
    image.set_qform(phantom.affine, 1)
    nibabel.save(image, folder / "a.nii")
    assert hu_off(prepare(folder), phantom) < 0.3


def test_one_of_sform_and_qform_is_enough(folder: Path, phantom: Phantom) -> None:
    image = nibabel.Nifti1Image(phantom.ct_hu, phantom.affine)
    image.set_sform(None, 0)
    image.set_qform(phantom.affine, 1)
    nibabel.save(image, folder / "a.nii")
    assert hu_off(prepare(folder), phantom) < 0.3


def save_itk(path: Path, phantom: Phantom) -> None:
    image = itk.image_from_array(np.ascontiguousarray(phantom.ct_hu[::-1, ::-1].T))
    image.SetSpacing([8.0, 8.0, 8.0])
    image.SetOrigin([-156.0, -156.0, -156.0])
    itk.imwrite(image, str(path), compression=False)


@pytest.mark.parametrize("name", ["a.mha", "a.mhd", "a.nrrd", "a.nhdr"])
def test_f09_no_orientation(folder: Path, phantom: Phantom, name: str) -> None:
    save_itk(folder / name, phantom)
    assert hu_off(prepare(folder), phantom) < 0.3
    raw = (folder / name).read_bytes()
    lines = {"a.mh": (b"TransformMatrix",), "a.nr": (b"space:", b"space directions:"), "a.nh": (b"space:",)}[name[:4]]
    kept = [line for line in raw.split(b"\n") if not line.startswith(lines)]
    (folder / name).write_bytes(b"\n".join(kept))
    ran = prepare(folder)
    assert ran.code == 2 and "does not say where right and left are" in ran.error


def test_f08_a_sheared_affine_is_undone(folder: Path, phantom: Phantom) -> None:
    shear = np.eye(4)
    shear[1, 2] = np.tan(np.deg2rad(12))
    save_nifti(folder / "a.nii.gz", phantom.ct_hu, shear @ phantom.affine)
    ran = prepare(folder, center="body")
    assert ran.code == 0 and 5 < hu_off(ran, phantom) < 250  # it is sheared in the world too


def test_l10_hdr_img_pair(folder: Path, phantom: Phantom) -> None:
    nibabel.save(nibabel.Nifti1Pair(phantom.ct_hu, phantom.affine), folder / "a.hdr")
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3 and "other kinds" not in ran.text
    nibabel.save(nibabel.Nifti1Pair(phantom.ct_hu + 5, phantom.affine), folder / "a.hdr")  # the header is the same
    assert hu_off(prepare(folder), phantom) == pytest.approx(5, abs=0.3)
    (folder / "a.img").unlink()
    ran = prepare(folder)
    assert ran.code == 2 and "a.img" in ran.error


def test_analyze_without_orientation_is_refused(folder: Path, phantom: Phantom) -> None:
    nibabel.save(nibabel.AnalyzeImage(phantom.ct_hu.astype(np.int16), phantom.affine), folder / "a.hdr")
    ran = prepare(folder)
    assert ran.code == 2 and "does not say where right and left are" in ran.error


def test_f05_scales_that_are_no_numbers(folder: Path, phantom: Phantom) -> None:
    image = nibabel.Nifti1Image(phantom.ct_hu.astype(np.int16), phantom.affine)
    nibabel.save(image, folder / "a.nii")
    raw = bytearray((folder / "a.nii").read_bytes())
    for slope, intercept in ((np.nan, 0), (1, np.nan), (np.inf, 0), (1, np.inf)):
        raw[112:120] = np.array([slope, intercept], "<f4").tobytes()
        (folder / "a.nii").write_bytes(raw)
        ran = prepare(folder)
        assert ran.code == 2 or hu_off(ran, phantom) < 0.6, (slope, intercept)


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[: len(raw) // 2],
        lambda raw: b"",
        lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n",
        lambda raw: raw[:5000] + bytes(500) + raw[5500:],
    ],
    ids=["cut", "empty", "LFS pointer", "zeroed block"],
)
def test_f17_damaged(folder: Path, phantom: Phantom, damage) -> None:  # type: ignore[no-untyped-def]
    save_nifti(folder / "a.nii.gz", phantom.ct_hu, phantom.affine)
    path = folder / "a.nii.gz"
    path.write_bytes(damage(path.read_bytes()))
    ran = prepare(folder)
    assert ran.code == 2 and "a.nii.gz: damaged NIfTI" in ran.error
    assert not ran.output.exists()


def test_g14_and_l09_names_in_any_script_and_of_any_length(folder: Path, phantom: Phantom) -> None:
    names = ["Jörg", "Jürg", "张伟", "李娜", "a b", "Ünal & Söhne", "x" * 240]
    for number, name in enumerate(names):
        save_nifti(folder / f"{name}.nii", phantom.ct_hu + number, phantom.affine)
    ran = prepare(folder)
    cases = ran.cases()
    assert len(cases) == len(names) and {case["patient_id"] for case in cases.values()} == set(names)
    for name, label in ran.labels().items():
        number = names.index(cases[name]["patient_id"])
        assert np.abs(label - phantom.ct_hu - number).mean() < 0.6


def test_l02_ascii_terminal(folder: Path) -> None:
    import os
    import subprocess

    (folder / "Jörg.nii.gz").write_bytes(b"")
    arguments = [sys.executable, "-m", "trct_monai", "prepare", "--input", str(folder), "--output", f"{folder}_out"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "J\\xf6rg.nii.gz: damaged NIfTI" in ran.stderr


def test_l03_an_input_that_is_a_file_or_an_archive(folder: Path, phantom: Phantom) -> None:
    save_nifti(folder / "a.nii", phantom.ct_hu, phantom.affine)
    ran = run("prepare", folder, input=folder / "a.nii", output=folder.parent / "out")
    assert ran.code == 2 and "a.nii: expected a folder, got a file" in ran.error
    shutil.make_archive(str(folder / "cts"), "zip", folder, "a.nii")
    (folder / "a.nii").unlink()
    ran = prepare(folder)
    assert ran.code == 2 and "cts.zip is an archive; unpack it" in ran.error
