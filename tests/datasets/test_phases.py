"""Pairs of a time average and phase 0: what is paired, refused, prepared and read slice by slice."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tests.files import save_series
from trct_monai.datasets.check import check
from trct_monai.datasets.phase_slices import PhaseSlices, load_phases
from trct_monai.datasets.phases import find_cts
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.split import split
from trct_monai.io.datalist import load_datalist

SHAPE = (17, 14, 11)


def thorax(seed: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Something in HU with air and soft tissue."""
    volume = np.full(shape, -1000.0, dtype=np.float32)
    volume[3:-3, 3:-3] = 40.0
    return volume + np.random.default_rng(seed).integers(-20, 20, shape).astype(np.float32)


def save(path: Path, volume: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(volume.astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    nibabel.save(image, path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pairs for training and one for test; beside them one truncated, one mismatched and one 4-D file."""
    root = tmp_path / "pairs"
    for number, name in enumerate(("anna", "bert", "cleo", "long", "torn", "wide")):
        for side in "AB":
            save(root / f"train{side}" / f"{name}.nii.gz", thorax(2 * number + (side == "B")))
    save(root / "testA" / "dora.nii", thorax(20))
    save(root / "testB" / "dora.nii", thorax(21))
    torn = root / "trainA" / "torn.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-40])
    save(root / "trainB" / "wide.nii.gz", thorax(3, (17, 14, 12)))
    save(root / "trainA" / "long.nii.gz", np.stack([thorax(4), thorax(5)], axis=-1))
    return root


def test_the_rest_is_prepared_if_so_many_may_be_skipped(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 of 7 pairs refused, more than --max_skipped 0.05"):
        prepare(str(folder), str(tmp_path / "cases"), num_workers=0)
    assert not (tmp_path / "cases" / "datalist.json").exists()
    prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=0.5, seed=1)
    content = json.loads((tmp_path / "cases" / "datalist.json").read_text(encoding="utf-8"))
    assert [case["case_id"] for case in content["test"]] == ["dora"]
    assert sorted(case["case_id"] for case in content["training"] + content["validation"]) == ["anna", "bert", "cleo"]


def test_refusals_name_the_file_and_the_error(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "trainA" / "lonely.nii").write_bytes((folder / "testA" / "dora.nii").read_bytes())
    (folder / "trainB" / "notes.txt").write_text("no CT", encoding="utf-8")
    prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=1.0)
    captured = capsys.readouterr()
    text = captured.out + captured.err
    for part in (
        "torn.nii.gz: damaged NIfTI",
        "have different shapes, (17, 14, 11) and (17, 14, 12)",
        "long.nii.gz: a CT has three dimensions, got shape (17, 14, 11, 2)",
        "lonely.nii: trainB has no CT of this name",
    ):
        assert part in text, part
    assert "4 refused" in text


def test_a_pair_on_different_grids_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = np.diag([2.0, 2.0, 3.0, 1.0])
    moved[0, 3] = 5.0
    save(tmp_path / "pairs" / "trainA" / "a.nii", thorax(0))
    save(tmp_path / "pairs" / "trainB" / "a.nii", thorax(1), moved)
    with pytest.raises(ValueError, match="1 of 1 pairs refused"):
        prepare(str(tmp_path / "pairs"), str(tmp_path / "cases"), num_workers=0)
    captured = capsys.readouterr()
    assert "are 5.0 mm apart; register them" in captured.out + captured.err


def test_pairs_may_be_stored_in_different_axes(tmp_path: Path) -> None:
    """The same grid as RAS and as LAS is one grid."""
    volume = thorax(0)
    mirrored = np.diag([-2.0, 2.0, 3.0, 1.0])
    mirrored[0, 3] = 2.0 * (SHAPE[0] - 1)
    save(tmp_path / "pairs" / "trainA" / "a.nii", volume)
    save(tmp_path / "pairs" / "trainB" / "a.nii", volume[::-1], mirrored)
    prepare(str(tmp_path / "pairs"), str(tmp_path / "cases"), num_workers=0, fractions="1/0/0")
    (case,) = load_phases(tmp_path / "cases" / "datalist.json", "training")
    average, phase = (nibabel.load(case[key]) for key in ("image", "label"))
    np.testing.assert_array_equal(average.get_fdata(), phase.get_fdata())
    np.testing.assert_allclose(average.affine, phase.affine, atol=1e-6)


def test_pairs_without_a_source_leave_the_datalist(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=1.0)
    for side in "AB":
        (folder / f"train{side}" / "anna.nii.gz").unlink()
    damaged = folder / "trainA" / "bert.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=1.0)
    assert "left out of the datalist: anna, bert" in capsys.readouterr().out
    content = json.loads((tmp_path / "cases" / "datalist.json").read_text(encoding="utf-8"))
    assert [case["case_id"] for case in content["training"] + content["validation"]] == ["cleo"]


def test_sections_are_those_of_the_folders(folder: Path, tmp_path: Path) -> None:
    prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=1.0)
    with pytest.raises(ValueError, match="their folders give the sections"):
        split(str(tmp_path / "cases"))


def test_a_share_is_needed_for_training_or_validation(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of them must be above 0, such as 0.8/0.2/0, got 0/0/1"):
        prepare(str(folder), str(tmp_path / "cases"), num_workers=0, fractions="0/0/1")
    assert not (tmp_path / "cases").exists()


def test_one_name_in_two_sections_is_refused(folder: Path, tmp_path: Path) -> None:
    for side in "AB":
        save(folder / f"test{side}" / "anna.nii", thorax(30))
    with pytest.raises(ValueError, match="the name anna is in two sections"):
        prepare(str(folder), str(tmp_path / "cases"), num_workers=0)


def test_slices_are_those_of_the_files_with_their_neighbours(tmp_path: Path) -> None:
    """In RAS order, whatever the order of the file; beyond the ends the last slice again."""
    left_inferior = np.diag([-2.0, 2.0, -3.0, 1.0])
    average, phase = thorax(0), thorax(1)
    for side, volume in (("A", average), ("B", phase)):
        save(tmp_path / "pairs" / f"train{side}" / "a.nii.gz", volume, left_inferior)
    prepare(str(tmp_path / "pairs"), str(tmp_path / "cases"), num_workers=0, fractions="1/0/0")
    slices = PhaseSlices(load_phases(tmp_path / "cases" / "datalist.json", "training"), 3, (-1000.0, 1000.0))
    assert len(slices) == SHAPE[2]
    upright = [torch.from_numpy((v[::-1, :, ::-1] + 1000) / 2000).clamp(0, 1) for v in (average, phase)]
    for z in range(SHAPE[2]):
        item = slices[z]
        around = [max(z - 1, 0), z, min(z + 1, SHAPE[2] - 1)]
        torch.testing.assert_close(item["image"], upright[0][..., around].movedim(-1, 0), atol=1e-6, rtol=0)
        torch.testing.assert_close(item["label"], upright[1][..., z][None], atol=1e-6, rtol=0)


def test_a_prepared_file_is_read_lazily(folder: Path, tmp_path: Path) -> None:
    prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=1.0, fractions="1/0/0")
    case = load_phases(tmp_path / "cases" / "datalist.json", "training")[0]
    assert isinstance(np.asanyarray(nibabel.load(case["image"]).dataobj), np.memmap)


def test_the_run_goes_on_and_check_agrees(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        prepare(str(folder), str(tmp_path / "cases"), num_workers=0, max_skipped=1.0)
    assert "4 of 7 pairs are done already" in capsys.readouterr().out
    check(str(tmp_path / "cases" / "datalist.json"))
    assert "0 problems" in capsys.readouterr().out
    broken = tmp_path / "cases" / "anna" / "anna_phase.nii"
    content = bytearray(broken.read_bytes())
    content[-2] ^= 1
    broken.write_bytes(content)
    with pytest.raises(ValueError, match="2 problems"):
        check(str(tmp_path / "cases" / "datalist.json"))


def test_a_folder_may_hold_dicom_series(tmp_path: Path) -> None:
    volume = thorax(0).astype(np.int16)
    save_series(tmp_path / "trainA" / "anna", volume, np.diag([2.0, 2.0, 3.0, 1.0]))
    found, refused = find_cts(tmp_path / "trainA")
    assert list(found) == ["anna"] and found["anna"].format == "DICOM" and not refused
    assert found["anna"].patient_id == "patient"  # the DICOM PatientID, not the folder


def test_a_folder_may_be_a_patient(tmp_path: Path) -> None:
    save(tmp_path / "trainA" / "anna" / "average.nii.gz", thorax(0))
    for name in ("one", "two"):
        save(tmp_path / "trainA" / "bert" / f"{name}.nii.gz", thorax(0))
    found, refused = find_cts(tmp_path / "trainA")
    assert list(found) == ["anna"] and found["anna"].files[0].name == "average.nii.gz"
    assert len(refused) == 1 and "must hold one DICOM series or one CT, this has 0 and 2" in refused[0]


def test_other_datalists_are_refused(phantoms: Path) -> None:
    with pytest.raises(ValueError, match="holds CTs with radiographs, expected pairs of phases; for pairs run prepare"):
        load_phases(phantoms, "training")
    with pytest.raises(ValueError, match="num_slices must be odd and positive, got 2"):
        PhaseSlices([], 2)


def test_a_bundle_of_radiographs_refuses_pairs(phase_pairs: Path) -> None:
    with pytest.raises(
        ValueError, match="holds pairs of phases, expected CTs with radiographs; pairs are for evaluate"
    ):
        load_datalist(phase_pairs, "test", "x2ct")
