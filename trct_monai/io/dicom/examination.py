"""When a DICOM file was taken and what it shows, by its header. Nothing of it that names a person or a day is kept."""

import re
import warnings
from dataclasses import dataclass
from datetime import date
from pathlib import Path

DATES = ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate")
"""Where a header states the day; the first that is one counts."""


@dataclass(frozen=True)
class Examination:
    """What a header says about an examination.

    Attributes:
        day: The day; None if the header has none.
        body_part: BodyPartExamined in upper case; empty if the header has none.
    """

    day: date | None
    body_part: str

    def days_since(self, other: "Examination") -> int | None:
        """Days from another examination to this one, negative if this was before; None if one has no day."""
        return None if self.day is None or other.day is None else (self.day - other.day).days


def read_examination(path: Path) -> Examination:
    """The examination that a DICOM file is of.

    Raises:
        ValueError: If the header cannot be read.
    """
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that the standard does not allow
        try:
            keywords = [*DATES, "BodyPartExamined"]
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=[*keywords])
            *days, part = (str(header.get(keyword) or "").strip() for keyword in keywords)
        except Exception as error:  # a damaged header raises whatever its bytes lead to
            raise ValueError(f"{path}: no DICOM file, or a damaged one ({type(error).__name__})") from error
    return Examination(next((day for text in days if (day := _day(text))), None), part.upper())


def _day(text: str) -> date | None:
    """A day as 20050131 or, before DICOM, 2005.01.31."""
    match = re.fullmatch(r"(\d{4})[.-]?(\d\d)[.-]?(\d\d)", text)
    try:
        return date(*map(int, match.groups())) if match else None
    except ValueError:
        return None
