"""`prepare`: folders of CTs become cases and a datalist."""

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tests.datasets.small import SMALL, one_case
from tests.files import save_nifti
from trct_monai.datasets.check import check
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.split import split
from trct_monai.geometry import preset
from trct_monai.io.datalist import load_datalist, read_datalist
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.projector import project_hu
from trct_monai.transforms import CTPreprocessingd, LoadRadiographsd


def test_a_folder_of_cts_becomes_cases_and_a_datalist(ct_folder, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    printed = capsys.readouterr().out
    assert "2 CTs in NIfTI (layout 1)" in printed and f"wrote {out / 'datalist.json'}" in printed
    content = read_datalist(out / "datalist.json")
    assert (content["geometry"], content["extent"], content["label_size"]) == ("x2ct", 320.0, 16)
    case = content["training"][0]
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
    with pytest.raises(ValueError, match="must not be inside input"):
        prepare(str(ct_folder), str(ct_folder / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no CT found"):
        prepare(str(tmp_path / "empty"), out)
    assert not Path(out).exists()


def test_options_of_rendering_change_the_radiographs_alone(ct_folder, tmp_path):
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


def test_a_tube_voltage_lowers_thick_line_integrals_and_none_leaves_those_of_one_energy(ct_folder, tmp_path, phantom):
    (ct_folder / "p2.nii.gz").unlink()
    images = []
    for name, kvp in (("plain", None), ("hardened", 120)):
        prepare(str(ct_folder), str(tmp_path / name), kvp=kvp, **SMALL)
        case = one_case(tmp_path / name)
        images.append(LoadRadiographsd()(case)["image"])
    plain, hardened = images
    ct = torch.from_numpy(phantom.ct_hu + 1)[None].float()
    (fine,) = CTPreprocessing(40).cubes(ct, [40], torch.from_numpy(phantom.affine))
    torch.testing.assert_close(plain, project_hu(fine, preset("x2ct", 32), 8.0), atol=2e-4, rtol=0)  # 16 bits
    ratio = hardened / plain
    thick, thin = plain > plain.quantile(0.8), (plain > 0.2) & (plain < plain.quantile(0.5))
    assert ratio[thick].mean() < 0.98 * ratio[thin].mean()
    with pytest.raises(ValueError, match="kvp must be above 20.0 and at most 150.0 kV, got 200"):
        prepare(str(ct_folder), str(tmp_path / "wrong"), kvp=200, **SMALL)
    assert not (tmp_path / "wrong").exists()


def test_split_moves_no_case_and_keeps_the_header(ct_folder, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    (tmp_path / "train.txt").write_text("p1\n", encoding="utf-8")
    (tmp_path / "test.txt").write_text("p2\n", encoding="utf-8")
    split(str(out), "1/0/0", by="lists", train_list=str(tmp_path / "train.txt"), test_list=str(tmp_path / "test.txt"))
    content = read_datalist(out / "datalist.json")
    assert [case["case_id"] for case in content["training"] + content["test"]] == ["p1", "p2"]
    assert content["extent"] == 320.0 and content["split"]["lists"] == ["train.txt", "test.txt"]
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


def test_radiographs_of_the_whole_ct_show_what_is_outside_the_cube(tmp_path, phantom):
    (tmp_path / "cts").mkdir()
    wide = np.pad(phantom.ct_hu, ((10, 10), (0, 0), (0, 0)), constant_values=-1000)
    wide[:5] = 0  # a wall of water at the patient's left, outside the cube
    affine = phantom.affine.copy()
    affine[0, 3] -= 10 * affine[0, 0]
    save_nifti(tmp_path / "cts" / "p1.nii.gz", wide, affine)
    for name, options in (("cube", {}), ("whole", {"whole": True})):
        prepare(str(tmp_path / "cts"), str(tmp_path / name), **{**SMALL, **options}, center="body")
    cases = [load_datalist(tmp_path / name / "datalist.json", "training")[0] for name in ("cube", "whole")]
    cube, whole = (LoadRadiographsd()(case)["image"] for case in cases)
    labels = [nibabel.load(case["label"]).get_fdata() for case in cases]
    np.testing.assert_array_equal(*labels)
    difference = whole - cube
    assert difference.min() > -0.05 and difference[1].mean() > 0.5  # the lateral looks through the wall
    assert difference[0, :, : difference.shape[-1] // 2].mean() < 0.05  # the frontal has it at its right edge alone


def test_only_radiographs_of_one_energy_have_a_known_exposure(ct_folder, tmp_path):
    for name, options, known in (
        ("plain", {}, True),
        ("hard", {"kvp": 100}, False),
        ("soft", {"scatter_fraction": 0.2}, False),
    ):
        prepare(str(ct_folder), str(tmp_path / name), **{**SMALL, **options})
        item = LoadRadiographsd()(load_datalist(tmp_path / name / "datalist.json", "training")[0])
        assert item["calibrated"].all() and item["exposed"].tolist() == [known] * 2


def test_what_the_cube_is_centred_on_must_be_known(ct_folder, tmp_path):
    with pytest.raises(ValueError, match="center must be body or lungs, got 'liver'"):
        prepare(str(ct_folder), str(tmp_path / "out"), **SMALL, center="liver")
    assert not (tmp_path / "out").exists()
