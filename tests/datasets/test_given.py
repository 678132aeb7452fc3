"""Radiographs that come with a CT: what is kept, measured and refused."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.small import SMALL, as_8_bit, cube_of, one_case, save_layout_2
from tests.files import save_dx, save_nifti
from trct_monai.datasets.check import check
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.prepare_case import Options, make_case
from trct_monai.datasets.sources import find_sources
from trct_monai.datasets.split import split
from trct_monai.geometry import Camera, preset
from trct_monai.intensity import STORED_HU
from trct_monai.io.ct import read_ct
from trct_monai.io.dicom.series import find_series
from trct_monai.io.radiograph import save_radiograph
from trct_monai.projector import project_hu
from trct_monai.transforms import LoadRadiographsd

h5py = pytest.importorskip("h5py")

STATED = {**SMALL, "geometry": "x2ct"}
"""Where the pictures' geometry is stated; `test_measured` is about those that are measured."""


@pytest.mark.parametrize(
    "names", [("_pa_drr.png", "_lat_drr.png"), ("_frontal.png", "_lateral.png"), ("_pa.png", "_lat.png")]
)
def test_radiographs_beside_a_ct_are_kept_and_their_orientation_is_measured(tmp_path, phantom, names):
    pa, lat = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)
    save_layout_2(tmp_path / "in", phantom, {names[0]: as_8_bit(pa.flip(1)), names[1]: as_8_bit(lat.flip(0))})
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **STATED)
    case = one_case(tmp_path / "out")
    assert [view["transform"] for view in case["orientation"]] == ["flip_columns", "flip_rows"]
    assert not any(view["quantitative"] for view in case["intensity"])
    given = next((tmp_path / "in" / "p1").glob(f"*{names[0]}"))
    assert Path(case["image"][0]).read_bytes() == given.read_bytes()
    image = LoadRadiographsd()(case)["image"]
    assert (image - torch.stack([pa, lat])).abs().max() < 0.05 * pa.max()
    check(str(tmp_path / "out" / "datalist.json"))


def test_dicom_radiographs_beside_a_ct_are_kept_and_its_cube_becomes_a_series(tmp_path, phantom):
    images = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)
    save_layout_2(tmp_path / "in", phantom, {})
    for view, image, lies in zip(("pa", "lat"), images, ("R\\F", "P\\F")):
        pixels = (image / image.max() * 4000).round().numpy().astype(np.uint16)
        pixels = pixels[:, ::-1] if lies == "R\\F" else pixels
        save_dx(tmp_path / "in" / "p1" / f"p1_{view}.dcm", pixels, pixel_spacing=(15.625, 15.625), t0020_0020=lies)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), dicom=True, **STATED)
    case = one_case(tmp_path / "out")
    assert [view["transform"] for view in case["orientation"]] == ["identity", "identity"]
    assert (LoadRadiographsd()(case)["image"] - images).abs().max() < 0.05 * images.max()
    (series,) = find_series(tmp_path / "out" / "p1" / "p1_dicom", 8)
    ct = read_ct(tmp_path, series.files)
    label = nibabel.load(case["label"])
    np.testing.assert_array_equal(ct.ct_hu[0].numpy(), np.asarray(label.dataobj).round())
    assert series.patient_id == case["patient_id"]


def cameras_of(size, pixel_spacing):
    return [camera.for_picture(size, pixel_spacing) for camera in preset("x2ct")]


def save_pictures(folder, phantom, cameras, ending, turned=False):
    """A CT with radiographs of these views, in PNG of 8 bits or in DICOM; turned by 90 degrees their pixels are too."""
    save_layout_2(folder, phantom, {})
    for camera, image in zip(cameras, project_hu(cube_of(phantom), cameras, 8.0)):
        path, picture = folder / "p1" / f"p1_{camera.name}{ending}", np.rot90(as_8_bit(image), -1 if turned else 0)
        if ending == ".dcm":
            save_dx(path, picture.astype(np.uint16), pixel_spacing=camera.pixel_spacing[:: -1 if turned else 1])
        else:
            Image.fromarray(picture).save(path)


@pytest.mark.parametrize(
    ("ending", "pixel_spacing"), [(".png", (2.0, 2.0)), (".dcm", (2.0, 2.0)), (".dcm", (2.0, 1.8))]
)
def test_oblong_pictures_keep_the_shape_of_their_pixels(tmp_path, phantom, ending, pixel_spacing):
    """250 x 200 pixels: without a header they are square, and the longer side fills the detector of 500 mm."""
    save_pictures(tmp_path / "in", phantom, cameras_of((250, 200), pixel_spacing), ending)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**STATED, "size": 40})
    case = one_case(tmp_path / "out")
    cameras = [Camera.from_dict(camera) for camera in case["cameras"]]
    assert [(camera.size, camera.pixel_spacing) for camera in cameras] == [((250, 200), pixel_spacing)] * 2
    assert [view["transform"] for view in case["orientation"]] == ["identity", "identity"]
    assert min(view["correlation"] for view in case["orientation"]) > 0.999


@pytest.mark.parametrize("size", [(250, 200), (200, 200)])
def test_a_picture_stored_turned_has_its_pixels_turned(tmp_path, phantom, size):
    """Pixels of 2.0 x 1.6 mm, stored turned by 90 degrees: 1.6 x 2.0 mm in the file."""
    cameras = cameras_of(size, (2.0, 1.6))
    save_pictures(tmp_path / "in", phantom, cameras, ".dcm", turned=True)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**STATED, "size": 40})
    case = one_case(tmp_path / "out")
    assert [view["transform"] for view in case["orientation"]] == ["rotate_90", "rotate_90"]
    found = [Camera.from_dict(camera) for camera in case["cameras"]]
    assert [(camera.size, camera.pixel_spacing) for camera in found] == [(size, (2.0, 1.6))] * 2
    images = project_hu(cube_of(phantom), cameras, 8.0)
    assert (LoadRadiographsd()(case)["image"] - images).abs().max() < 0.03 * images.max()
    check(str(tmp_path / "out" / "datalist.json"))


def test_float_radiographs_that_fit_are_quantitative(tmp_path, phantom):
    images = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)
    save_layout_2(tmp_path / "in", phantom, {"_pa.npy": images[0].numpy(), "_lat.npy": images[1].numpy()})
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**STATED, "size": 40})
    case = one_case(tmp_path / "out")
    assert all(view["quantitative"] for view in case["intensity"])


def test_a_view_from_the_other_side_gets_its_own_camera(tmp_path, phantom):
    cameras = list(preset("x2ct", 32))
    images = project_hu(cube_of(phantom), [cameras[0], cameras[1].opposite()], 8.0)
    save_layout_2(tmp_path / "in", phantom, {"_pa.npy": images[0].numpy(), "_lat.npy": images[1].numpy()})
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **STATED)
    case = one_case(tmp_path / "out")
    assert [Camera.from_dict(camera).source for camera in case["cameras"]] == [
        cameras[0].source,
        pytest.approx(cameras[1].opposite().source),
    ]
    assert case["orientation"][1]["transform"] == "identity"


def test_prepared_cases_can_be_prepared_again_with_their_radiographs(tmp_path, phantom):
    ct = tmp_path / "ct"
    save_nifti(ct / "LIDC-IDRI-0003.1.nii.gz", phantom.ct_hu, phantom.affine)
    prepare(str(ct), str(tmp_path / "a"), **STATED)
    prepare(str(tmp_path / "a"), str(tmp_path / "b"), **{**STATED, "geometry": "clinic"})
    first, second = one_case(tmp_path / "a"), one_case(tmp_path / "b")
    assert second["voxels"] == first["voxels"] and second["cameras"] == first["cameras"]
    assert second["patient_id"] == "LIDC-IDRI-0003" and second["provenance"]["radiographs"] == "given"
    assert Path(first["image"][0]).read_bytes() == Path(second["image"][0]).read_bytes()


def test_cameras_follow_the_cube_when_the_given_ct_is_larger(tmp_path, phantom):
    wide = np.pad(phantom.ct_hu, ((12, 0), (0, 0), (0, 0)), constant_values=-1000)
    affine = phantom.affine.copy()
    affine[0, 3] -= 12 * 8  # the body stays, the volume's centre moves 48 mm
    cameras = list(preset("x2ct", 32))
    images = project_hu(cube_of(phantom), cameras, 8.0)
    save_layout_2(tmp_path / "in", phantom, {})
    save_nifti(tmp_path / "in" / "p1" / "p1.nii.gz", wide, affine)
    for image, camera in zip(images, cameras):
        save_radiograph(tmp_path / "in" / "p1" / f"p1_{camera.name}_drr.png", image, camera.shifted((48.0, 0.0, 0.0)))
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**STATED, "size": 40})
    case = one_case(tmp_path / "out")
    assert min(view["correlation"] for view in case["orientation"]) > 0.995
    assert Camera.from_dict(case["cameras"][0]).source[0] == pytest.approx(0, abs=8)


def test_a_radiograph_that_fits_nowhere_is_refused_with_a_picture(tmp_path, phantom):
    pa = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)[0]
    noise = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    save_layout_2(tmp_path / "in", phantom, {"_pa.png": as_8_bit(pa), "_lat.png": noise})
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="1 of 1 cases refused"):
        prepare(str(tmp_path / "in"), str(out), **STATED)
    with pytest.raises(ValueError, match="p1_lat.png: no flip or turn fits .* view lat"):
        _first_refusal(tmp_path / "in", out)
    with Image.open(out / "refused" / "p1_lat.png") as picture:
        assert picture.size[0] > 100
    assert not (out / "p1").exists()


def test_a_missing_radiograph_is_refused(tmp_path, phantom):
    pa = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)[0]
    save_layout_2(tmp_path / "in", phantom, {"_pa.png": as_8_bit(pa)})
    with pytest.raises(ValueError, match="p1.nii.gz: no radiograph of the view lat beside it"):
        _first_refusal(tmp_path / "in", tmp_path / "out")


def _first_refusal(folder, out):
    options = Options(16, 320.0, "x2ct", 32, STORED_HU, False, False, False, None, 0.0, 0.7, "SPL")
    make_case(find_sources(folder).sources[0], options, folder, out / "refused", out / "case")


def save_x2ct(folder, phantom, upside_down=False):
    cameras = list(preset("x2ct", 32))
    images = project_hu(cube_of(phantom), cameras, 8.0)
    name = folder / "LIDC-IDRI-0001.20000101.1" / "ct_xray_data.h5"
    name.parent.mkdir(parents=True)
    array = phantom.ct_hu[::-1, ::-1].T + 1024
    with h5py.File(name, "w") as file:
        file["ct"] = array[::-1] if upside_down else array
        file["xray1"], file["xray2"] = as_8_bit(images[0]), as_8_bit(images[1].flip(1))
        file["ori_size"], file["spacing"] = 320, [1.0, 1.0, 1.0]


def test_x2ct_files_become_cases(tmp_path, phantom):
    save_x2ct(tmp_path / "in", phantom)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **STATED)
    case = one_case(tmp_path / "out")
    assert case["patient_id"] == "LIDC-IDRI-0001" and case["provenance"]["stored_value"] == "HU + 1024"
    assert [view["transform"] for view in case["orientation"]] == ["identity", "flip_columns"]
    assert nibabel.load(case["label"]).get_fdata().min() == -1000
    check(str(tmp_path / "out" / "datalist.json"))
    with pytest.raises(ValueError, match="needs --train_list"):
        split(str(tmp_path / "out"), by="lists")


def test_an_array_upside_down_is_refused_with_the_axes_to_try(tmp_path, phantom):
    save_x2ct(tmp_path / "in", phantom, upside_down=True)
    with pytest.raises(ValueError, match="fit upside down.*try --h5_axes IPL"):
        _first_refusal(tmp_path / "in", tmp_path / "out")
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), h5_axes="IPL", **STATED)
