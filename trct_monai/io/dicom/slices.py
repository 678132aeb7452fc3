"""CT slices by their headers: where each lies, how large its pixels are, and what its numbers mean.

A file holds one slice, or all of a volume (an enhanced, multi-frame CT). pydicom reads the headers, without pixels.
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "AcquisitionNumber", "ConvolutionKernel", "TemporalPositionIdentifier", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", SHARED, PER_FRAME,
)  # fmt: skip
"""What is read of a header."""

IDENTITY = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
"""What the slices of a series share."""

TELL_APART = ("AcquisitionNumber", "ConvolutionKernel", "TemporalPositionIdentifier", "ImageType")
"""What may differ between two stacks of slices under one UID."""

DICOMDIR = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: a table of contents."""

PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tag of the pixels, in either order of bytes."""

PIXELS = 0x7FE0
"""Their group: later ones hold what follows them, such as padding, signatures and elements of a maker's own."""

LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
"""Types of elements whose length takes four bytes."""

UNDEFINED = 0xFFFFFFFF

CT_STORAGE = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1")
"""SOPClassUID of CTs, which tells the modality where that is missing."""

MAX_SLICE = 2**28
"""Pixels of the largest slice; a header that says more is damaged."""


@dataclass(frozen=True)
class Slice:
    """One slice.

    Attributes:
        path: Its file.
        series: PatientID, StudyInstanceUID and SeriesInstanceUID: slices of one series share them.
        sop_uid: SOPInstanceUID.
        modality: CT in what we read; in upper case.
        image_type: ImageType in upper case, values separated by backslashes.
        apart: Values of `TELL_APART`.
        number: InstanceNumber; 0 without one.
        size: Rows and columns; 0 of what is no image.
        position: Centre of the first pixel in mm (3,), x to the left and y to the back; None if the header lacks it.
        orientation: Unit vectors along the rows and along the columns (6,); None if the header lacks it.
        spacing: Height and width of a pixel in mm; None if the header lacks it.
        rescale: RescaleSlope and RescaleIntercept, 1 and 0 where they are missing.
        is_rescaled: Whether the header has them.
        is_inverted: Whether small numbers are bright (MONOCHROME1).
        stored: Least and greatest number that a pixel can hold.
        padding: Least and greatest stored number that stands for no measurement; None if the header states none.
        is_coloured: Whether its pixels have colours, as a report of the dose has them.
    """

    path: Path
    series: tuple[str, str, str]
    sop_uid: str
    modality: str
    image_type: str
    apart: tuple[str, ...]
    number: int
    size: tuple[int, int]
    position: tuple[float, ...] | None
    orientation: tuple[float, ...] | None
    spacing: tuple[float, ...] | None
    rescale: tuple[float, float]
    is_rescaled: bool
    is_inverted: bool
    stored: tuple[int, int]
    padding: tuple[int, int] | None
    is_coloured: bool

    @property
    def normal(self) -> np.ndarray:
        """The direction across the slice (3,): to the head, if it is axial."""
        vectors = np.reshape(self.orientation if self.orientation is not None else (1, 0, 0, 0, 1, 0), (2, 3))
        return np.cross(vectors[0], vectors[1])

    @property
    def is_localizer(self) -> bool:
        """Whether the header calls it a localizer, a picture to plan the scan by."""
        return "LOCALIZER" in self.image_type or "SCOUT" in self.image_type


def read_slices_of(path: Path) -> list[Slice]:
    """The slices of one file by its header: one, or those of an enhanced CT in the order of its frames.

    A DICOMDIR has none. What is no image has one without pixels, and what is no CT one without a place.

    Raises:
        ValueError: If it is no DICOM file, or damaged.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard does not allow
        try:
            with path.open("rb") as file:
                header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=[*KEYWORDS])
                num_bytes = _check_end(file, path.stat().st_size)
            if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR:
                return []
            _check_pixels(header, num_bytes)
            return [_slice(path, header, group) for group in _groups(header)]
        except Exception as error:  # a damaged header raises whatever its bytes lead to
            reason = " ".join(str(error).split())
            raise ValueError(f"no DICOM file, or a damaged one ({reason or type(error).__name__})") from error


def identity_of(path: Path) -> tuple[str, str, str] | None:
    """PatientID, StudyInstanceUID and SeriesInstanceUID of a file that is damaged elsewhere; None if they are, too."""
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*IDENTITY])
            patient, study, series = (_text(header, key) for key in IDENTITY)
        except Exception:  # a damaged header raises whatever its bytes lead to
            return None
    return (patient, study, series) if series else None


def _check_pixels(header: Any, num_bytes: int | None) -> None:
    """Refuse pixels that are more or fewer than rows and columns say; some are padded to an even number of bytes."""
    if num_bytes is None or "Rows" not in header:
        return
    pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames") or 1)
    stated = -(-pixels * int(header.get("SamplesPerPixel") or 1) * int(header.get("BitsAllocated") or 16) // 8)
    if num_bytes not in (stated, stated + 1):
        raise ValueError(f"Rows and Columns need {stated} bytes of pixels, and there are {num_bytes}")


def _check_end(file: BinaryIO, size: int) -> int | None:
    """Refuse a file whose pixels are cut, or that does not end with them or with further elements.

    Bytes that were put in before or among the pixels leave as many behind them.

    Args:
        file: Where its pixels begin.
        size: Bytes of the file.

    Returns:
        Bytes of the pixels; None if they are compressed, or there are none.
    """
    place, num_bytes = file.tell(), None
    order: Literal["little", "big"] = "little"
    while place < size:
        file.seek(place)
        element = file.read(12)
        if element[:4] == PIXEL_DATA[1]:
            order = "big"
        group = int.from_bytes(element[:2], order)
        is_explicit = element[4:6].isalpha() and element[4:6].isupper()
        if is_explicit and element[4:6] not in LONG:
            length, head = int.from_bytes(element[6:8], order), 8
        else:
            length, head = (
                int.from_bytes(element[8:12] if is_explicit else element[4:8], order),
                12 if is_explicit else 8,
            )
        if length == UNDEFINED:
            return num_bytes  # compressed, or a sequence
        if group < PIXELS:
            raise ValueError(f"{size - place} bytes behind the pixels are no element of DICOM")
        num_bytes = length if element[:4] in PIXEL_DATA else num_bytes
        place += head + length
    if place > size:
        raise ValueError(f"cut, the last {place - size} bytes are missing")
    return num_bytes


def _groups(header: Any) -> list[list[Any]]:
    """For each slice the data sets in which an element may stand, the most special first."""
    frames = header.get(PER_FRAME)
    if not frames:
        return [[header]]
    if len(frames) != int(header.NumberOfFrames):
        raise ValueError(f"{header.NumberOfFrames} frames, and {len(frames)} places")
    return [[*_flat(frame), *_flat(next(iter(header.get(SHARED) or []), {})), header] for frame in frames]


def _flat(group: Any) -> list[Any]:
    """The items of the sequences in one functional group."""
    return [item for element in group for item in (element.value if element.VR == "SQ" else [])]


def _slice(path: Path, header: Any, groups: Sequence[Any]) -> Slice:
    storage, modality = _text(header, "SOPClassUID"), _text(header, "Modality").upper()
    modality = modality or ("CT" if storage in CT_STORAGE else "")
    if "Rows" not in header and (storage in CT_STORAGE or not storage):
        raise ValueError("Rows is missing")
    rows, columns = (int(header.Rows), int(header.Columns)) if "Rows" in header else (0, 0)  # a report has no pixels
    places = groups if modality == "CT" and rows else []
    samples, allocated = int(header.get("SamplesPerPixel") or 1), int(header.get("BitsAllocated") or 16)
    if (
        (not 0 < rows * columns <= MAX_SLICE and "Rows" in header)
        or samples not in (1, 3, 4)
        or allocated not in (1, 8, 12, 16, 32, 64)
    ):
        raise ValueError(f"{rows} x {columns} pixels of {allocated} bits in {samples} colours")
    bits = int(header.get("BitsStored") or allocated)
    is_signed = int(header.get("PixelRepresentation") or 0) == 1
    least = -(2 ** (bits - 1)) if is_signed else 0
    slope, intercept = (_numbers(places, key, 1) for key in ("RescaleSlope", "RescaleIntercept"))
    patient, study, series = (_text(header, key) for key in IDENTITY)
    return Slice(
        path,
        (patient, study, series),
        _text(header, "SOPInstanceUID"),
        modality,
        "\\".join(_texts(groups, "FrameType") or _texts(groups, "ImageType")).upper(),
        tuple("\\".join(_texts(groups, key)) for key in TELL_APART),
        int(number) if (number := _text(header, "InstanceNumber")).isdigit() else 0,
        (rows, columns),
        _numbers(places, "ImagePositionPatient", 3),
        _numbers(places, "ImageOrientationPatient", 6),
        _numbers(places, "PixelSpacing", 2),
        ((slope or (1.0,))[0], (intercept or (0.0,))[0]),
        slope is not None and intercept is not None,
        _text(header, "PhotometricInterpretation") == "MONOCHROME1",
        (least, least + 2**bits - 1),
        _padding(header, least),
        samples > 1,
    )


def _padding(header: Any, least: int) -> tuple[int, int] | None:
    ends = [_texts([header], key) for key in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    numbers = [int(value[0]) for value in ends if value and re.fullmatch(r"-?\d+", value[0])]
    if not numbers:
        return None
    signed = [number - 2**16 if least < 0 and number >= 2**15 else number for number in numbers]
    return min(signed), max(signed)


def _texts(groups: Sequence[Any], keyword: str) -> list[str]:
    """The values of the first element of this name, as text; nothing where they are not what the standard allows."""
    for group in groups:
        try:
            value = group.get(keyword)
        except (TypeError, ValueError):
            continue
        if value not in (None, ""):
            return [str(part).strip("\x00 ") for part in _parts(value)]
    return []


def _text(header: Any, keyword: str) -> str:
    return "\\".join(_texts([header], keyword))


def _numbers(groups: Sequence[Any], keyword: str, count: int) -> tuple[float, ...] | None:
    """The numbers of an element, also with a comma for the point; None if it is missing or empty.

    Raises:
        ValueError: If they are not so many finite numbers.
    """
    for group in groups:
        if keyword not in group:
            continue
        raw = group.get_item(keyword).value if hasattr(group, "get_item") else group[keyword]
        text = raw.decode("latin-1") if isinstance(raw, bytes) else "\\".join(map(str, _parts(raw)))
        parts = [part.strip("\x00 ").replace(",", ".") for part in text.split("\\")]
        if not any(parts):
            return None
        try:
            numbers = tuple(float(part) for part in parts)
        except ValueError:
            numbers = ()
        if len(numbers) != count or not all(map(isfinite, numbers)):
            wanted = "a finite number" if count == 1 else f"{count} finite numbers"
            raise ValueError(f"{keyword} must be {wanted}, got {text.strip()!r}")
        return numbers
    return None


def _parts(value: Any) -> list[Any]:
    """The values of an element that holds none, one or several."""
    return [] if value is None else [value] if isinstance(value, str) or not hasattr(value, "__iter__") else [*value]
