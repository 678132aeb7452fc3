"""CT slices by their headers: where each lies, how large its pixels are, and what its numbers mean.

A file holds one slice, or all of a volume (an enhanced, multi-frame CT). pydicom reads the headers, without pixels.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"

KEYWORDS = (
    "SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "AcquisitionNumber", "ConvolutionKernel", "TemporalPositionIdentifier", "InstanceNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept",
    "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "BitsStored",
    "PixelRepresentation", SHARED, PER_FRAME,
)  # fmt: skip
"""What is read of a header."""

TELL_APART = ("AcquisitionNumber", "ConvolutionKernel", "TemporalPositionIdentifier", "ImageType")
"""What may differ between two stacks of slices under one UID."""

DICOMDIR = "1.2.840.10008.1.3.10"
"""Media Storage Directory Storage: a table of contents."""

PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")
"""Tag of the pixels, in either order of bytes."""

AFTER_PIXELS = (b"\xfc\xff\xfc\xff", b"\xff\xfc\xff\xfc", b"\xfa\xff\xfa\xff", b"\xff\xfa\xff\xfa")
"""Tags that may follow: padding and digital signatures."""

UNDEFINED = 0xFFFFFFFF

CT_STORAGE = {"1.2.840.10008.5.1.4.1.1.2": "CT", "1.2.840.10008.5.1.4.1.1.2.1": "CT"}
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
        size: Rows and columns.
        position: Centre of the first pixel in mm (3,), x to the left and y to the back; None if the header lacks it.
        orientation: Unit vectors along the rows and along the columns (6,); None if the header lacks it.
        spacing: Height and width of a pixel in mm; None if the header lacks it.
        rescale: RescaleSlope and RescaleIntercept, 1 and 0 where they are missing.
        is_rescaled: Whether the header has them.
        is_inverted: Whether small numbers are bright (MONOCHROME1).
        stored: Least and greatest number that a pixel can hold.
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

    A DICOMDIR has none, and what is no image has one of 1 x 1 pixel.

    Raises:
        ValueError: If it is no DICOM image, or its header is damaged.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard does not allow
        try:
            with path.open("rb") as file:
                header = pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=[*KEYWORDS])
                _check_end(file)
            if str(header.file_meta.get("MediaStorageSOPClassUID", "")) == DICOMDIR:
                return []
            return [_slice(path, header, group) for group in _groups(header)]
        except Exception as error:  # a damaged header raises whatever its bytes lead to
            reason = " ".join(str(error).split())
            raise ValueError(f"no DICOM file, or a damaged one ({reason or type(error).__name__})") from error


def _check_end(file: BinaryIO) -> None:
    """Refuse a file with bytes behind its pixels that are no elements: as many or more were put in before.

    Args:
        file: Where its pixels begin.
    """
    start = file.tell()
    element = file.read(12)
    if element[:4] not in PIXEL_DATA:
        return
    order = "little" if element[:2] == b"\xe0\x7f" else "big"
    is_explicit = element[4:6] in (b"OW", b"OB")
    length = int.from_bytes(element[8:12] if is_explicit else element[4:8], order)  # type: ignore[arg-type]
    if length == UNDEFINED:
        return  # compressed
    file.seek(start + (12 if is_explicit else 8) + length)
    rest = file.read(4)
    if rest and rest not in AFTER_PIXELS:
        raise ValueError("bytes behind the pixels that are no element of DICOM")


def _groups(header: Any) -> list[list[Any]]:
    """For each slice the data sets in which an element may stand, the most special first."""
    frames = header.get(PER_FRAME)
    if not frames:
        return [[header]] * int(header.get("NumberOfFrames") or 1)
    if len(frames) != int(header.NumberOfFrames):
        raise ValueError(f"{header.NumberOfFrames} frames, and {len(frames)} places")
    return [[*_flat(frame), *_flat(next(iter(header.get(SHARED) or []), {})), header] for frame in frames]


def _flat(group: Any) -> list[Any]:
    """The items of the sequences in one functional group."""
    return [item for element in group for item in (element.value if element.VR == "SQ" else [])]


def _slice(path: Path, header: Any, groups: Sequence[Any]) -> Slice:
    modality = _text(header, "Modality").upper() or CT_STORAGE.get(_text(header, "SOPClassUID"), "")
    # A structured report and its like have no pixels.
    is_image = modality in ("", "CT") or "Rows" in header
    rows, columns = (int(header.Rows), int(header.Columns)) if is_image else (1, 1)
    samples, allocated = int(header.get("SamplesPerPixel") or 1), int(header.get("BitsAllocated") or 16)
    if not 0 < rows * columns <= MAX_SLICE or samples not in (1, 3, 4) or allocated not in (1, 8, 12, 16, 32, 64):
        raise ValueError(f"{rows} x {columns} pixels of {allocated} bits in {samples} colours")
    bits = int(header.get("BitsStored") or allocated)
    is_signed = int(header.get("PixelRepresentation") or 0) == 1
    least = -(2 ** (bits - 1)) if is_signed else 0
    slope, intercept = (_numbers(groups, key, 1) for key in ("RescaleSlope", "RescaleIntercept"))
    identity = [_text(header, key) for key in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")]
    return Slice(
        path,
        (identity[0], identity[1], identity[2]),
        _text(header, "SOPInstanceUID"),
        modality,
        "\\".join(_texts(groups, "FrameType") or _texts(groups, "ImageType")).upper(),
        tuple("\\".join(_texts(groups, key)) for key in TELL_APART),
        int(number) if (number := _text(header, "InstanceNumber")).isdigit() else 0,
        (rows, columns),
        _numbers(groups, "ImagePositionPatient", 3),
        _numbers(groups, "ImageOrientationPatient", 6),
        _numbers(groups, "PixelSpacing", 2),
        ((slope or (1.0,))[0], (intercept or (0.0,))[0]),
        slope is not None and intercept is not None,
        _text(header, "PhotometricInterpretation") == "MONOCHROME1",
        (least, least + 2**bits - 1),
        samples > 1,
    )


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
