"""Folders as people have them: every CT becomes its own case, of its own patient, or is named."""

from pathlib import Path

import pytest

from tests.field.inputs import prepare, run
from tests.files import save_nifti, touch_all
from trct_monai.datasets.patients import PLACEHOLDERS
from trct_monai.datasets.sources import find_sources, safe_name
from trct_monai.phantoms import Phantom


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def patients_of(folder: Path, names: list[str], patients: str = "auto") -> dict[str, str]:
    """The patient of each file by its path; the files are empty."""
    touch_all(folder, names)
    found = find_sources(folder, patients=patients)
    assert not found.refused
    return {source.path.relative_to(folder).as_posix(): source.patient_id for source in found.sources}


def test_f13_nnunet_layout(folder: Path) -> None:
    names = [f"imagesTr/lung_{number:03d}_0000.nii.gz" for number in range(4)]
    names += ["imagesTs/lung_004_0000.nii.gz"]
    assert patients_of(folder, names) == {name: Path(name).name.removesuffix("_0000.nii.gz") for name in names}


@pytest.mark.parametrize("group", ["subset0", "train", "val", "Patients", "cts", "fold_3", "set 2", "test/images"])
def test_folders_of_many_patients_are_no_patients(folder: Path, group: str) -> None:
    names = [f"{group}/a.mhd", f"{group}/b.mhd", f"{group}/c/ct.nii", f"{group}/c/later.nii"]
    assert list(patients_of(folder, names).values()) == ["a", "b", "c", "c"] or group == "test/images"
    assert patients_of(folder, names)[names[2]] == "c"


def test_a_folder_of_a_person_keeps_its_cts_together_and_says_so(folder: Path, phantom: Phantom) -> None:
    for name in ("anna/before", "anna/after", "berta/before"):
        save_nifti(folder / f"{name}.nii", phantom.ct_hu + len(name), phantom.affine)
    ran = prepare(folder)
    assert "patients with several CTs, which stay together: anna (2)" in ran.text
    assert {case["patient_id"] for case in ran.cases().values()} == {"anna", "berta"}


def test_all_of_one_patient_is_said_and_can_be_told_apart(folder: Path, phantom: Phantom) -> None:
    for name in "abc":
        save_nifti(folder / "Smith collection" / f"{name}.nii", phantom.ct_hu + ord(name), phantom.affine)
    ran = prepare(folder)
    assert "all 3 CTs count as one patient's, Smith collection" in ran.text and "--patients name" in ran.text
    assert "all cases are of one patient" in ran.text and "it fills as patients are added" not in ran.text
    assert {case["patient_id"] for case in prepare(folder, patients="name").cases().values()} == set("abc")
    table = folder.parent / "patients.csv"
    for text in (
        "path,patient_id\nSmith collection/a.nii,x\nSmith collection,y\n",
        f"Patient_ID; Path\nx;{folder}/Smith collection/a.nii\n y ;Smith collection\n;\n",
    ):
        table.write_text(text, encoding="utf-8")
        cases = prepare(folder, patients=table).cases()
        assert {name[-1]: case["patient_id"] for name, case in cases.items()} == {"a": "x", "b": "y", "c": "y"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,name\na.nii,x\n", "line 2 must have the columns path and patient_id"),
        ("path,patient_id\nb.nii,x\n", "b.nii is not there"),
        ("path,patient_id\nother,x\n", "does not name it, nor a folder above it"),
        ("", "it names nobody"),
        ("path,patient_id\na.nii,x\na.nii,y\n", "a.nii is x's and y's"),
        (None, "patients must be auto, name or a CSV file"),
    ],
)
def test_a_table_of_patients_that_is_none_is_refused(folder: Path, text: str | None, message: str) -> None:
    (folder / "a.nii").touch()
    (folder / "other").mkdir()
    table = folder.parent / "patients.csv"
    if text is not None:
        table.write_text(text, encoding="utf-8")
    ran = prepare(folder, patients=table)
    assert ran.code == 2 and message in ran.error


def test_anonymous_ids_name_nobody() -> None:
    anonymous = ["ANONYMOUS", "anonymized", "Anonymous^Patient", "DEIDENTIFIED", "XXXX", "000", "unknown", "N/A", " "]
    assert all(PLACEHOLDERS.fullmatch(name) for name in anonymous)
    people = ["LIDC-IDRI-0001", "p1", "patient", "Anna", "10", "NoName7", "x1"]
    assert not any(PLACEHOLDERS.fullmatch(name) for name in people)


def test_two_names_never_collide() -> None:
    names = ["Jörg", "Jürg", "J_rg", "张伟", "张炜", "a/b", "a|b", "a:b", "***", "???", "x" * 200, "x" * 201, "é" * 150]
    assert len({safe_name(name) for name in names}) == len(names)
    assert all(len(safe_name(name).encode()) < 140 and "/" not in safe_name(name) for name in names)
    assert safe_name("Jo\u0308rg") == safe_name("J\u00f6rg") == "J\u00f6rg"  # one name, written in two ways
    assert safe_name("..") == safe_name("../..") == "case"


def test_people_of_bids_have_several_sessions(folder: Path) -> None:
    names = ["sub-01_ses-1_ct.nii.gz", "sub-01_ses-2_ct.nii.gz", "sub-02_ct.nii.gz"]
    assert list(patients_of(folder, names).values()) == ["sub-01", "sub-01", "sub-02"]


def test_masks_and_pictures_that_are_not_used_are_named(folder: Path) -> None:
    masks = ["seg-lungs-LUNA16/a.nii", "p/p_label.nii", "p/GTV-1.nii", "p/lungs.seg.nii"]
    touch_all(folder, ["subset0/a.nii", "p/p.nii", "p/p-pa.png", *masks])
    found = find_sources(folder)
    assert [source.path.name for source in found.sources] == ["p.nii", "a.nii"]
    reasons = {path.name: reason for path, reason in found.skipped}
    assert reasons.pop("p").startswith("1 pictures without the name of a CT and a view, such as p-pa.png")
    assert set(reasons) == {"seg-lungs-LUNA16", "p_label.nii", "GTV-1.nii", "lungs.seg.nii"}


def test_links_are_followed_once(folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    (elsewhere / "p1").mkdir(parents=True)
    (elsewhere / "p1" / "ct.nii").touch()
    (elsewhere / "p1" / "up").symlink_to(elsewhere)
    (folder / "linked").symlink_to(elsewhere, target_is_directory=True)
    (folder / "flat.nii").symlink_to(elsewhere / "p1" / "ct.nii")
    assert sorted(patients_of(folder, [])) == ["flat.nii", "linked/p1/ct.nii"]


def test_f15_totalsegmentator(folder: Path, phantom: Phantom) -> None:
    for number in range(2):
        save_nifti(folder / f"s000{number}" / "ct.nii.gz", phantom.ct_hu + number, phantom.affine)
        for organ in ("liver", "aorta", "rib_left_1"):
            save_nifti(
                folder / f"s000{number}" / "segmentations" / f"{organ}.nii.gz", phantom.ct_hu * 0, phantom.affine
            )
    ran = prepare(folder)
    assert {case["patient_id"] for case in ran.cases().values()} == {"s0000", "s0001"}
    assert ran.text.count("segmentations: 3 masks by the folder's name") == 2


def test_i23_lists(folder: Path, phantom: Phantom) -> None:
    for name in ("a", "b", "c"):
        save_nifti(folder / f"{name}.nii", phantom.ct_hu + ord(name), phantom.affine)
    output = prepare(folder).output
    before = (output / "datalist.json").read_bytes()
    train, test = folder.parent / "train.txt", folder.parent / "test.txt"

    def split(first: str, second: str = "c\n", encoding: str = "utf-8"):  # type: ignore[no-untyped-def]
        train.write_text(first, encoding=encoding)
        test.write_text(second, encoding="utf-8")
        return run("split", output, data=output, by="lists", train_list=train, test_list=test, fractions="1/0/1")

    for text, message in (
        ("age,sex\n1,m\n", "train.txt: expected one name on each line, or a column patient_id or case_id"),
        ("phantom_1\nphantom_2\n", "none of the 2 names of the training list, such as 'phantom_1'"),
    ):
        ran = split(text)
        assert ran.code == 2 and message in ran.error and (output / "datalist.json").read_bytes() == before
    ran = split("a\nb\n", encoding="utf-16")
    assert ran.code == 2 and "train.txt: not text in UTF-8" in ran.error
    for text in ("patient_id,age\na,3\nb,4\n", "a.nii.gz\nb.nii\n", "x/a\nb\n", "\ufeffa\nb\n"):
        assert split(text).code == 0
        assert {case["case_id"] for case in run("check", output, datalist=output / "datalist.json",
                num_pictures=0).cases().values()} == {"a", "b", "c"}  # fmt: skip
    ran = split("a\nb\nd\n")
    assert "1 names of the training list have no prepared case: d" in ran.text


def test_i23_fractions(folder: Path, phantom: Phantom) -> None:
    save_nifti(folder / "a.nii", phantom.ct_hu, phantom.affine)
    assert prepare(folder, fractions="0.8,0.1,0.1").code == 0
    for fractions in ("nan/1/1", "1/1", "inf/0/0", "x"):
        ran = prepare(folder, fractions=fractions)
        assert ran.code == 2 and "fractions must be three numbers separated by /" in ran.error
