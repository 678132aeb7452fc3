"""DICOM radiographs: CR, DX and RF images as numbers that grow with attenuation."""

import logging
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from trct_monai.io.dicom.header import last_line
from trct_monai.io.picture import Picture, check_size, grey_of_colours, without_padding

RADIOGRAPH_MODALITIES = ("CR", "DX")
"""What a header calls digital radiographs."""

VIEW_POSITIONS = {"PA": "pa", "AP": "pa", "FRONTAL": "pa", "LL": "lat", "RL": "lat", "LAT": "lat"}
"""The library's view of a ViewPosition. LLD and RLD have none: they are frontal views in lateral decubitus."""

OPPOSITE = ("AP", "RL")
"""ViewPositions whose source and detector are on the other side."""

SYNONYMS = {
    "POSTEROANTERIOR": "PA", "POSTERO ANTERIOR": "PA", "ANTEROPOSTERIOR": "AP", "ANTERO POSTERIOR": "AP",
    "LATERAL": "LAT", "LEFT LAT": "LL", "L LAT": "LL", "LAT LEFT": "LL", "LAT L": "LL", "LLAT": "LL",
    "RIGHT LAT": "RL", "R LAT": "RL", "LAT RIGHT": "RL", "LAT R": "RL", "RLAT": "RL",
}  # fmt: skip
"""What a header writes in place of a ViewPosition."""

NOT_THE_VIEW = re.compile(
    r"\b(CHEST|THORAX|VIEW|SUPINE|ERECT|UPRIGHT|STANDING|SITTING|SEMI|PORTABLE|BEDSIDE|MOBILE|INSPIRATION|EXPIRATION)\b"
)
"""Words that say how the patient stood, not from where the picture was taken."""

SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing")
"""Where a header states the size of a pixel, the detector's first."""

KEYWORDS = (
    "Modality", "ViewPosition", "PatientOrientation", "NumberOfFrames", "Rows", "Columns", *SPACINGS,
    "PhotometricInterpretation", "PresentationLUTShape", "BitsStored", "PixelRepresentation", "RescaleSlope",
    "RescaleIntercept", "PixelPaddingValue", "PixelPaddingRangeLimit", "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
)  # fmt: skip
LUTS = ("ModalityLUTSequence", "VOILUTSequence")
"""What is read of a header: values of elements, and the two ends of look-up tables."""

Header = dict[str, list[str]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomRadiograph:
    """A CR, DX or RF image.

    Attributes:
        values: Values (rows, columns) from 0 on that grow with attenuation, in the library's orientation where the
            header has PatientOrientation.
        top: Their greatest possible value.
        view_position: ViewPosition of the header by `standard_position`; empty if it has none.
        pixel_spacing: Height and width of a pixel on the detector in mm; None if the header has none.
        valid: The pixels (rows, columns) that hold a measurement; None for all of them.
    """

    values: np.ndarray
    top: float
    view_position: str
    pixel_spacing: tuple[float, float] | None
    valid: np.ndarray | None = None


def read_dicom_radiograph(path: Path, turn: bool = True) -> DicomRadiograph:
    """A CR, DX or RF image.

    Bright pixels stand for attenuation. The values are the stored ones: windows, curves of a VOI LUT and
    RescaleSlope are for the screen, and gain and offset are fitted. Of everything between the stored numbers and the
    screen the direction alone counts: a negative RescaleSlope, a Modality LUT or VOI LUT (the first) that falls, and
    MONOCHROME1 or a PresentationLUTShape INVERSE, which say the same, each invert the values. Pixels proportional to
    the exposure (PixelIntensityRelationship LIN, such as in FOR PROCESSING images) are replaced by their logarithm. No
    header gives the gain and the offset from there to line integrals. An image with PatientOrientation is flipped and
    turned so that rows run to the patient's left or back, and columns to the feet. PixelPaddingValue and its range mark
    pixels that hold no measurement; they are not valid, and get the least value of the others.

    Args:
        path: A DICOM file with one frame of grey pixels, or of colours that are all grey; see `grey_of_colours`.
        turn: Whether to apply PatientOrientation.

    Raises:
        ValueError: If it cannot be read, is no single grey image, or is a CT slice.
    """
    header = _read_header(path)
    colours, modality = _text(header, "PhotometricInterpretation"), _text(header, "Modality")
    frames = _number(header, "NumberOfFrames", 1.0)
    grey, coloured = colours.startswith("MONOCHROME"), colours.startswith(("RGB", "YBR"))
    if modality in ("CT", "MR", "PT") or frames > 1 or not (grey or coloured):
        raise ValueError(
            f"expected one grey radiograph (CR, DX, RF), got {modality or 'no modality'}, {colours or 'no colours'}, "
            f"{frames:.0f} frames"
        )
    check_size(int(_number(header, "Rows", 0.0)), int(_number(header, "Columns", 0.0)))
    pixels = _read_pixels(path)
    if pixels.ndim != (2 if grey else 3):
        raise ValueError(f"expected one grey radiograph, got pixels of shape {pixels.shape}")
    picture = _stored_numbers(pixels, header, colours) if grey else grey_of_colours(pixels[..., :3])
    values, valid, top = picture.values.astype(np.float64), picture.valid, float(picture.top or 1.0)
    if _text(header, "PixelIntensityRelationship") == "LIN":
        exposure = values if _number(header, "PixelIntensityRelationshipSign", 1.0) > 0 else top - values
        values = top * (1 - np.log1p(exposure) / np.log1p(top))
    elif _is_inverted(header, colours):
        values = top - values
    if valid is not None and grey:  # the least value after inversion
        values = np.where(valid, values, values[valid].min())
    spacing = _pixel_spacing(header, path)
    along_rows, along_columns = (header["PatientOrientation"] + ["", ""])[:2] if turn else ["", ""]
    if along_rows[:1] in ("H", "F") and along_columns[:1] in tuple("LRAP"):
        values, valid = values.T, None if valid is None else valid.T
        spacing = spacing and spacing[::-1]
        along_rows, along_columns = along_columns, along_rows
    flipped = (slice(None, None, -1 if along_columns[:1] == "H" else 1),
               slice(None, None, -1 if along_rows[:1] in ("R", "A") else 1))  # fmt: skip
    return DicomRadiograph(
        np.ascontiguousarray(values[flipped]),
        top,
        standard_position(_text(header, "ViewPosition")),
        spacing,
        None if valid is None else np.ascontiguousarray(valid[flipped]),
    )


def standard_position(text: str) -> str:
    """A ViewPosition in the standard's words: LATERAL is LAT, AP_SUPINE is AP; one that it does not know as it is."""
    words = " ".join(re.split(r"[^A-Z]+", text.upper())).strip()
    view = " ".join(NOT_THE_VIEW.sub("", words.replace("LATERAL", "LAT")).split())
    view = SYNONYMS.get(view, view)
    return view if view in VIEW_POSITIONS else text.upper()


def _read_header(path: Path) -> Header:
    import pydicom

    header: Header = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard does not allow, and that are not used
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*KEYWORDS, *LUTS])
            for keyword in KEYWORDS:
                value = dataset.get(keyword)
                several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
                header[keyword] = [] if value in (None, "") else [str(part).strip().upper() for part in several]
            for keyword in LUTS:
                header[keyword] = [str(entry) for entry in _ends(next(iter(dataset.get(keyword) or []), {}))]
        except (AttributeError, EOFError, KeyError, NotImplementedError, OSError, TypeError, ValueError) as error:
            raise ValueError(f"not a DICOM file that can be read ({error})") from error
    return header


def _ends(item: Any) -> list[int]:
    """First and last entry of a look-up table; nothing where there is none."""
    entries = item.get("LUTData")
    if isinstance(entries, bytes):
        count = int(item.LUTDescriptor[0]) or 65536
        entries = np.frombuffer(entries, np.uint8 if len(entries) < 2 * count else "<u2")[:count].tolist()
    return [int(entries[0]), int(entries[-1])] if isinstance(entries, Sequence) and len(entries) > 1 else []


def _read_pixels(path: Path) -> np.ndarray:
    """The pixels as GDCM gives them: rescaled, MONOCHROME1 inverted."""
    import itk

    try:
        image = itk.imread(str(path), imageio=itk.GDCMImageIO.New())
    except RuntimeError as error:
        raise ValueError(f"not a DICOM file that can be read ({last_line(error)})") from error
    pixels: np.ndarray = itk.array_from_image(image).squeeze()
    return pixels


def _stored_numbers(pixels: np.ndarray, header: Header, colours: str) -> Picture:
    """The stored numbers, from 0 to `top` also where they have a sign, without padding."""
    bits = _number(header, "BitsStored", 16.0)
    top, half = 2.0**bits - 1, 2.0 ** (bits - 1) if _number(header, "PixelRepresentation", 0.0) == 1 else 0.0
    slope, intercept = _number(header, "RescaleSlope", 1.0), _number(header, "RescaleIntercept", 0.0)
    if not isfinite(slope) or not isfinite(intercept) or slope == 0:
        raise ValueError(
            f"RescaleSlope must be finite and not 0, and RescaleIntercept finite, got {slope}, {intercept}"
        )
    values = (pixels.astype(np.float64) - intercept) / slope + half
    values = top - values if colours == "MONOCHROME1" else values
    first, last = _numbers(header, "PixelPaddingValue"), _numbers(header, "PixelPaddingRangeLimit")
    padding = np.zeros(values.shape, dtype=bool)
    if first:
        signed = [value - 2.0**16 if half and value >= 2.0**15 else value for value in (first[0], (last or first)[0])]
        low, high = sorted(value + half for value in signed)
        padding = (values > low - 0.5) & (values < high + 0.5)
    result = without_padding(Picture(values, top), padding)
    if result.values.min() < -0.5 or result.values.max() > top + 0.5:
        raise ValueError(
            f"pixels from {values.min():g} to {values.max():g} do not fit the header's 0 to {top:g}; write it as PNG"
        )
    return result


def _is_inverted(header: Header, colours: str) -> bool:
    """Whether what is stored as a large number is shown dark."""
    turns = [
        _number(header, "RescaleSlope", 1.0) < 0,
        _falls(header, "ModalityLUTSequence"),
        _falls(header, "VOILUTSequence"),
        colours == "MONOCHROME1" or _text(header, "PresentationLUTShape") == "INVERSE",
    ]
    return sum(turns) % 2 == 1


def _falls(header: Header, sequence: str) -> bool:
    """Whether the first look-up table of a sequence ends lower than it begins."""
    ends = _numbers(header, sequence)
    return len(ends) == 2 and ends[1] < ends[0]


def _pixel_spacing(header: Header, path: Path) -> tuple[float, float] | None:
    """Height and width of a pixel on the detector in mm; None, with a warning, if what is stated cannot be."""
    stated = {keyword: _numbers(header, keyword) for keyword in SPACINGS if header[keyword]}
    for numbers in stated.values():
        if len(numbers) == 2 and all(isfinite(number) and number > 0 for number in numbers):
            return numbers[0], numbers[1]
    for keyword in stated:
        value = _text(header, keyword)
        logger.warning("%s: %s %s is ignored, it must be two numbers above 0", path, keyword, value)
    return None


def _text(header: Header, keyword: str) -> str:
    return "\\".join(header[keyword])


def _numbers(header: Header, keyword: str) -> list[float]:
    """The values of an element, also with a comma for the point; nothing where one of them is no number."""
    try:
        return [float(part.replace(",", ".")) for part in header[keyword]]
    except ValueError:
        return []


def _number(header: Header, keyword: str, default: float) -> float:
    return (_numbers(header, keyword) or [default])[0]
