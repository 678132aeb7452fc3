"""DICOM radiographs: whatever the photometric interpretation and intensity relationship, what attenuates is large."""

from pathlib import Path

import itk
import numpy as np
import pytest
import torch

from trct_monai.transforms import read_radiograph

BITS = b"\x28\x00\x01\x01\x02\x00\x00\x00"  # BitsStored in implicit little endian
PIXELS = np.linspace(100, 3900, 48).reshape(6, 8).round().astype(np.uint16)


def write(path: Path, pixels: np.ndarray = PIXELS, colours: str = "MONOCHROME2", **tags: str) -> Path:
    """A DX image of 12 bits; tags by their numbers, such as t0028_1040."""
    image = itk.image_from_array(np.ascontiguousarray(pixels))
    header = image.GetMetaDataDictionary()
    known = {
        "t0008_0016": "1.2.840.10008.5.1.4.1.1.1.1",
        "t0008_0060": "DX",
    }
    for tag, value in {**known, **tags}.items():
        header[tag[1:].replace("_", "|")] = value
    writer = itk.ImageFileWriter[type(image)].New(image, FileName=str(path), ImageIO=itk.GDCMImageIO.New())
    writer.Update()
    written = path.read_bytes()  # ITK does not let these two be chosen
    for before, after in ((b"MONOCHROME2", colours.encode()), (BITS + b"\x10\x00", BITS + b"\x0c\x00")):
        assert written.count(before) == 1
        written = written.replace(before, after)
    path.write_bytes(written)
    return path


def test_monochrome2_is_taken_as_it_is(tmp_path: Path) -> None:
    radiograph = read_radiograph(write(tmp_path / "a.dcm"))
    assert not radiograph.quantitative and radiograph.camera is None
    torch.testing.assert_close(radiograph.image, torch.tensor(PIXELS / 4095).float())


def test_monochrome1_is_turned_round(tmp_path: Path) -> None:
    radiograph = read_radiograph(write(tmp_path / "a.dcm", colours="MONOCHROME1"))
    torch.testing.assert_close(radiograph.image, torch.tensor(1 - PIXELS / 4095).float())


@pytest.mark.parametrize("sign", ["1", "-1"])
def test_exposure_goes_through_the_logarithm(sign: str, tmp_path: Path) -> None:
    attenuation = np.linspace(0, 3, 48).reshape(6, 8)
    exposure = 4095 * np.exp(-attenuation)
    pixels = (exposure if sign == "1" else 4095 - exposure).round().astype(np.uint16)
    path = write(tmp_path / "a.dcm", pixels, t0028_1040="LIN", t0028_1041=sign, colours="MONOCHROME1")
    image = read_radiograph(path).image.double().numpy()
    assert np.corrcoef(image.ravel(), attenuation.ravel())[0, 1] > 0.99999


def test_signed_pixels_keep_both_halves(tmp_path: Path) -> None:
    pixels = np.linspace(-2000, 2000, 48).reshape(6, 8).round().astype(np.int16)
    image = read_radiograph(write(tmp_path / "a.dcm", pixels)).image
    torch.testing.assert_close(image, torch.tensor((pixels + 2048.0) / 4095).float())


def test_what_is_no_radiograph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a.dcm: not a radiograph .*expected one grey radiograph .*, got CT"):
        read_radiograph(write(tmp_path / "a.dcm", t0008_0060="CT"))
    (tmp_path / "b.dcm").write_bytes(write(tmp_path / "c.dcm").read_bytes()[:400])
    with pytest.raises(ValueError, match="b.dcm: not a radiograph that can be read"):
        read_radiograph(tmp_path / "b.dcm")
