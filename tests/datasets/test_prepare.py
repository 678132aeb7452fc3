import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from tests.files import save_dx, save_nifti
from trct_monai.datasets.check import check
from trct_monai.datasets.prepare import Options, prepare
from trct_monai.datasets.prepare_case import prepare_case
from trct_monai.datasets.sources import find_sources
from trct_monai.datasets.split import split
from trct_monai.geometry import Camera, preset
from trct_monai.intensity import STORED_HU
from trct_monai.io.ct import read_ct
from trct_monai.io.datalist import load_datalist, read_datalist
from trct_monai.io.dicom.series import find_series
from trct_monai.io.radiograph import save_radiograph
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.projector import project_hu
from trct_monai.transforms import CTPreprocessingd, LoadRadiographsd

SMALL = {"size": 16, "radiograph_size": 32, "num_workers": 0, "fractions": "1/0/0"}

# SWIG's types, made when ITK is loaded.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_case(folder):
    (case,) = load_datalist(folder / "datalist.json", "training")
    return case


def cube_of(phantom, size=40):
    ct = torch.from_numpy(phantom.ct_hu)[None]
    return CTPreprocessing(size).cubes(ct, [size], torch.from_numpy(phantom.affine))[0]


def test_a_folder_of_cts_becomes_cases_and_a_datalist(ct_folder, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    printed = capsys.readouterr().out
    assert "2 CTs in NIfTI (layout 1)" in printed and f"wrote {out / 'datalist.json'}" in printed
    page = read_datalist(out / "datalist.json")
    assert (page["geometry"], page["extent"], page["label_size"]) == ("x2ct", 320.0, 16)
    case = page["training"][0]
    assert case["label"] == "p1/p1.nii.gz" and case["image"] == ["p1/p1_pa_drr.png", "p1/p1_lat_drr.png"]
    assert case["provenance"]["shape"] == [40, 40, 40] and case["provenance"]["path"] == "p1.nii.gz"
    assert set(case["sha256"]) == {path.name for path in (out / "p1").iterdir()} - {"case.json"}
    assert [view["transform"] for view in case["orientation"]] == ["identity"] * 2
    check(str(out / "datalist.json"))

    item = load_datalist(out / "datalist.json", "training")[0]
    image = LoadRadiographsd()(item)["image"]
    assert image.shape == (2, 32, 32) and image.max() > 1
    label = nibabel.load(item["label"])
    assert label.get_data_dtype() == np.int16 and label.shape == (16, 16, 16)


def test_label_on_disk_is_what_the_protocol_gives_from_the_source(ct_folder, tmp_path, phantom):
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    stored = nibabel.load(tmp_path / "out" / "p1" / "p1.nii.gz")
    ct = torch.from_numpy(phantom.ct_hu + 1)[None].float()
    expected = CTPreprocessing(16).cubes(ct, [16], torch.from_numpy(phantom.affine))[0]
    np.testing.assert_allclose(stored.get_fdata(), expected[0].numpy(), atol=0.51)
    np.testing.assert_allclose(stored.affine, expected.affine.numpy(), atol=1e-4)
    item = CTPreprocessingd(keys="label", size=16)(
        {"label": torch.as_tensor(expected)}
    )  # a case goes through the protocol again in training, unchanged
    torch.testing.assert_close(item["label"], CTPreprocessing(16)(ct, torch.from_numpy(phantom.affine)))


def test_what_is_finished_is_not_done_again(ct_folder, tmp_path, phantom, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    (out / "p2" / "p2_pa_drr.png").write_bytes(b"damaged")
    save_nifti(ct_folder / "p3.nii.gz", phantom.ct_hu, phantom.affine)
    (out / ".p3.1.partial").mkdir()
    prepare(str(ct_folder), str(out), **SMALL)
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert "1 of 3 cases are there already" in capsys.readouterr().out
    assert all(after[path] == time_ for path, time_ in before.items() if path.parent.name == "p1")
    assert all(after[path] != time_ for path, time_ in before.items() if path.parent.name == "p2")
    assert (out / "p3").is_dir() and not (out / ".p3.1.partial").exists()
    prepare(str(ct_folder), str(out), **{**SMALL, "size": 8})  # other options make other cases
    assert nibabel.load(out / "p1" / "p1.nii.gz").shape == (8, 8, 8)


def test_shards_make_the_same_files_as_one_run(ct_folder, tmp_path, phantom):
    for number in (3, 4, 5):
        save_nifti(ct_folder / f"p{number}.nii.gz", phantom.ct_hu + number, phantom.affine)
    prepare(str(ct_folder), str(tmp_path / "one"), **SMALL)
    for part in ("1/2", "2/2"):
        prepare(str(ct_folder), str(tmp_path / "many"), shard=part, **SMALL)
    one, many = (files_of(tmp_path / name) for name in ("one", "many"))
    assert {name for name in one if one[name] != many[name]} <= {"datalist.json"} and one.keys() == many.keys()
    pages = [read_datalist(tmp_path / name / "datalist.json") for name in ("one", "many")]
    assert pages[0]["training"] == pages[1]["training"]


def test_a_kill_leaves_no_half_case_and_the_run_goes_on(ct_folder, tmp_path, phantom):
    for number in range(3, 12):
        save_nifti(ct_folder / f"p{number}.nii.gz", phantom.ct_hu + number, phantom.affine)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "trct_monai", "prepare", "--input", str(ct_folder), "--output", str(out)]
    flags = ["--size", "64", "--radiograph_size", "256", "--num_workers", "0", "--fractions", "1/0/0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [*command, *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(out.glob("p*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = list(out.glob("p*"))
    assert 0 < len(done) < 11 and not (out / "datalist.json").exists()
    for folder in done:
        digests = json.loads((folder / "case.json").read_text(encoding="utf-8"))["case"]["sha256"]
        assert set(digests) == {path.name for path in folder.iterdir()} - {"case.json"}
    times = {folder: folder.stat().st_mtime_ns for folder in done}
    prepare(str(ct_folder), str(out), size=64, radiograph_size=256, num_workers=0, fractions="1/0/0")
    assert all(folder.stat().st_mtime_ns == time_ for folder, time_ in times.items())
    assert len(load_datalist(out / "datalist.json", "training")) == 11 and not list(out.glob(".*"))


def test_two_processes_do_what_one_does(ct_folder, tmp_path):
    prepare(str(ct_folder), str(tmp_path / "one"), **SMALL)
    prepare(str(ct_folder), str(tmp_path / "two"), **{**SMALL, "num_workers": 2})
    assert files_of(tmp_path / "one" / "p1") == files_of(tmp_path / "two" / "p1")


def test_refused_cases_are_listed_counted_and_stop_the_run(ct_folder, tmp_path, phantom, capsys):
    save_nifti(ct_folder / "bad.nii.gz", np.full_like(phantom.ct_hu, np.nan), phantom.affine)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="1 of 3 cases refused, more than --max_skipped 0.05"):
        prepare(str(ct_folder), str(out), **SMALL)
    assert "bad.nii.gz: holds values that are not finite" in "".join(capsys.readouterr())
    assert (out / "p1").is_dir() and not (out / "datalist.json").exists()
    prepare(str(ct_folder), str(out), max_skipped=0.5, **SMALL)
    assert len(load_datalist(out / "datalist.json", "training")) == 2


def test_wrong_arguments_are_refused_before_anything_is_written(ct_folder, tmp_path):
    out = str(tmp_path / "out")
    for arguments, message in (
        ({"geometry": "cone"}, "geometry must be one of"),
        ({"shard": "0/2"}, "shard must be i/n"),
        ({"size": 2}, "at least 8"),
        ({"hu_window": "100,0"}, "hu_window must be"),
        ({"fractions": "1"}, "fractions must be three numbers separated by /, such as 0.7/0.15/0.15, got '1'"),
    ):
        with pytest.raises(ValueError, match=message):
            prepare(str(ct_folder), out, **{**SMALL, **arguments})
    with pytest.raises(FileNotFoundError, match="no such folder"):
        prepare(str(tmp_path / "gone"), out)
    with pytest.raises(ValueError, match="must not lie in input"):
        prepare(str(ct_folder), str(ct_folder / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no CT found"):
        prepare(str(tmp_path / "empty"), out)
    assert not Path(out).exists()


def test_options_of_rendering_change_what_they_say(ct_folder, tmp_path):
    (ct_folder / "p2.nii.gz").unlink()
    prepare(str(ct_folder), str(tmp_path / "a"), views=3, nifti=True, hu_window="-1000,500", **SMALL)
    case = one_case(tmp_path / "a")
    assert case["views"] == ["view0", "view1", "view2"]
    image = LoadRadiographsd()(case)["image"]
    as_nifti = [path.replace(".png", ".nii.gz") for path in case["image"]]
    torch.testing.assert_close(LoadRadiographsd()({"image": as_nifti})["image"], image, atol=1e-3, rtol=0)
    assert nibabel.load(case["label"]).get_fdata().max() <= 500
    prepare(str(ct_folder), str(tmp_path / "b"), views=3, photons=1e3, **SMALL)
    noisy = LoadRadiographsd()(one_case(tmp_path / "b"))["image"]
    assert 0.005 < (noisy - image).std() < 0.5


def save_layout_2(folder, phantom, pictures, name="p1"):
    save_nifti(folder / name / f"{name}.nii.gz", phantom.ct_hu, phantom.affine)
    for suffix, picture in pictures.items():
        if suffix.endswith(".npy"):
            np.save(folder / name / f"{name}{suffix}", picture)
        else:
            Image.fromarray(picture).save(folder / name / f"{name}{suffix}")


def as_8_bit(image):
    return (image / image.max() * 255).round().byte().numpy()


@pytest.mark.parametrize(
    "names", [("_pa_drr.png", "_lat_drr.png"), ("_frontal.png", "_lateral.png"), ("_pa.png", "_lat.png")]
)
def test_radiographs_beside_a_ct_are_kept_and_their_orientation_is_measured(tmp_path, phantom, names):
    pa, lat = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)
    save_layout_2(tmp_path / "in", phantom, {names[0]: as_8_bit(pa.flip(1)), names[1]: as_8_bit(lat.flip(0))})
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
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
        save_dx(tmp_path / "in" / "p1" / f"p1_{view}.dcm", pixels, t0020_0020=lies)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), dicom=True, **SMALL)
    case = one_case(tmp_path / "out")
    assert [view["transform"] for view in case["orientation"]] == ["identity", "identity"]
    assert (LoadRadiographsd()(case)["image"] - images).abs().max() < 0.05 * images.max()
    (series,) = find_series(tmp_path / "out" / "p1" / "p1_dicom", 8)
    ct = read_ct(tmp_path, series.files)
    label = nibabel.load(case["label"])
    np.testing.assert_array_equal(ct.ct_hu[0].numpy(), np.asarray(label.dataobj).round())
    assert series.patient_id == case["patient_id"]


def test_float_radiographs_that_fit_are_quantitative(tmp_path, phantom):
    images = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)
    save_layout_2(tmp_path / "in", phantom, {"_pa.npy": images[0].numpy(), "_lat.npy": images[1].numpy()})
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**SMALL, "size": 40})
    case = one_case(tmp_path / "out")
    assert all(view["quantitative"] for view in case["intensity"])


def test_a_view_from_the_other_side_gets_its_own_camera(tmp_path, phantom):
    cameras = list(preset("x2ct", 32))
    images = project_hu(cube_of(phantom), [cameras[0], cameras[1].opposite()], 8.0)
    save_layout_2(tmp_path / "in", phantom, {"_pa.npy": images[0].numpy(), "_lat.npy": images[1].numpy()})
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
    case = one_case(tmp_path / "out")
    assert [Camera.from_dict(camera).source for camera in case["cameras"]] == [
        cameras[0].source,
        pytest.approx(cameras[1].opposite().source),
    ]
    assert case["orientation"][1]["transform"] == "identity"


def test_prepared_cases_can_be_prepared_again_with_their_radiographs(tmp_path, phantom):
    ct = tmp_path / "ct"
    save_nifti(ct / "LIDC-IDRI-0003.1.nii.gz", phantom.ct_hu, phantom.affine)
    prepare(str(ct), str(tmp_path / "a"), **SMALL)
    prepare(str(tmp_path / "a"), str(tmp_path / "b"), **{**SMALL, "geometry": "clinic"})
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
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**SMALL, "size": 40})
    case = one_case(tmp_path / "out")
    assert min(view["correlation"] for view in case["orientation"]) > 0.995
    assert Camera.from_dict(case["cameras"][0]).source[0] == pytest.approx(0, abs=8)


def test_a_radiograph_that_fits_nowhere_is_refused_with_a_picture(tmp_path, phantom):
    pa = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)[0]
    noise = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    save_layout_2(tmp_path / "in", phantom, {"_pa.png": as_8_bit(pa), "_lat.png": noise})
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="1 of 1 cases refused"):
        prepare(str(tmp_path / "in"), str(out), **SMALL)
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
    prepare_case(find_sources(folder).sources[0], options, folder, out)


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
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
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
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), h5_axes="IPL", **SMALL)


def test_split_moves_no_case_and_keeps_the_head(ct_folder, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    (tmp_path / "train.txt").write_text("p1\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("p2\n", encoding="utf-8")
    split(str(out), "1/0/0", by="lists", train_list=str(tmp_path / "train.txt"), test_list=str(tmp_path / "test.txt"))
    page = read_datalist(out / "datalist.json")
    assert [case["case_id"] for case in page["training"] + page["test"]] == ["p1", "p2"]
    assert page["extent"] == 320.0 and page["split"]["lists"] == ["train.txt", "test.txt"]
    split(str(out), seed=3)
    assert "note: no case in" in capsys.readouterr().out


def test_the_same_voxels_under_two_patients_are_a_leak(tmp_path, phantom):
    for name in ("a", "b"):
        save_nifti(tmp_path / "in" / f"{name}.nii.gz", phantom.ct_hu, phantom.affine)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
    for name, text in (("train.txt", "a"), ("test.txt", "b")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"leaks: the same voxels, \w+ in training \(a\) and test \(b\)"):
        split(str(tmp_path / "out"), "1/0/0", by="lists", train_list=str(tmp_path / "train.txt"),
              test_list=str(tmp_path / "test.txt"))  # fmt: skip


def test_real_cts_come_out_the_right_way_round(shared, tmp_path):
    """The heart lies to the patient's left, on the right of a PA radiograph; the liver on the other side, below."""
    (tmp_path / "in").mkdir()
    shutil.copy(shared / "ct" / "LIDC-IDRI-0002.nii.gz", tmp_path / "in")
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**SMALL, "radiograph_size": 64})
    pa = LoadRadiographsd()(one_case(tmp_path / "out"))["image"][0]
    heart, liver = pa[40:48], pa[50:56]
    assert heart[:, 36:46].mean() > 1.2 * heart[:, 18:28].mean()
    assert liver[:, 12:26].mean() > liver[:, 38:52].mean()
