import json
from pathlib import Path

import pytest
from monai.data import load_decathlon_datalist

from trct_monai.io.datalist import PHASES, RADIOGRAPHS, load_datalist, read_datalist, save_datalist


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "data" / "a"
    folder.mkdir(parents=True)
    for name in ("a.nii.gz", "a_pa.png", "a_mask_nodule.nii.gz"):
        (folder / name).touch()
    return {
        "case_id": "a",
        "label": str(folder / "a.nii.gz"),
        "image": [str(folder / "a_pa.png")],
        "masks": {"nodule": str(folder / "a_mask_nodule.nii.gz")},
    }


def test_round_trip_keeps_cases_and_stores_relative_paths(tmp_path, case):
    path = tmp_path / "data" / "datalist.json"
    save_datalist(path, {"training": [case], "test": []}, {"name": "x", "extent": 320.0})
    content = read_datalist(path)
    assert content["training"][0]["label"] == "a/a.nii.gz" and content["training"][0]["image"] == ["a/a_pa.png"]
    assert content["name"] == "x" and content["num_cases"] == {"training": 1, "validation": 0, "test": 0}
    assert load_datalist(path, "training") == [case] and load_datalist(path, "validation") == []
    assert [file.name for file in path.parent.iterdir() if "partial" in file.name] == []


def test_a_moved_data_set_is_found_again(tmp_path, case):
    save_datalist(tmp_path / "data" / "datalist.json", {"training": [case]}, {})
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    loaded = load_datalist(tmp_path / "elsewhere" / "datalist.json", "training")[0]
    assert loaded["label"] == str(tmp_path / "elsewhere" / "a" / "a.nii.gz")


def test_monai_reads_it_too(tmp_path, case):
    path = tmp_path / "data" / "datalist.json"
    save_datalist(path, {"training": [case]}, {})
    assert load_decathlon_datalist(str(path), data_list_key="training")[0]["label"] == case["label"]


def test_errors_are_one_line_that_names_the_file(tmp_path, case):
    path = tmp_path / "data" / "datalist.json"
    with pytest.raises(FileNotFoundError, match="datalist.json: no such datalist"):
        load_datalist(path, "training")
    with pytest.raises(ValueError, match="sections training, validation, test, got train"):
        save_datalist(path, {"train": [case]}, {})
    save_datalist(path, {"training": [case]}, {})
    with pytest.raises(ValueError, match="no section 'train'; it has training, validation, test"):
        load_datalist(path, "train")
    (tmp_path / "data" / "a" / "a_pa.png").unlink()
    with pytest.raises(FileNotFoundError, match="a_pa.png: missing file of case a"):
        load_datalist(path, "training")
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(content | {"format_version": 9}), encoding="utf-8")
    with pytest.raises(ValueError, match="version 9 cannot be read"):
        read_datalist(path)
    path.write_text(json.dumps(content | {"task": "segmentation"}), encoding="utf-8")
    with pytest.raises(ValueError, match="the task must be radiographs or phases, got 'segmentation'"):
        read_datalist(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="not JSON"):
        read_datalist(path)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="a datalist has the sections"):
        read_datalist(path)


def test_cases_of_another_geometry_are_refused(phantoms):
    assert load_datalist(phantoms, "test", "x2ct")
    with pytest.raises(ValueError, match="2 views that are not those of geometry 'clinic'; prepare the data with"):
        load_datalist(phantoms, "test", "clinic")
    assert load_datalist(phantoms, "test", "x2ct", 320.0)
    with pytest.raises(ValueError, match="its cubes are 320.0 mm wide .* prepare the data with --extent 400"):
        load_datalist(phantoms, "test", "x2ct", 400.0)
    with pytest.raises(ValueError, match="2 views that are not those of geometry 'circle-4'"):
        load_datalist(phantoms, "test", "circle-4")


def test_some_views_of_a_case_are_a_case_of_those_views(phantoms: Path) -> None:
    whole = load_datalist(phantoms, "test")[0]
    frontal = load_datalist(phantoms, "test", near="circle-1", views=[0])[0]
    for field in ("image", "views", "cameras", "orientation", "intensity"):
        assert frontal[field] == whole[field][:1], field
    assert frontal["label"] == whole["label"]
    swapped = load_datalist(phantoms, "test", views=[1, 0])[0]
    assert swapped["image"] == whole["image"][::-1] and swapped["cameras"] == whole["cameras"][::-1]
    with pytest.raises(ValueError, match="has 2 views that are not taken from the 1 sides of geometry 'circle-1'"):
        load_datalist(phantoms, "test", near="circle-1")
    with pytest.raises(ValueError, match="has 1 views that are not taken from the 1 sides"):
        load_datalist(phantoms, "test", near="circle-1", views=[1])
    for wrong in ([2], [-1], []):
        with pytest.raises(ValueError, match=r"has 2 views, which are counted from 0; \["):
            load_datalist(phantoms, "test", views=wrong)


def test_a_network_needs_a_case(tmp_path, case):
    path = tmp_path / "data" / "datalist.json"
    save_datalist(path, {"training": [case], "test": []}, {})
    assert load_datalist(path, "test") == []
    with pytest.raises(ValueError, match="section 'test' has no case; split the data so that it has"):
        load_datalist(path, "test", "x2ct")


def test_a_datalist_of_another_task_is_refused(phantoms: Path, phase_pairs: Path) -> None:
    assert load_datalist(phantoms, "test", task=RADIOGRAPHS) and load_datalist(phase_pairs, "test", task=PHASES)
    for path, task, message in (
        (phase_pairs, RADIOGRAPHS, "holds pairs of phases, expected CTs with radiographs; pairs are for evaluate and"),
        (phantoms, PHASES, "holds CTs with radiographs, expected pairs of phases; for pairs run prepare on a folder"),
    ):
        for read in (lambda: load_datalist(path, "test", task=task), lambda: read_datalist(path, task)):  # noqa: B023
            with pytest.raises(ValueError, match=message):
                read()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda case: case.pop("case_id"), "case 1 of test has no 'case_id'"),
        (lambda case: case.pop("intensity"), r"case 1 of test \(phantom_000009\) has no 'intensity'; prepare writes"),
        (lambda case: case["views"].pop(), r"\(phantom_000009\) has 1 views for 2 radiographs"),
        (lambda case: case.update(label=3), "'label' must be the name of a file"),
    ],
    ids=["no name", "no field", "one view too few", "no file name"],
)
def test_a_case_that_breaks_the_contract_is_refused_in_one_line(phantoms, tmp_path, change, message):
    content = read_datalist(phantoms)
    change(content["test"][0])
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_datalist(path, "test", fields=("image", "intensity"))
