"""Pictures as people have them: grey in any wrapping is the same grey, and what is no grey picture is refused."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from trct_monai.datasets.sources import find_sources
from trct_monai.geometry import preset
from trct_monai.io.radiograph import digest_radiograph, read_radiograph, save_radiograph
from trct_monai.transforms import LoadRadiographsd

GREY = np.random.default_rng(0).integers(0, 256, (24, 32)).astype(np.uint8)
DEEP = np.random.default_rng(1).integers(0, 65536, (24, 32)).astype(np.uint16)
SMOOTH = (127 + 100 * np.sin(np.arange(32) / 5) * np.cos(np.arange(24) / 7)[:, None]).astype(np.uint8)
ORIENTATION, WHITE_IS_ZERO = 274, 262


def stored(values: np.ndarray, top: float = 255.0) -> torch.Tensor:
    return torch.from_numpy(values / top).float()


def colours(values: np.ndarray, alpha: np.ndarray | None = None) -> Image.Image:
    return Image.fromarray(np.stack([values] * 3 + ([] if alpha is None else [alpha]), axis=-1))


def palette(values: np.ndarray) -> Image.Image:
    picture = Image.fromarray(255 - values).convert("P")
    picture.putpalette([255 - level for level in range(256) for _ in range(3)])
    return picture


def png_of_16_bits(channels: np.ndarray, colour_type: int) -> bytes:
    """PNG as Pillow cannot write it: 16 bits of each of several channels."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in channels)
    header = struct.pack(">IIBBBBB", channels.shape[1], channels.shape[0], 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


OPAQUE = np.full_like(GREY, 255)


@pytest.mark.parametrize("ending", ["png", "tif", "bmp"])
@pytest.mark.parametrize(
    "picture",
    [
        Image.fromarray(GREY),
        colours(GREY),
        colours(GREY, OPAQUE),
        Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(OPAQUE))),
        palette(GREY),
    ],
    ids=["grey", "rgb", "rgba", "la", "palette"],
)
def test_grey_in_any_wrapping_is_the_same_grey(picture: Image.Image, ending: str, tmp_path: Path) -> None:
    if ending == "bmp" and picture.mode == "LA":
        picture = picture.convert("RGBA")
    picture.save(tmp_path / f"a.{ending}")
    radiograph = read_radiograph(tmp_path / f"a.{ending}")
    assert torch.equal(radiograph.image, stored(GREY)) and radiograph.valid is None


@pytest.mark.parametrize("ending", ["png", "tif", "jp2"])
def test_16_bits_keep_all_of_their_levels(ending: str, tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / f"a.{ending}")
    torch.testing.assert_close(read_radiograph(tmp_path / f"a.{ending}").image, stored(DEEP, 65535), atol=1e-6, rtol=0)


@pytest.mark.parametrize("channels, colour_type", [(3, 2), (2, 4)], ids=["rgb", "la"])
def test_colours_of_16_bits_are_read_with_8_and_a_warning(
    channels: int, colour_type: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    several = np.stack([DEEP] * channels, axis=-1)
    several[..., 1] = DEEP if channels == 3 else 65535
    (tmp_path / "a.png").write_bytes(png_of_16_bits(several, colour_type))
    image = read_radiograph(tmp_path / "a.png").image
    assert "a.png: its colours of 16 bits are read with 8; save it as grey of 16 bits" in caplog.text
    torch.testing.assert_close(image, stored(DEEP, 65535), atol=1 / 255, rtol=0)


@pytest.mark.parametrize("picture", [Image.fromarray(SMOOTH), colours(SMOOTH)], ids=["grey", "rgb"])
@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_pictures_are_grey_within_their_loss(picture: Image.Image, format: str, tmp_path: Path) -> None:
    picture.save(tmp_path / "a.img", format=format, quality=90)
    radiograph = read_radiograph(tmp_path / "a.img")
    torch.testing.assert_close(radiograph.image, stored(SMOOTH), atol=8 / 255, rtol=0)
    assert radiograph.valid is None


@pytest.mark.parametrize("tint, is_grey", [(0, True), (8, True), (9, False), (60, False)])
def test_channels_may_differ_by_eight_levels(tint: int, is_grey: bool, tmp_path: Path) -> None:
    tinted = np.stack([SMOOTH, SMOOTH, SMOOTH - tint], axis=-1)
    Image.fromarray(tinted).save(tmp_path / "a.png")
    if is_grey:
        torch.testing.assert_close(read_radiograph(tmp_path / "a.png").image, stored(SMOOTH), atol=2 / 255, rtol=0)
        return
    with pytest.raises(
        ValueError,
        match=r"a.png: .*expected a grey radiograph, got colours: in 100 % .*; if it is one, save it as grey",
    ):
        read_radiograph(tmp_path / "a.png")


def test_a_coloured_mark_is_no_measurement_and_no_colour_picture(tmp_path: Path) -> None:
    marked = np.stack([GREY] * 3, axis=-1)
    marked[2, 3:8] = (40, 200, 60)  # under 1 % of the pixels, as a mouse pointer
    Image.fromarray(marked).save(tmp_path / "a.png")
    radiograph = read_radiograph(tmp_path / "a.png")
    assert radiograph.valid is not None
    assert torch.equal(~radiograph.valid, torch.from_numpy((marked == (40, 200, 60)).all(-1)))
    assert torch.equal(radiograph.image[radiograph.valid], stored(GREY)[radiograph.valid])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_a_transparent_pixel_is_no_measurement_and_becomes_dark(mode: str, tmp_path: Path) -> None:
    values = np.clip(GREY, 20, 240)
    values[:, :4] = 255
    alpha = np.where(values == 255, 0, 255).astype(np.uint8)
    if mode in ("P", "L"):  # one level stands for transparency
        (palette(values) if mode == "P" else Image.fromarray(values)).save(
            tmp_path / "a.png", transparency=0 if mode == "P" else 255
        )
    else:
        (colours(values, alpha).convert(mode)).save(tmp_path / "a.png")
    radiograph = read_radiograph(tmp_path / "a.png")
    assert radiograph.valid is not None and torch.equal(radiograph.valid, torch.from_numpy(alpha > 0))
    assert torch.equal(radiograph.image, stored(np.where(alpha > 0, values, 20)))


def test_a_picture_is_what_its_content_says(tmp_path: Path) -> None:
    Image.fromarray(SMOOTH).save(tmp_path / "png.jpg", format="PNG")
    assert torch.equal(read_radiograph(tmp_path / "png.jpg").image, stored(SMOOTH))
    Image.fromarray(SMOOTH).save(tmp_path / "jpeg.png", format="JPEG", quality=95)
    torch.testing.assert_close(read_radiograph(tmp_path / "jpeg.png").image, stored(SMOOTH), atol=5 / 255, rtol=0)
    Image.fromarray(SMOOTH).save(tmp_path / "scan", format="TIFF")
    assert digest_radiograph(tmp_path / "scan") == digest_radiograph(tmp_path / "png.jpg")


@pytest.mark.parametrize("deep", [False, True], ids=["8_bits", "16_bits"])
def test_a_tiff_whose_white_is_zero_is_inverted(deep: bool, tmp_path: Path) -> None:
    values, top = (DEEP, 65535) if deep else (GREY, 255)
    Image.fromarray(values).save(tmp_path / "a.tif")
    entry = struct.pack("<HHI", WHITE_IS_ZERO, 3, 1)
    before, found, after = (tmp_path / "a.tif").read_bytes().partition(entry)
    assert found
    (tmp_path / "a.tif").write_bytes(before + entry + b"\0\0" + after[2:])
    torch.testing.assert_close(read_radiograph(tmp_path / "a.tif").image, stored(top - values, top), atol=1e-6, rtol=0)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "tif", "jpg"])
def test_the_turn_in_exif_data_is_applied(ending: str, turn: int, tmp_path: Path) -> None:
    """The eight of the EXIF standard: where row 0 and column 0 of what is stored lie in the picture."""
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    Image.fromarray(SMOOTH).save(tmp_path / f"a.{ending}", exif=exif, **({"quality": 95} if ending == "jpg" else {}))
    shown = [SMOOTH, SMOOTH[:, ::-1], SMOOTH[::-1, ::-1], SMOOTH[::-1], SMOOTH.T, SMOOTH.T[:, ::-1],
             SMOOTH.T[::-1, ::-1], SMOOTH.T[::-1]][turn - 1]  # fmt: skip
    image = read_radiograph(tmp_path / f"a.{ending}").image
    torch.testing.assert_close(image, stored(shown), atol=5 / 255 if ending == "jpg" else 0, rtol=0)


def test_a_camera_belongs_to_the_picture_as_it_is_stored(tmp_path: Path) -> None:
    save_radiograph(tmp_path / "a.png", torch.from_numpy(DEEP / 1e4).float(), preset("x2ct", (24, 32))[0])
    straight = read_radiograph(tmp_path / "a.png")
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    with Image.open(tmp_path / "a.png") as picture:
        picture.load()
    picture.save(tmp_path / "a.png", exif=exif)
    assert torch.equal(read_radiograph(tmp_path / "a.png").image, straight.image)


def test_floats_of_a_tiff_are_as_they_are(tmp_path: Path) -> None:
    Image.fromarray((DEEP / 7).astype(np.float32)).save(tmp_path / "a.tif")
    radiograph = read_radiograph(tmp_path / "a.tif")
    assert radiograph.floats and torch.equal(radiograph.image, torch.from_numpy(DEEP / 7).float())


def save_photograph(path: Path) -> None:
    Image.fromarray(np.random.default_rng(2).integers(0, 256, (8, 8, 3)).astype(np.uint8)).save(path)


def save_film(path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(SMOOTH)]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def save_bomb(path: Path) -> None:
    Image.new("L", (9000, 9000)).save(path)


def save_black_and_white(path: Path) -> None:
    Image.fromarray(GREY).convert("1").save(path)


def save_transparent(path: Path) -> None:
    colours(GREY, np.zeros_like(GREY)).save(path)


def save_start(path: Path) -> None:
    Image.fromarray(DEEP).save(path)
    path.write_bytes(path.read_bytes()[:300])


def save_text(path: Path) -> None:
    path.write_text("not a picture at all", encoding="utf-8")


@pytest.mark.parametrize(
    "write, name, message",
    [
        (save_photograph, "a.png", "expected a grey radiograph, got colours: in .* if it is one, save it as grey"),
        (save_film, "a.png", "expected one picture, got 2 in one file; export one of them"),
        (save_film, "a.tif", "expected one picture, got 2 in one file"),
        (save_film, "a.gif", "expected one picture, got 2 in one file"),
        (save_bomb, "a.png", "the picture is too large: 9000 x 9000 pixels, more than 67108864; reduce it"),
        (save_black_and_white, "a.png", "expected a grey radiograph of 8 bits or more, got black and white"),
        (save_transparent, "a.png", "no pixel holds a measurement"),
        (save_start, "a.png", "damaged"),
        (save_start, "a.tif", "damaged"),
        (
            save_text,
            "a.png",
            "expected PNG, JPEG, .*, DICOM, .npy, .nii or .nii.gz, got a file that begins like none",
        ),
    ],
)
def test_what_is_no_grey_picture_is_refused(write: Any, name: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name}: not a radiograph that can be read .*{message}") as refusal:
        read_radiograph(tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """30000 x 30000 pixels in a header; Pillow refuses twice its own limit with an error of another kind."""
    header = struct.pack(">IIBBBBB", 30000, 30000, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9) + b"IDAT")
    with pytest.raises(ValueError, match=r"a.png: .*too large.*; reduce it"):
        read_radiograph(tmp_path / "a.png")


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp", "gif", "webp", "jp2"])
def test_a_truncated_or_damaged_picture_is_refused_or_read(ending: str, tmp_path: Path) -> None:
    """Never an error of another kind; a changed byte may leave a picture that can be read."""
    Image.fromarray(SMOOTH).save(tmp_path / f"a.{ending}")
    whole = (tmp_path / f"a.{ending}").read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(40):
        cut = whole[: generator.integers(1, len(whole))]
        changed = bytearray(whole)
        for place in generator.integers(0, len(whole), 4):
            changed[place] = generator.integers(256)
        for content, name in ((cut, "cut"), (bytes(changed), "changed")):
            (tmp_path / name).write_bytes(content)
            try:
                read_radiograph(tmp_path / name)
            except ValueError as error:
                assert f"{name}: " in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG", "tif", "tiff"])
def test_a_folder_s_pictures_are_found_whatever_their_ending(ending: str, tmp_path: Path) -> None:
    (tmp_path / "anna").mkdir()
    names = (f"anna_pa_drr.{ending}", f"anna_lateral.{ending}")
    for name in ("anna.nii.gz", *names):
        (tmp_path / "anna" / name).touch()
    (source,) = find_sources(tmp_path).sources
    assert {view: path.name for view, path in source.radiographs.items()} == {"pa": names[0], "lat": names[1]}


def test_a_jpeg_is_loaded_like_a_png(tmp_path: Path) -> None:
    colours(SMOOTH).save(tmp_path / "pa.jpg", quality=95)
    Image.fromarray(SMOOTH).save(tmp_path / "lat.png")
    files = [tmp_path / "pa.jpg", tmp_path / "lat.png"]
    image = LoadRadiographsd(allow_unquantitative=True)({"image": files})["image"]
    torch.testing.assert_close(image[0], image[1], atol=5 / 255, rtol=0)
