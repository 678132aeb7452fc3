"""Headers of DICOM radiographs in the wild: what they say about direction, padding, pixels and view is understood."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence

from tests.files import save_dx
from trct_monai.geometry import preset
from trct_monai.io.dicom import is_dicom, standard_position
from trct_monai.io.radiograph import read_radiograph

PIXELS = np.random.default_rng(0).integers(1, 4095, (12, 16)).astype(np.uint16)
TOP = 4095.0


def save(path: Path, pixels: np.ndarray = PIXELS, **elements: Any) -> Path:
    """A DX image of 12 bits with elements by their keywords."""
    save_dx(path, pixels)
    dataset = pydicom.dcmread(path)
    dataset.HighBit = 11
    for keyword, value in elements.items():
        if keyword.startswith("PixelPadding"):
            dataset.add_new(keyword, "SS" if pixels.dtype == np.int16 else "US", value)
        elif keyword == "ViewPosition":  # as text that may be anything
            dataset.add_new(keyword, "LO", value)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)
    return path


def table(*entries: int) -> Sequence:
    item = Dataset()
    item.LUTDescriptor = [len(entries), 0, 12]
    item.add_new("LUTData", "US", list(entries))
    return Sequence([item])


UPRIGHT, INVERTED = PIXELS / TOP, 1 - PIXELS / TOP
RISES, FALLS = table(0, 7, 4095), table(4095, 4000, 0)


@pytest.mark.parametrize(
    "elements, expected",
    [
        ({"PresentationLUTShape": "IDENTITY"}, UPRIGHT),
        ({"PresentationLUTShape": "INVERSE"}, INVERTED),
        ({"PhotometricInterpretation": "MONOCHROME1"}, INVERTED),
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, INVERTED),
        ({"VOILUTSequence": RISES}, UPRIGHT),
        ({"VOILUTSequence": FALLS}, INVERTED),
        ({"VOILUTSequence": FALLS, "PhotometricInterpretation": "MONOCHROME1"}, UPRIGHT),
        ({"ModalityLUTSequence": FALLS}, INVERTED),
        ({"WindowCenter": "500", "WindowWidth": "10"}, UPRIGHT),
        ({"WindowCenter": ["500", "700"], "WindowWidth": ["10", "20"], "VOILUTFunction": "SIGMOID"}, UPRIGHT),
        ({"RescaleSlope": "-2", "RescaleIntercept": "9000"}, INVERTED),
        ({"RescaleSlope": "2", "RescaleIntercept": "-100"}, UPRIGHT),
    ],
    ids=str,
)
def test_of_all_display_mappings_the_direction_alone_counts(
    elements: dict[str, Any], expected: np.ndarray, tmp_path: Path
) -> None:
    image = read_radiograph(save(tmp_path / "a.dcm", **elements)).image
    torch.testing.assert_close(image, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("colours", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 4090])
def test_padding_is_no_measurement_and_becomes_air(colours: str, limit: int | None, tmp_path: Path) -> None:
    padded = PIXELS.clip(10, 4000)
    padded[:, :3], padded[:2] = 4095, 4092
    elements = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    path = save(tmp_path / "a.dcm", padded, PixelPaddingValue=4095, PhotometricInterpretation=colours, **elements)
    padding = (padded == 4095) if limit is None else (padded >= 4090)
    radiograph = read_radiograph(path)
    assert radiograph.valid is not None and torch.equal(radiograph.valid, torch.from_numpy(~padding))
    values = TOP - padded if colours == "MONOCHROME1" else padded
    expected = np.where(padding, values[~padding].min(), values) / TOP
    torch.testing.assert_close(radiograph.image, torch.from_numpy(expected).float(), atol=1e-6, rtol=0)


def test_padding_of_signed_pixels_and_turns(tmp_path: Path) -> None:
    signed = PIXELS.astype(np.int16) - 2048
    signed[:, :3] = -2000
    path = save(tmp_path / "a.dcm", signed, PixelPaddingValue=-2000, PatientOrientation=["R", "F"])
    valid = read_radiograph(path).valid
    assert valid is not None and torch.equal(~valid, torch.from_numpy(signed == -2000).flip(-1))
    absent = save(tmp_path / "b.dcm", PIXELS, PixelPaddingValue=0)
    assert read_radiograph(absent).valid is None
    with pytest.raises(ValueError, match=r"c.dcm: .*no pixel holds a measurement"):
        read_radiograph(save(tmp_path / "c.dcm", np.full_like(PIXELS, 7), PixelPaddingValue=7))


def test_a_picture_that_is_mirrored_takes_its_padding_along(tmp_path: Path) -> None:
    padded = PIXELS.copy()
    padded[:, :3] = 0
    radiograph = read_radiograph(save(tmp_path / "a.dcm", padded, PixelPaddingValue=0, ViewPosition="AP"))
    taken = radiograph.taken_by(preset("clinic", (12, 16))[0])
    assert taken.valid is not None and not taken.valid[:, -3:].any() and bool(taken.valid[:, :-3].all())


@pytest.mark.parametrize(
    "spacing",
    [["0.000", "0.000"], ["-0.2", "-0.2"], ["nan", "nan"], ["0.2", "0"], "0.2", ["abc", "0.2"]],
    ids=str,
)
def test_a_pixel_spacing_that_cannot_be_is_ignored_with_a_warning(
    spacing: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = save(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    del dataset.ImagerPixelSpacing
    with pydicom.config.disable_value_validation():
        dataset.add_new("PixelSpacing", "LO", spacing)
    dataset.save_as(path)
    assert read_radiograph(path).pixel_spacing is None
    assert "a.dcm: PixelSpacing" in caplog.text and "is ignored, it must be two numbers above 0" in caplog.text
    caplog.clear()
    dataset.ImagerPixelSpacing = ["0.15", "0.16"]
    dataset.save_as(path)
    assert read_radiograph(path).pixel_spacing == (0.15, 0.16) and not caplog.text


@pytest.mark.parametrize("has_group_2, implicit", [(True, True), (True, False), (False, True)])
def test_a_file_without_preamble_is_read(has_group_2: bool, implicit: bool, tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm")
    whole = pydicom.dcmread(path)
    if not implicit:
        whole.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        whole.save_as(path, implicit_vr=False)
    if has_group_2:
        bare = path.read_bytes()[132:]
    else:
        content, buffer = Dataset(), DicomBytesIO()
        content.update(whole)
        dcmwrite(buffer, content, implicit_vr=True, little_endian=True)
        bare = buffer.getvalue()
    (tmp_path / "bare").write_bytes(bare)
    assert is_dicom(tmp_path / "bare")
    torch.testing.assert_close(read_radiograph(tmp_path / "bare").image, torch.from_numpy(UPRIGHT).float())


@pytest.mark.parametrize(
    "start", [b"", b"\x02\x00\x00\x00", b"\x08\x00\x05", b"BM", b"\x89PNG", b"\x08\x00\x05\x00\xff\xff\xff\xff"]
)
def test_other_files_are_no_dicom(start: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(start)
    assert not is_dicom(tmp_path / "a")
    assert not is_dicom(tmp_path)


@pytest.mark.parametrize(
    "written, expected",
    [
        ("LATERAL", "LAT"), ("Lateral ", "LAT"), ("LEFT LATERAL", "LL"), ("L LAT", "LL"), ("RLAT", "RL"),
        ("AP_SUPINE", "AP"), ("AP SEMI-ERECT PORTABLE", "AP"), ("PA ERECT", "PA"), ("CHEST PA", "PA"), ("pa", "PA"),
        ("POSTERO-ANTERIOR", "PA"), ("ANTEROPOSTERIOR", "AP"), ("FRONTAL", "FRONTAL"),
        ("LLD", "LLD"), ("AP LLD", "AP LLD"), ("RAO", "RAO"), ("AP AXIAL", "AP AXIAL"), ("SWIMMERS", "SWIMMERS"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_view_position_is_understood_as_it_is_written(written: str, expected: str, tmp_path: Path) -> None:
    assert standard_position(written) == expected
    assert read_radiograph(save(tmp_path / "a.dcm", ViewPosition=written)).view_position == expected.strip()


def test_a_header_of_another_view_does_not_turn_the_camera(tmp_path: Path) -> None:
    """Both pictures of an examination may be called PA, or AP."""
    pa, lat = preset("clinic", (12, 16))
    radiograph = read_radiograph(save(tmp_path / "a.dcm", ViewPosition="AP", PatientOrientation=[]))
    assert torch.equal(radiograph.taken_by(pa).image, radiograph.image.flip(-1))
    assert torch.equal(radiograph.taken_by(lat).image, radiograph.image)
    assert radiograph.taken_by(lat).camera == lat.for_picture((12, 16), radiograph.pixel_spacing)


def test_grey_in_rgb_is_read_and_colour_refused(tmp_path: Path) -> None:
    eight = (PIXELS // 16).astype(np.uint8)
    path = save(tmp_path / "a.dcm")
    dataset = pydicom.dcmread(path)
    dataset.SamplesPerPixel, dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 3, 0, "RGB"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = np.repeat(eight[..., None], 3, axis=-1).tobytes()
    dataset.save_as(path)
    torch.testing.assert_close(read_radiograph(path).image, torch.from_numpy(eight / 255).float())
    dataset.PixelData = np.random.default_rng(1).integers(0, 256, (12, 16, 3)).astype(np.uint8).tobytes()
    dataset.save_as(path)
    with pytest.raises(ValueError, match=r"a.dcm: .*expected a grey radiograph, got colours"):
        read_radiograph(path)


def test_what_is_no_single_picture_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.dcm", NumberOfFrames=2, PixelData=PIXELS.tobytes() * 2)
    with pytest.raises(ValueError, match=r"a.dcm: .*expected one grey radiograph .* 2 frames"):
        read_radiograph(path)
    with pytest.raises(ValueError, match=r"a.dcm: .*the picture is too large: 60000 x 60000 pixels"):
        read_radiograph(save(path, Rows=60000, Columns=60000))
    whole = save(path).read_bytes()
    for length in (*range(140, len(whole), 97), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a.dcm: ") as refusal:
            read_radiograph(path)
        assert "\n" not in str(refusal.value)
