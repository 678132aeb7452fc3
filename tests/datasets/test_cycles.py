"""4-D CTs: which phase each CT is, what makes a cycle, and the pairs that become of it."""

from pathlib import Path

import numpy as np
import pytest

from tests.files import save_nifti, save_series
from trct_monai.datasets.check import check
from trct_monai.datasets.cycles import find_cycles, phase_of
from trct_monai.datasets.phases import ct_source
from trct_monai.datasets.prepare import prepare
from trct_monai.io.ct import read_ct
from trct_monai.io.datalist import load_datalist

SHAPE, AFFINE = (14, 12, 18), np.diag([2.0, 2.0, 3.0, 1.0])


def phase(number: int, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A block that moves along z, and noise."""
    ct = np.full(shape, -1000.0)
    ct[3:-3, 3:-3, 2 + number % 4 : 9] = 40
    return np.round(ct + np.random.default_rng(number).normal(0, 5, shape)).clip(-1024)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("T30", 30),
        ("phase_3", 3),
        ("case1_T50_s", 50),
        ("30", 30),
        ("Gated_40.0%A", 40),
        ("anna 20pct", 20),
        ("p07", 7),
    ],
)
def test_a_name_says_which_phase(name: str, number: int, tmp_path: Path) -> None:
    save_nifti(tmp_path / f"{name}.nii.gz", phase(0), AFFINE)
    assert phase_of(ct_source(tmp_path / f"{name}.nii.gz")) == number


def test_files_of_a_folder_become_a_pair(tmp_path: Path) -> None:
    for patient, names in (("anna", [f"T{10 * i:02d}" for i in range(10)]), ("bert", [f"phase_{i}" for i in range(5)])):
        for number, name in enumerate(names):
            save_nifti(tmp_path / "4d" / patient / f"{name}.nii.gz", phase(number), AFFINE)
    for _ in range(2):  # the second time nothing is left to do
        prepare(str(tmp_path / "4d"), str(tmp_path / "out"), phases=True, num_workers=0, fractions="1/0/0")
    cases = load_datalist(tmp_path / "out" / "datalist.json", "training", task="phases")
    assert [case["patient_id"] for case in cases] == ["anna", "bert"]
    assert list(cases[1]["provenance"]["phases"]) == ["0", "20", "40", "60", "80"]
    for case, count in zip(cases, (10, 5)):
        average, first = (read_ct(path).ct_hu[0].numpy() for path in (case["image"][0], case["label"]))
        np.testing.assert_array_equal(first, phase(0))
        np.testing.assert_allclose(average, np.mean([phase(i) for i in range(count)], axis=0), atol=0.51)
    check(str(tmp_path / "out" / "datalist.json"))


def test_series_of_a_study_become_a_pair(tmp_path: Path) -> None:
    for number in range(10):
        save_series(
            tmp_path / "4d" / "study" / f"series{number}", phase(9 - number), AFFINE, uid=f"1.2.{number}",
            patient_id="carl", description=f"P4^carl, Gated, {10 * (9 - number)}.0%A",
        )  # fmt: skip
    prepare(str(tmp_path / "4d"), str(tmp_path / "out"), phases=True, num_workers=0, fractions="0/0/1")
    (case,) = load_datalist(tmp_path / "out" / "datalist.json", "test")
    assert case["patient_id"] == "carl" and case["case_id"] == "carl"
    np.testing.assert_array_equal(read_ct(case["label"]).ct_hu[0].numpy(), phase(0))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["T00", "T10", "T20", "T40", "T50", "T60", "T70", "T80", "T90"], "30 % missing: an average would stand"),
        (["T00", "T50"], "2 phases are no cycle; at least 4 are"),
        (["T00", "T25", "T50", "average"], "does not say which phase it is; name the files T00, T10"),
        (["T00", "t_0", "T50", "T75"], "phase 0 again"),
    ],
)
def test_what_is_no_whole_cycle_is_refused(names: list[str], message: str, tmp_path: Path) -> None:
    for number, name in enumerate(names):
        save_nifti(tmp_path / "anna" / f"{name}.nii.gz", phase(number), AFFINE)
    cycles, (refused,) = find_cycles(tmp_path)
    assert not cycles and message in refused
    with pytest.raises(ValueError, match="1 of 1 4-D CTs refused"):
        prepare(str(tmp_path), str(tmp_path.with_name("out")), phases=True, num_workers=0)


def test_phases_on_other_grids_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        shape = (14, 12, 17) if number == 2 else SHAPE
        save_nifti(tmp_path / "4d" / "anna" / f"phase_{number}.nii.gz", phase(number, shape), AFFINE)
    with pytest.raises(ValueError, match="refused"):
        prepare(str(tmp_path / "4d"), str(tmp_path / "out"), phases=True, num_workers=0)
    captured = capsys.readouterr()
    assert "have different shapes, (14, 12, 18) and (14, 12, 17)" in captured.out + captured.err


def test_scans_of_one_patient_are_told_apart(tmp_path: Path) -> None:
    for visit in ("2020", "2021"):
        for number in range(4):
            path = tmp_path / "anna" / visit / "4d_ct_phases" / f"phase_{number}.nii.gz"
            save_nifti(path, phase(number), AFFINE)
    cycles, refused = find_cycles(tmp_path)
    assert not refused
    assert [cycle.case_id for cycle in cycles] == ["anna_2020_4d_ct_phases", "anna_2021_4d_ct_phases"]
    assert {cycle.patient_id for cycle in cycles} == {"anna"}
