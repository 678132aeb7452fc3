"""DICOM: radiographs grow with attenuation and are oriented, series give HU, a written CT is read back as it was."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.files import save_dx, save_series, set_text
from trct_monai.datasets.sources import find_sources
from trct_monai.geometry import preset
from trct_monai.io.dicom.header import read_study
from trct_monai.io.dicom.series import find_series, read_series
from trct_monai.io.dicom.writer import write_ct_series
from trct_monai.io.radiograph import read_radiograph

itk = pytest.importorskip("itk")

PIXELS = np.linspace(100, 3900, 48).reshape(6, 8).round().astype(np.uint16)


def test_monochrome2_is_taken_as_it_is(tmp_path: Path) -> None:
    radiograph = read_radiograph(save_dx(tmp_path / "a.dcm", PIXELS))
    assert not radiograph.quantitative and radiograph.camera is None
    torch.testing.assert_close(radiograph.image, torch.tensor(PIXELS / 4095).float())


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    radiograph = read_radiograph(save_dx(tmp_path / "a.dcm", PIXELS, colours="MONOCHROME1"))
    torch.testing.assert_close(radiograph.image, torch.tensor(1 - PIXELS / 4095).float())


@pytest.mark.parametrize("sign", ["1", "-1"])
def test_exposure_is_replaced_by_its_logarithm(sign: str, tmp_path: Path) -> None:
    attenuation = np.linspace(0, 3, 48).reshape(6, 8)
    exposure = 4095 * np.exp(-attenuation)
    pixels = (exposure if sign == "1" else 4095 - exposure).round().astype(np.uint16)
    path = save_dx(tmp_path / "a.dcm", pixels, t0028_1040="LIN", t0028_1041=sign, colours="MONOCHROME1")
    image = read_radiograph(path).image.double().numpy()
    assert np.corrcoef(image.ravel(), attenuation.ravel())[0, 1] > 0.99999


def test_signed_pixels_keep_both_halves(tmp_path: Path) -> None:
    pixels = np.linspace(-2000, 2000, 48).reshape(6, 8).round().astype(np.int16)
    image = read_radiograph(save_dx(tmp_path / "a.dcm", pixels)).image
    torch.testing.assert_close(image, torch.tensor((pixels + 2048.0) / 4095).float())


def test_a_file_that_is_no_radiograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.dcm: not a radiograph .*expected one grey radiograph .*, got CT"):
        read_radiograph(save_dx(tmp_path / "a.dcm", PIXELS, t0008_0060="CT"))
    (tmp_path / "b.dcm").write_bytes(save_dx(tmp_path / "c.dcm", PIXELS).read_bytes()[:400])
    with pytest.raises(ValueError, match="b.dcm: not a radiograph that can be read"):
        read_radiograph(tmp_path / "b.dcm")


@pytest.mark.parametrize(
    ("patient_orientation", "turn"),
    [
        ("L\\F", lambda image: image),
        ("P\\F", lambda image: image),
        ("R\\F", lambda image: image[:, ::-1]),
        ("A\\FL", lambda image: image[:, ::-1]),
        ("L\\H", lambda image: image[::-1]),
        ("F\\L", lambda image: image.T),
        ("H\\R", lambda image: image.T[::-1, ::-1]),
    ],
)
def test_a_radiograph_is_turned_by_its_patient_orientation(patient_orientation: str, turn, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = save_dx(tmp_path / "a.dcm", PIXELS, t0020_0020=patient_orientation, t0018_5101="LL")
    radiograph = read_radiograph(path)
    torch.testing.assert_close(radiograph.image, torch.tensor(turn(PIXELS / 4095).copy()).float())
    assert radiograph.view_position == "LL"
    assert radiograph.pixel_spacing == ((0.1, 0.2) if patient_orientation[0] in "FH" else (0.2, 0.1))


def test_a_written_series_is_read_back_by_itk_as_it_was(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-1024, 1476, (6, 7, 5)).astype(np.float32)
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = -7.5, 11.0, 30.0
    study = {"PatientID": "p1", "StudyInstanceUID": "2.25.7", "PatientName": "Doe^Jane"}
    written = write_ct_series(volume + 0.3, affine, tmp_path / "series", study)
    (series,) = find_series(tmp_path / "series", 5)
    assert (list(series.files), series.reason, series.patient_id) == (written, "", "p1")
    read, to_world, _ = read_series(series.files)
    index = np.array([5, 6, 0, 1])  # DICOM's first voxel is the most right and anterior one
    np.testing.assert_allclose(to_world @ [0, 0, 0, 1], affine @ index, atol=1e-4)
    np.testing.assert_allclose(to_world[:3, :3], np.diag([-2.0, -3.0, 4.0]), atol=1e-6)
    np.testing.assert_array_equal(read.flip(0, 1).numpy(), volume)
    assert read_study(written[2]).items() >= study.items()


def rounded_to(step: float | np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.round(values / step) * step


SLOPES = np.array([1.0, 1.0, 0.75, 1.5, 0.5])  # of the five slices
RAMP = np.linspace(-1000, 3000, 6 * 7 * 5).reshape(6, 7, 5)


@pytest.mark.parametrize(
    ("expected", "dtype", "options"),
    [
        (rounded_to(1, RAMP), torch.int16, {}),
        (rounded_to(1, RAMP), torch.int16, {"intercept": -1024, "dtype": np.uint16}),
        (rounded_to(4, RAMP), torch.int16, {"slopes": [2, 4], "intercept": -1024}),
        (rounded_to(2, RAMP), torch.int16, {"slopes": [0.5]}),
        (rounded_to(0.5, RAMP), torch.float32, {"slopes": [0.5], "intercept": -1024}),
        (rounded_to(SLOPES, RAMP) + 0.5, torch.float32, {"slopes": SLOPES.tolist(), "intercept": 0.5}),
        (rounded_to(1, RAMP * 10 + 9000), torch.float32, {"intercept": -1024, "dtype": np.uint16}),
        (rounded_to(8, RAMP * 30), torch.float32, {"slopes": [8]}),
    ],
    ids=["whole", "unsigned", "slopes 2 and 4", "slope .5, whole HU", "slope .5", "slopes differ", "39000", "90000"],
)
def test_a_series_is_read_as_its_rescaled_values(expected, dtype, options, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files = save_series(tmp_path, expected, np.diag([-1.0, -1.0, 1.0, 1.0]), **options)
    read, _, _ = read_series(files)
    np.testing.assert_array_equal(read.numpy(), expected)
    assert read.dtype == dtype


def test_a_series_whose_slope_is_zero_is_refused(tmp_path: Path) -> None:
    files = save_series(tmp_path, RAMP, np.eye(4))
    set_text(files[2], 0x0028, 0x1053, "0")
    with pytest.raises(ValueError, match="_002.dcm: RescaleSlope must be finite and not 0, .* got 0 and 0"):
        read_series(files)


def test_a_written_series_is_marked_as_derived_and_for_research(tmp_path: Path) -> None:
    first, *_, last = write_ct_series(np.zeros((4, 4, 3)), np.eye(4), tmp_path / "series")
    image_io = itk.GDCMImageIO.New(FileName=str(first))
    image_io.ReadImageInformation()
    header = image_io.GetMetaDataDictionary()
    assert header["0008|0008"].startswith("DERIVED") and header["0018|9004"].strip() == "RESEARCH"
    assert "RESEARCH ONLY" in header["0008|103e"] and "not for diagnosis" in header["0008|2111"]
    assert len(header["0008|103e"]) <= 64
    assert read_study(first)["StudyInstanceUID"] == read_study(last)["StudyInstanceUID"]
    again = write_ct_series(np.zeros((4, 4, 3)), np.eye(4), tmp_path / "again")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in sorted(first.parent.iterdir())]


def test_a_series_that_cannot_be_right_is_refused_and_not_written(tmp_path: Path) -> None:
    volume, folder = np.zeros((4, 4, 3)), tmp_path / "series"
    with pytest.raises(ValueError, match="axes along R, A and S"):
        write_ct_series(volume, np.diag([-1.0, 1.0, 1.0, 1.0]), folder)
    with pytest.raises(ValueError, match="HU from -32767 to 32767"):
        write_ct_series(volume + 40000, np.eye(4), folder)
    with pytest.raises(ValueError, match="study may hold StudyDate, .*, got Modality"):
        write_ct_series(volume, np.eye(4), folder, {"Modality": "MR"})
    assert not folder.exists()
    folder.mkdir()
    (folder / "other.dcm").touch()
    with pytest.raises(ValueError, match="series is not an empty folder"):
        write_ct_series(volume, np.eye(4), folder)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


@pytest.mark.parametrize(("charset", "encoding"), [("ISO_IR 100", "latin-1"), ("ISO_IR 192", "utf-8")])
def test_a_name_keeps_its_letters(charset: str, encoding: str, tmp_path: Path) -> None:
    path = save_dx(tmp_path / "a.dcm", PIXELS, t0010_0010="M#ller^Jo", t0008_0005=charset)
    name = "M\N{LATIN SMALL LETTER U WITH DIAERESIS}ller^Jo".encode(encoding)
    raw = path.read_bytes()
    assert raw.count(b"M#ller^Jo ") == 1
    path.write_bytes(raw.replace(b"M#ller^Jo ", name.ljust(10)))
    study = read_study(path)
    assert study["PatientName"] == name.decode(encoding)
    first = write_ct_series(np.zeros((4, 4, 3)), np.eye(4), tmp_path / "series", study)[0]
    assert read_study(first)["PatientName"] == name.decode(encoding)


def test_a_side_car_without_a_camera_leaves_the_header_its_word(tmp_path: Path) -> None:
    path = save_dx(tmp_path / "a.dcm", PIXELS, t0018_5101="AP")
    plain = read_radiograph(path)
    side_car = {"format": "trct-radiograph", "format_version": 2, "quantitative": True, "scale": 1.0, "offset": 0.0}
    (tmp_path / "a.json").write_text(json.dumps(side_car), encoding="utf-8")
    scaled = read_radiograph(path)
    assert scaled.quantitative and (scaled.view_position, scaled.pixel_spacing) == ("AP", plain.pixel_spacing)


def test_a_camera_beside_the_picture_belongs_to_the_stored_pixels(tmp_path: Path) -> None:
    path = save_dx(tmp_path / "a.dcm", PIXELS, t0020_0020="R\\F")
    page = {"format": "trct-radiograph", "format_version": 2, "quantitative": True, "scale": 1.0, "offset": 0.0}
    page["camera"] = preset("x2ct", (6, 8))[0].to_dict()
    (tmp_path / "a.json").write_text(json.dumps(page), encoding="utf-8")
    torch.testing.assert_close(read_radiograph(path).image, torch.tensor(PIXELS.astype(np.float32)))


def test_a_series_without_preamble_is_found(tmp_path: Path) -> None:
    ct_hu = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 16)).astype(np.int16)
    for path in save_series(tmp_path / "ct", ct_hu, np.eye(4)):
        path.write_bytes(path.read_bytes()[132:])
    found = find_sources(tmp_path)
    assert not found.refused and len(found.sources) == 1
    volume, _, _ = read_series(found.sources[0].files)
    assert torch.equal(volume.sort(dim=0).values, torch.from_numpy(ct_hu).sort(dim=0).values)
