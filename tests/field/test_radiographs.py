"""Radiographs as people have them: what is refused says why in one line, and nothing is written."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from tests.field.inputs import edit, prepare, run
from tests.files import save_dx, save_nifti
from trct_monai.geometry import preset
from trct_monai.io.radiograph import read_radiograph
from trct_monai.phantoms import Phantom
from trct_monai.projector import project_hu


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """A frontal picture of 128 x 128 pixels of 12 bits."""
    from trct_monai.phantoms import thorax_phantom

    phantom = thorax_phantom(5, size=40, findings=[])
    image = project_hu(torch.from_numpy(phantom.ct_hu)[None], preset("x2ct", 128)[:1], 8.0)[0]
    return (image / image.max() * 4095).round().numpy().astype(np.uint16)


def reconstruct(path: Path):  # type: ignore[no-untyped-def]
    out = path.parent / "out"
    ran = run("reconstruct", out, geometry="x2ct", pa=path, out=out / "ct.nii.gz")
    assert ran.code == 0 or not out.exists()
    return ran


def bomb(path: Path, pixels: np.ndarray) -> None:
    Image.new("L", (14000, 14000)).save(path)


def damaged_nifti(path: Path, pixels: np.ndarray) -> None:
    nibabel.save(nibabel.Nifti1Image(pixels.T.astype(np.float32), np.eye(4)), path)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2] + bytes(500) + raw[len(raw) // 2 + 500 :])


def npz(path: Path, pixels: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, pixels=pixels)


def decimal_comma(path: Path, pixels: np.ndarray) -> None:
    save_dx(path, pixels, pixel_spacing=(4.25, 4.25))
    raw = path.read_bytes()
    assert raw.count(b"4.25\\4.25") == 1
    path.write_bytes(raw.replace(b"4.25\\4.25", b"four\\five"))


def zero_slope(path: Path, pixels: np.ndarray) -> None:
    save_dx(path, pixels, pixel_spacing=(3.2, 3.2))
    edit(path, RescaleSlope="0", RescaleIntercept="0")


def constant(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels * 0 + 7).save(path)


def coloured(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)


def zeros(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(bytes(3000))


def two_frames(path: Path, pixels: np.ndarray) -> None:
    save_dx(path, pixels)
    edit(path, NumberOfFrames=2, PixelData=np.stack([pixels, pixels]).tobytes())


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        pytest.param("pa.png", bomb, "the picture is too large", id="g10_bomb"),
        pytest.param("pa.npy", npz, "pa.npy: not a radiograph that can be read", id="g12_npz"),
        pytest.param("pa.nii.gz", damaged_nifti, "damaged NIfTI", id="g12_zlib_nii"),
        pytest.param("pa.png", constant, "an empty picture, all of its pixels are", id="g11_constant"),
        pytest.param("pa.dcm", zero_slope, "RescaleSlope must be finite and not 0", id="h20_slope_zero"),
        pytest.param("pa.dcm", two_frames, "2 frames", id="two frames"),
        pytest.param("pa.dcm", zeros, "begins like none of them", id="no DICOM"),
        pytest.param("pa.png", lambda path, p: path.mkdir(), "no such file", id="a folder"),
        pytest.param("pa.png", lambda path, p: path.write_bytes(b""), "begins like none of them", id="empty file"),
        pytest.param("pa.png", coloured, "expected a grey radiograph, got colours", id="g03_colour"),
    ],
)  # fmt: skip
def test_what_is_no_radiograph_is_refused(name: str, write, message: str, pixels: np.ndarray, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write(tmp_path / name, pixels)
    ran = reconstruct(tmp_path / name)
    assert ran.code == 2 and message in ran.error and str(tmp_path / name) in ran.error


def test_h17_no_preamble(pixels: np.ndarray, tmp_path: Path) -> None:
    path = save_dx(tmp_path / "pa.dcm", pixels, pixel_spacing=(3.2, 3.2))
    expected = read_radiograph(path)
    path.write_bytes(path.read_bytes()[132:])
    read = read_radiograph(path)
    assert torch.equal(read.image, expected.image) and read.pixel_spacing == (3.2, 3.2)


@pytest.mark.parametrize("comma", ["3,2", "3.2"])
def test_q01_comma(comma: str, pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = save_dx(tmp_path / "pa.dcm", pixels, pixel_spacing=(3.2, 3.2))
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b"3.2\\3.2", f"{comma}\\{comma}".encode()))
    assert read_radiograph(path).pixel_spacing == (3.2, 3.2) and not caplog.records


def test_a_spacing_that_is_no_number_is_named_and_not_used(
    pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    decimal_comma(tmp_path / "pa.dcm", pixels)
    assert read_radiograph(tmp_path / "pa.dcm").pixel_spacing is None
    assert "ImagerPixelSpacing FOUR\\FIVE is ignored" in caplog.text


def test_h16_spacing_one(pixels: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from trct_monai.reconstruction import read_radiographs

    path = save_dx(tmp_path / "pa.dcm", pixels, pixel_spacing=(1.0, 1.0))
    (taken,) = read_radiographs(str(path), None, None, "x2ct")
    assert "its pixels of 1 x 1 mm would make a picture of 128 x 128 mm; they were not used" in caplog.text
    assert taken.camera == preset("x2ct", 128)[0]


def test_f16_a_picture_beside_a_ct_is_its_radiograph(phantom: Phantom, pixels: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    save_nifti(folder / "anna" / "anna.nii.gz", phantom.ct_hu, phantom.affine)
    lateral = project_hu(torch.from_numpy(phantom.ct_hu)[None], preset("x2ct", 128)[1:], 8.0)[0]
    for view, picture in (("frontal", pixels / 4095), ("lateral", (lateral / lateral.max()).numpy())):
        grey = Image.fromarray((picture * 255).round().astype(np.uint8))
        grey.save(folder / "anna" / f"anna_{view}.jpg", quality=95)
    ran = prepare(folder, geometry="x2ct")
    assert ran.code == 0, ran.text
    (case,) = ran.cases().values()
    assert case["provenance"]["radiographs"] == "given" and case["views"] == ["pa", "lat"]
    assert "other kinds" not in ran.text


def test_a_damaged_dicom_radiograph_is_refused_or_read(pixels: np.ndarray, tmp_path: Path) -> None:
    path = save_dx(tmp_path / "pa.dcm", pixels)
    raw = path.read_bytes()
    for cut in (100, 140, 400, len(raw) - 5000):
        path.write_bytes(raw[:cut])
        with pytest.raises(ValueError, match=r"pa.dcm: not a radiograph that can be read"):
            read_radiograph(path)
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(ValueError, match=r"pa.dcm: not a radiograph that can be read"):
        read_radiograph(path)
