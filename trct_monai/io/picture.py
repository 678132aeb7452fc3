"""Pictures as people have them: PNG, JPEG, TIFF and others, told by their content, as one array of grey numbers.

Grey may be stored as grey of 8 or 16 bits, with alpha, as colours that are all grey, or in a palette. What is really
coloured, moves, or is damaged is refused.
"""

import logging
import struct
import warnings
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

READ = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000")
"""Pillow's names of the formats that are read."""

NAMES = "PNG, JPEG, TIFF, BMP, GIF, WebP, JPEG 2000"

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""How the names of pictures beside a CT end; what a picture is, its content says."""

MAX_PIXELS = 2**26
"""Pixels of the largest picture: 8192 x 8192, four times the finest detector. A small file can unpack to any size."""

COLOUR_TOLERANCE = 8
"""Levels of 255 by which the channels of a grey pixel may differ, as after lossy compression."""

MAX_COLOURED = 0.01
"""Share of pixels that may differ by more: a coloured letter or a mouse pointer on a grey picture."""

TIFF_PHOTOMETRIC, WHITE_IS_ZERO = 262, 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Picture:
    """A picture's numbers.

    Attributes:
        values: The stored numbers (rows, columns).
        top: The value of a full pixel; None for floats, which have none.
        valid: The pixels (rows, columns) that hold a measurement; None for all of them.
    """

    values: np.ndarray
    top: float | None
    valid: np.ndarray | None = None


def read_picture(path: Path, turn: bool = True) -> Picture:
    """A grey picture, whatever its name ends in.

    Transparent pixels and coloured marks hold no measurement; transparent ones get the darkest value of the others.
    Colours of 16 bits are read with 8, which a warning says. A TIFF whose white is zero is inverted, as it is shown.

    Args:
        path: A file of one of the formats in `NAMES`.
        turn: Whether to apply the orientation in its EXIF data, as viewers do.

    Raises:
        ValueError: If it is none of these formats, has colours, several pictures or more than `MAX_PIXELS`, or is
            damaged.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    # From a name Pillow maps uncompressed TIFF to memory, and forgets that EXIF may exchange rows and columns.
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # notes on meta-data that are not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(file, formats=READ) as picture:
                check_size(picture.height, picture.width)
                if (frames := getattr(picture, "n_frames", 1)) > 1:
                    raise ValueError(f"expected one picture, got {frames} in one file; export one of them")
                reduced = picture.mode in ("RGB", "RGBA", "LA") and ";16" in str(picture.tile)
                picture.load()
                found = _numbers(picture, ImageOps.exif_transpose(picture) if turn else picture)
        except UnidentifiedImageError as error:
            raise ValueError(
                f"expected {NAMES}, DICOM, .npy, .nii or .nii.gz, got a file that begins like none of them"
            ) from error
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise ValueError(f"the picture is too large: {error}; reduce it") from error
        except (SyntaxError, EOFError, OSError, TypeError, KeyError, IndexError, struct.error, zlib.error) as error:
            raise ValueError(f"damaged: {error}") from error
    if reduced:
        logger.warning("%s: its colours of 16 bits are read with 8; save it as grey of 16 bits", path)
    return found


def check_size(rows: int, columns: int) -> None:
    """Raise ValueError if a picture has more pixels than any radiograph, before they are unpacked."""
    if rows * columns > MAX_PIXELS:
        raise ValueError(f"the picture is too large: {rows} x {columns} pixels, more than {MAX_PIXELS}; reduce it")


def grey_of_colours(colours: np.ndarray) -> Picture:
    """Grey numbers of a picture in colours that are all grey, but for marks.

    Args:
        colours: Red, green and blue (rows, columns, 3) of 8 bits.

    Raises:
        ValueError: If the channels differ by more than `COLOUR_TOLERANCE` in more than `MAX_COLOURED` of the pixels.
    """
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    spread = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    if not spread.any():
        return Picture(np.ascontiguousarray(colours[..., 0]), 255.0)
    coloured = spread > COLOUR_TOLERANCE
    if coloured.mean() > MAX_COLOURED:
        raise ValueError(
            f"expected a grey radiograph, got colours: in {100 * coloured.mean():.0f} % of the pixels they differ by "
            f"more than {COLOUR_TOLERANCE} of 255 levels; if it is one, save it as grey"
        )
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16  # ITU-R BT.601; equal channels keep their value
    return Picture(luma.astype(np.uint8), 255.0, ~coloured if coloured.any() else None)


def without_padding(picture: Picture, padding: np.ndarray) -> Picture:
    """The picture, some of whose pixels (rows, columns) hold no measurement: not valid, as dark as the darkest other.

    Raises:
        ValueError: If no pixel is left.
    """
    if not padding.any():
        return picture
    if padding.all():
        raise ValueError("no pixel holds a measurement: all of them are transparent or padding")
    values = np.where(padding, picture.values[~padding].min(), picture.values)
    return replace(picture, values=values, valid=~padding if picture.valid is None else picture.valid & ~padding)


def _numbers(opened: Any, picture: Any) -> Picture:
    """The numbers of a picture of any mode, as it was opened and as it lies."""
    mode, transparent = picture.mode, picture.info.get("transparency")
    if mode == "1":
        raise ValueError("expected a grey radiograph of 8 bits or more, got black and white")
    if mode in ("P", "PA", "RGBa", "La") or (mode == "RGB" and transparent is not None):
        picture, mode = picture.convert("RGBA"), "RGBA"
    elif mode in ("CMYK", "YCbCr", "RGBX"):
        picture, mode = picture.convert("RGB"), "RGB"
    values = np.asarray(picture)
    if mode in ("RGB", "RGBA"):
        opaque = np.where(values[..., 3:] == 0, 0, values[..., :3]) if mode == "RGBA" else values
        grey = grey_of_colours(opaque)
        return without_padding(grey, values[..., 3] == 0) if mode == "RGBA" else grey
    if mode == "LA":
        return without_padding(Picture(values[..., 0], 255.0), values[..., 1] == 0)
    if mode == "F":
        return Picture(values, None)
    if mode != "L" and mode != "I" and not mode.startswith("I;16"):
        raise ValueError(f"expected a grey radiograph, got the mode {mode}; save it as grey of 8 or 16 bits")
    if mode != "L":  # 16 bits may come as 32, with or without sign
        kinds = (np.uint16, np.int16, np.int32)
        low, high = int(values.min()), int(values.max())
        values = values.astype(next(k for k in kinds if np.iinfo(k).min <= low and high <= np.iinfo(k).max))
        if opened.format == "TIFF" and opened.tag_v2.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO:
            values = np.iinfo(values.dtype).max - values
    stored = Picture(values, float(np.iinfo(values.dtype).max))
    return without_padding(stored, values == transparent) if isinstance(transparent, int) else stored
