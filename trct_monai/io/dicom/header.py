"""DICOM headers: elements as text and numbers, patient and study."""

import hashlib
import struct
import uuid
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

STUDY = {
    "StudyDate": "0008|0020",
    "StudyTime": "0008|0030",
    "AccessionNumber": "0008|0050",
    "ReferringPhysicianName": "0008|0090",
    "StudyDescription": "0008|1030",
    "PatientName": "0010|0010",
    "PatientID": "0010|0020",
    "PatientBirthDate": "0010|0030",
    "PatientSex": "0010|0040",
    "StudyInstanceUID": "0020|000d",
    "StudyID": "0020|0010",
}
"""Elements that all series of a study share, by keyword."""


CHARACTER_SETS = {
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 192": "utf-8",
}
"""Python's names of SpecificCharacterSet; any other is read as ASCII."""


VALUE_REPRESENTATIONS = (b"CS", b"DA", b"LO", b"OB", b"SH", b"TM", b"UI", b"UL")
"""How an element of the first groups may state its type."""


def is_dicom(path: Path) -> bool:
    """Whether a file begins as a DICOM file does, with the 128 bytes and DICM, or at once with its first element."""
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    if head[128:] == b"DICM":
        return True
    group, element, length = struct.unpack("<HHI", head[:8]) if len(head) == 132 else (0, 0, 0)
    known = (group == 2 and element <= 3) or (group == 8 and element <= 0x18)
    return known and (head[4:6] in VALUE_REPRESENTATIONS or (length < 1024 and length % 2 == 0))


def read_study(path: Path) -> dict[str, str]:
    """Patient and study of a DICOM file, by the keywords of `STUDY`; empty elements are left out."""
    characters, *texts = read_header(path, ["0008|0005", *STUDY.values()])
    encoding = CHARACTER_SETS.get(characters.split("\\")[-1].strip(), "ascii")
    texts = [text.encode("utf-8", "surrogateescape").decode(encoding, "replace") for text in texts]
    return {keyword: text for keyword, text in zip(STUDY, texts) if text}


def common_study(paths: Iterable[Path]) -> dict[str, str]:
    """Patient and study of the DICOM files among some files; empty if there are none.

    Raises:
        ValueError: If the files are of two patients or studies.
    """
    studies = {path: read_study(path) for path in paths if is_dicom(path)}
    for keyword in ("PatientID", "StudyInstanceUID"):
        if len({study.get(keyword, "") for study in studies.values()}) > 1:
            raise ValueError(f"{' and '.join(map(str, studies))} differ in {keyword}")
    return next(iter(studies.values()), {})


def read_header(path: Path, tags: Sequence[str]) -> list[str]:
    """Elements of a DICOM file's header as text, by tags such as ``0018|5101``; empty where one is missing."""
    import itk

    image_io = itk.GDCMImageIO.New()
    image_io.SetFileName(str(path))
    image_io.ReadImageInformation()
    header = image_io.GetMetaDataDictionary()
    return [header_text(header, tag) for tag in tags]


def header_text(header: Any, tag: str) -> str:
    return str(header[tag]).strip().rstrip("\x00") if header.HasKey(tag) else ""


def last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def uid_of(*parts: bytes) -> str:
    """A unique identifier that depends on these bytes alone (DICOM PS3.5, annex B.2)."""
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(b'|'.join(parts)).digest()[:16], version=5).int}"
