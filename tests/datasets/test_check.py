import json
import shutil

import nibabel
import numpy as np
import pytest
from PIL import Image

from trct_monai.datasets.check import check


@pytest.fixture
def datalist(phantoms, tmp_path):
    shutil.copytree(phantoms.parent, tmp_path / "data")
    return tmp_path / "data" / "datalist.json"


def change(datalist, function):
    content = json.loads(datalist.read_text(encoding="utf-8"))
    function(content)
    datalist.write_text(json.dumps(content), encoding="utf-8")


def test_a_sound_data_set_passes_and_is_drawn(datalist, tmp_path, capsys):
    check(str(datalist), num_pictures=2)
    printed = capsys.readouterr().out
    assert "11 cases (6 training, 3 validation, 2 test), 0 problems" in printed and "pa identity" in printed
    with Image.open(datalist.parent / "datalist_check.png") as picture:
        assert picture.size[0] > 500
    check(str(datalist), picture=str(tmp_path / "other.png"), num_pictures=1)
    assert (tmp_path / "other.png").is_file()


def test_changed_and_missing_files_are_named(datalist):
    case = datalist.parent / "phantom_000000"
    side_car = json.loads((case / "phantom_000000_pa_drr.json").read_text(encoding="utf-8"))
    (case / "phantom_000000_pa_drr.json").write_text(
        json.dumps(side_car | {"scale": side_car["scale"] * 2}), encoding="utf-8"
    )
    with pytest.raises(ValueError, match=r"1 problems, the first: .*pa_drr.json is not the file that was written"):
        check(str(datalist))
    (datalist.parent / "phantom_000003" / "phantom_000003_lat_drr.png").unlink()
    with pytest.raises(ValueError, match="problems"):
        check(str(datalist))


def test_a_flipped_radiograph_is_found(datalist, capsys):
    path = datalist.parent / "phantom_000001" / "phantom_000001_pa_drr.png"
    with Image.open(path) as picture:
        flipped = np.asarray(picture)[::-1]
    Image.fromarray(np.ascontiguousarray(flipped)).save(path)
    side_car = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    del side_car["pixels_sha256"]  # as of a picture from elsewhere; else the side-car tells that it was changed
    path.with_suffix(".json").write_text(json.dumps(side_car), encoding="utf-8")
    change(datalist, lambda content: [case.update(sha256={}) for case in content["training"]])
    with pytest.raises(ValueError, match="fits best as flip_rows, the datalist says identity"):
        check(str(datalist))


@pytest.mark.slow
def test_wrong_labels_are_found(datalist, capsys):
    path = datalist.parent / "phantom_000000" / "phantom_000000.nii.gz"
    image = nibabel.load(path)
    hu = np.asarray(image.dataobj)
    for numbers, affine, message in (
        (hu, image.affine @ np.diag([1, 1, 2, 1]), "affine that is not RAS"),
        (hu[:, :, :-1], image.affine, "shape"),
        (hu + 1024, image.affine, "no CT in HU"),
        (hu + 1, image.affine, "does not hold the voxels that were written"),
    ):
        nibabel.save(nibabel.Nifti1Image(numbers, affine), path)
        with pytest.raises(ValueError, match="problems"):
            check(str(datalist))
        assert message in capsys.readouterr().out


def test_leaks_are_found(datalist, capsys):
    change(datalist, lambda content: content["test"].append(content["training"][0]))
    with pytest.raises(ValueError, match="leak: patient phantom_000000 in training .* and test"):
        check(str(datalist))


def test_an_empty_datalist_is_refused(datalist):
    change(datalist, lambda content: content.update(training=[], validation=[], test=[]))
    with pytest.raises(ValueError, match="no case in any section"):
        check(str(datalist))


def test_a_case_without_a_field_is_a_problem_in_words(datalist):
    change(datalist, lambda content: content["test"][0].pop("orientation"))
    with pytest.raises(ValueError, match=r"entry \(phantom_000009\) has no 'orientation'"):
        check(str(datalist))
