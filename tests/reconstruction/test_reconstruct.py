"""`reconstruct`: from pictures to a CT with intervals, and the warnings that it owes its user."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tests.files import save_dx
from trct_monai.bundles.find import bundle_files
from trct_monai.commands import main
from trct_monai.geometry import preset
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.ct import read_ct
from trct_monai.io.dicom.header import read_study
from trct_monai.io.dicom.series import find_series
from trct_monai.io.weights import CHECKSUMS
from trct_monai.metrics.protocols import psnr
from trct_monai.projector import project_hu
from trct_monai.reconstruction.checks import check_radiograph
from trct_monai.reconstruction.command import reconstruct
from trct_monai.reconstruction.inputs import read_radiographs
from trct_monai.registration.orientation import correlation

SHIPPED = "any_view+small"
WIDTH = "mean_width_of_90_percent_interval_in_the_body_hu"


def truth(unseen: dict[str, str]) -> np.ndarray:
    return np.asarray(nibabel.load(unseen["label"]).get_fdata()).clip(*HU_WINDOW)


def score(path: Path, unseen: dict[str, str]) -> float:
    return psnr(nibabel.load(path).get_fdata().clip(*HU_WINDOW) - truth(unseen), HU_WINDOW[1] - HU_WINDOW[0])


def page(path: Path) -> dict[str, object]:
    result: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return result


def test_radiographs_become_a_ct_with_intervals_where_it_lies(unseen: dict[str, str], tmp_path: Path) -> None:
    reconstruct(str(tmp_path / "new" / "ct.nii.gz"), pa=unseen["pa"], lat=unseen["lat"])
    folder = tmp_path / "new"
    assert {path.name for path in folder.iterdir()} == {"ct.nii.gz", "ct_quantiles.nii.gz", "ct.png", "ct.json"}
    ct, quantiles = nibabel.load(folder / "ct.nii.gz"), nibabel.load(folder / "ct_quantiles.nii.gz")
    np.testing.assert_allclose(ct.affine, nibabel.load(unseen["label"]).affine, atol=1e-4)
    np.testing.assert_allclose(ct.affine, quantiles.affine)
    assert score(folder / "ct.nii.gz", unseen) > 25
    low, high = quantiles.get_fdata()[..., 0], quantiles.get_fdata()[..., 3]
    inside = truth(unseen) > -950
    assert 0.8 < ((low <= truth(unseen)) & (truth(unseen) <= high))[inside].mean() < 0.98
    error = np.abs(ct.get_fdata() - truth(unseen))
    width, error = (high - low)[inside], error[inside]
    wide, narrow = width > np.quantile(width, 0.75), width < np.quantile(width, 0.25)
    assert stats.spearmanr(width, error).statistic > 0.1 and error[wide].mean() > 1.3 * error[narrow].mean()
    report = page(folder / "ct.json")
    assert report["warnings"] == [] and float(str(report["relative_residual"])) < 0.1


def test_eight_bit_pictures_give_nearly_the_same(unseen: dict[str, str], pictures: Path, tmp_path: Path) -> None:
    reconstruct(str(tmp_path / "a.nii"), pa=unseen["pa"], lat=unseen["lat"])
    reconstruct(str(tmp_path / "b.nii"), pa=str(pictures / "pa.png"), lat=str(pictures / "lat.png"), geometry="x2ct")
    assert score(tmp_path / "b.nii", unseen) > score(tmp_path / "a.nii", unseen) - 1.5
    assert page(tmp_path / "b.json")["warnings"] == []


def test_dicom_radiographs_give_a_series_of_the_same_patient(unseen: dict[str, str], tmp_path: Path) -> None:
    header = {"t0010_0020": "patient 7", "t0020_000d": "2.25.99"}
    for view, lies, position in (("pa", "R\\F", "PA"), ("lat", "P\\F", "LL")):
        numbers = np.asarray(Image.open(unseen[view])).astype(float)
        pixels = (numbers / numbers.max() * 4000).round().astype(np.uint16)
        pixels = pixels[:, ::-1] if lies == "R\\F" else pixels
        spacing = (500 / len(pixels),) * 2
        save_dx(tmp_path / view, pixels, pixel_spacing=spacing, t0020_0020=lies, t0018_5101=position, **header)
    out, series = tmp_path / "ct.nii.gz", tmp_path / "series"
    reconstruct(str(out), pa=str(tmp_path / "pa"), lat=str(tmp_path / "lat"), geometry="x2ct", dicom=str(series))
    assert page(tmp_path / "ct.json")["warnings"] == []
    assert score(out, unseen) > 25
    (found,) = find_series(series, 64)
    assert found.patient_id == "patient 7" and read_study(found.files[0])["StudyInstanceUID"] == "2.25.99"
    ct = read_ct(series, found.files)
    nifti = nibabel.load(out)
    np.testing.assert_array_equal(ct.ct_hu[0].numpy(), np.asarray(nifti.dataobj))
    np.testing.assert_allclose(ct.affine.numpy(), nifti.affine, atol=1e-3)


def test_pictures_of_two_patients_are_refused(unseen: dict[str, str], tmp_path: Path) -> None:
    pixels = np.full((8, 6), 100, dtype=np.uint16)
    pa, lat = (save_dx(tmp_path / name, pixels, t0010_0020=name) for name in ("anna", "bert"))
    with pytest.raises(ValueError, match="anna and .*bert differ in PatientID"):
        reconstruct(str(tmp_path / "ct.nii.gz"), pa=str(pa), lat=str(lat))
    (view,) = read_radiographs(None, str(save_dx(tmp_path / "decubitus", pixels, t0018_5101="LLD")), None, "clinic")
    lines = check_radiograph(view, torch.from_numpy(truth(unseen)).float()[None, None], 320.0)
    assert "is given as view 'lat', while its header calls it LLD" in lines[0]


def test_a_picture_must_look_like_one_kind_of_training_volumes_not_like_all(unseen: dict[str, str]) -> None:
    (view,) = read_radiographs(unseen["pa"], None, None, "x2ct")
    own = torch.from_numpy(truth(unseen)).float()[None]
    other = own.new_full(own.shape, -1000.0)
    other[..., : own.shape[-1] // 4] = 0.0
    assert check_radiograph(view, torch.stack([other, own]), 320.0) == []
    assert "does not look like the training's thoraces" in check_radiograph(view, other[None], 320.0)[0]


def test_a_picture_from_the_other_side_gets_its_own_camera(
    unseen: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = preset("x2ct", 128)[1]
    image = project_hu(torch.from_numpy(truth(unseen)).float()[None], [camera.opposite()], 5.0)[0]
    pixels = (image / image.max() * 4000).round().numpy().astype(np.uint16)
    right = save_dx(tmp_path / "rl", pixels, pixel_spacing=(500 / 128,) * 2, t0020_0020="A\\F", t0018_5101="RL")
    (view,) = read_radiographs(None, str(right), None, "x2ct")
    assert view.camera is not None and view.camera.source == camera.opposite().source
    assert float(correlation(view.image, image)) > 0.999
    reconstruct(str(tmp_path / "ct.nii.gz"), pa=str(right), geometry="x2ct")
    assert "is given as view 'pa', while its header calls it RL" in capsys.readouterr().out


def test_one_view_leaves_more_open_than_two(unseen: dict[str, str], tmp_path: Path) -> None:
    reconstruct(str(tmp_path / "one.nii.gz"), pa=unseen["pa"])
    reconstruct(str(tmp_path / "two.nii.gz"), radiographs=f"{unseen['pa']},{unseen['lat']}")
    one, two = (float(str(page(tmp_path / f"{name}.json")[WIDTH])) for name in ("one", "two"))
    assert one > 1.05 * two


@pytest.mark.parametrize(
    ("pa", "lat", "geometry", "expected"),
    [
        (
            "pa",
            "lat_mirrored",
            "x2ct",
            "lat_mirrored.png as view 'lat' seems to be mirrored or turned: mirrored left-right",
        ),
        ("pa_negative", "lat", "x2ct", "pa_negative.png as view 'pa' shows bone dark"),
        ("lat", "pa", "x2ct", "does not look like the training's thoraces from this side"),
        ("pa", "lat", "clinic", "the projections of the CT do not fit the radiographs"),
    ],
    ids=["mirrored", "negative", "exchanged", "elsewhere"],
)
def test_what_looks_unlike_the_training_is_warned_of(
    pa: str, lat: str, geometry: str, expected: str, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ct.nii.gz"
    reconstruct(str(out), pa=str(pictures / f"{pa}.png"), lat=str(pictures / f"{lat}.png"), geometry=geometry)
    assert expected in capsys.readouterr().out
    assert any(expected in warning for warning in page(tmp_path / "ct.json")["warnings"])  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({}, "give --pa and --lat .one of them will do., or --radiographs"),
        ({"pa": "{pa}", "radiographs": "{lat}"}, "give --pa and --lat"),
        ({"pa": "missing.png"}, "missing.png: no such file"),
        ({"pa": "{pa}", "out": "ct.dcm"}, "out must end in .nii.gz or .nii, got 'ct.dcm'"),
        ({"pa": "{pa}", "geometry": "circle-8"}, "geometry must be auto, or have the views pa and lat"),
        (
            {"pa": "{picture}", "method": "direct_regression+small", "geometry": "x2ct"},
            "cameras of .*pa.png are not those of geometry",
        ),
        (
            {"pa": "{picture}", "lat": "{lateral}", "method": "direct_regression+small", "geometry": "x2ct"},
            "pa.png: not quantitative, and no gain and offset",
        ),
        ({"pa": "{pa}", "size": "100"}, "size must be one of 64, 128, 256 for any_view.small, got 100"),
        ({"pa": "{pa}", "dicom": "{folder}"}, "is not an empty folder; a DICOM series gets a new one"),
        ({"pa": "{pa}", "device": "abacus"}, "no device 'abacus' here"),
        (
            {"radiographs": "{picture}"},
            "pa.png has no side-car that states where it was taken",
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_line_and_writes_nothing(
    flags: dict[str, str], expected: str, unseen: dict[str, str], pictures: Path, tmp_path: Path
) -> None:
    known = {
        **unseen,
        "picture": str(pictures / "pa.png"),
        "lateral": str(pictures / "lat.png"),
        "folder": str(pictures),
    }
    options = {"out": "ct.nii.gz", **{key: value.format(**known) for key, value in flags.items()}}
    options["out"] = str(tmp_path / options["out"]) if options["out"] != "ct.dcm" else "ct.dcm"
    typed: dict[str, object] = {key: int(value) if key == "size" else value for key, value in options.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=expected):
        reconstruct(**typed)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_radiograph_is_not_written_over(pictures: Path) -> None:
    before = (pictures / "pa.png").read_bytes()
    with pytest.raises(ValueError, match=r"pa.png would be written over a radiograph or its side-car"):
        reconstruct(str(pictures / "pa.nii.gz"), pa=str(pictures / "pa.png"))
    assert (pictures / "pa.png").read_bytes() == before


@pytest.mark.parametrize("size", [128, 256])
def test_finer_voxels_fill_the_same_cube(size: int, unseen: dict[str, str], tmp_path: Path) -> None:
    reconstruct(str(tmp_path / "ct.nii.gz"), pa=unseen["pa"], lat=unseen["lat"], size=size)
    ct, quantiles = nibabel.load(tmp_path / "ct.nii.gz"), nibabel.load(tmp_path / "ct_quantiles.nii.gz")
    assert ct.shape == (size,) * 3 and quantiles.shape == (size, size, size, 4)
    corner = ct.affine @ [-0.5, -0.5, -0.5, 1]
    np.testing.assert_allclose(corner[:3], [-160, -160, -160], atol=1e-3)
    coarse = np.asarray(ct.dataobj).reshape(64, size // 64, 64, size // 64, 64, size // 64).mean((1, 3, 5))
    assert psnr(coarse.clip(*HU_WINDOW) - truth(unseen), HU_WINDOW[1] - HU_WINDOW[0]) > 25


def test_damaged_weights_are_refused(
    unseen: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, (config, weights) = bundle_files(SHIPPED)
    bundle = tmp_path / "any_view"
    shutil.copytree(config[0].parent, bundle / "configs")
    shutil.copytree(weights.parent, bundle / "models" / "small")
    assert (bundle / "models" / "small" / CHECKSUMS).is_file()
    state = torch.load(bundle / "models" / "small" / "model.pt", weights_only=True)
    torch.save({name: value + 1e-3 for name, value in state.items()}, bundle / "models" / "small" / "model.pt")
    code = main(["reconstruct", "--pa", unseen["pa"], "--out", "ct.nii.gz", "--method", f"{bundle}+small"])
    assert code == 2 and "is not the file that" in capsys.readouterr().err
