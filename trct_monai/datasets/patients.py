"""The patient of a CT: by its header, its path, or a table. All cases of one go into one section of a split."""

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from trct_monai.io.ct import extension_of
from trct_monai.io.files import read_text

AUTO, BY_NAME = "auto", "name"
"""Rules beside a table."""

PLACEHOLDERS = re.compile(
    r"(anon(ym(ous|i[sz]ed)?)?|de-?identified|unknown|none|null|n/?a|no[ _-]?(name|id)|removed|"
    r"x+|0+|[-_. ]+)[ _^-]*(id|patient|name)?",
    re.IGNORECASE,
)
"""What anonymisers put in the place of a PatientID: it names nobody."""

GROUPS = re.compile(
    r"(images?|labels?)(T[rs])?|train(ing)?(set|data)?|val(id(ation)?)?(set|data)?|test(ing|set|data)?|"
    r"(sub|data)?sets?[ _-]*\d*|fold[ _-]*\d*|splits?[ _-]*\d*|part[ _-]*\d*|batch[ _-]*\d*|"
    r"cts?([ _-]?scans?)?|scans?|volumes?|data|nii|nifti|dicom|raw|patients?|cases?|subjects?|cohort[ _-]*\d*",
    re.IGNORECASE,
)
"""Folders that hold many patients, by their names: nnU-Net's imagesTr, LUNA16's subset0, train."""

_LIDC = re.compile(r"LIDC-IDRI-\d{4}")
_BIDS = re.compile(r"sub-[A-Za-z0-9]+(?=_)")
_CHANNEL = re.compile(r"_0000$")


PatientRule = Callable[[Path, str], str]
"""From a CT's file, or a series' folder, and what its header or record says, to the patient."""


def patient_of(name: str) -> str:
    """The patient of a case by its name: the number of LIDC-IDRI if it has one, else the name itself."""
    match = _LIDC.search(name)
    return match.group() if match else name


def patient_rule(root: Path, patients: str = AUTO) -> PatientRule:
    """How to tell the patient of a CT.

    Args:
        root: The folder that is searched.
        patients: ``auto``: a DICOM series is its PatientID's, unless that is a placeholder such as ANONYMOUS; any other
            CT that of its LIDC-IDRI number, of its own name if it lies in `root`, in a folder of its name or in one of
            `GROUPS`, else that of its topmost folder. ``name``: each file, and each folder of series, is one patient's.
            Else a CSV file with the columns ``path``, of a file or a folder relative to `root`, and ``patient_id``.

    Raises:
        FileNotFoundError: If there is no such table.
        ValueError: If it lacks a column, or names a path twice.
    """
    if patients == AUTO:
        return partial(usual_patient, root)
    if patients == BY_NAME:
        return lambda path, known: _own_name(path)
    table = _read_table(root, Path(patients))

    def listed(path: Path, known: str) -> str:
        relative = path.relative_to(root)
        for place in (relative, *relative.parents):
            if place.as_posix() in table:
                return table[place.as_posix()]
        raise ValueError(f"{path}: the table {patients} does not name it, nor a folder above it")

    return listed


def _read_table(root: Path, path: Path) -> dict[str, str]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; patients must be {AUTO}, {BY_NAME} or a CSV file")
    table: dict[str, str] = {}
    for number, row in enumerate(read_names(path), 2):
        place, name = (row.get(key, "") for key in ("path", "patient_id"))
        if not place or not name:
            raise ValueError(f"{path}: line {number} must have the columns path and patient_id, got {row}")
        place = place.replace("\\", "/")
        place = Path(os.path.relpath(place, root.absolute()) if os.path.isabs(place) else place).as_posix()
        if table.setdefault(place, name) != name:
            raise ValueError(f"{path}: {place} is {table[place]}'s and {name}'s")
    absent = [place for place in table if not (root / place).exists()]
    if absent or not table:
        wrong = f"{root / absent[0]} is not there" if absent else "it names nobody"
        raise ValueError(f"{path}: {wrong}; it must have the columns path, relative to the input, and patient_id")
    return table


def read_names(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a small table that somebody wrote: columns in lower case; commas, semicolons or tabs between them.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip(" ,;\t")]
    mark = max(",;\t", key=(lines[0] if lines else "").count)
    rows = csv.DictReader(lines, delimiter=mark, restval="")
    return [{key.strip().lower(): (value or "").strip() for key, value in row.items() if key} for row in rows]


def describe_patients(patients: Iterable[str]) -> list[str]:
    """One line if several CTs count as one patient's.

    Args:
        patients: The patient of each CT.
    """
    counts = Counter(patients)
    if len(counts) == 1 < counts.total():
        return [
            f"all {counts.total()} CTs count as one patient's, {next(iter(counts))}, and go into one section; if they "
            "are not: --patients name, or a CSV file with the columns path and patient_id"
        ]
    several = [f"{patient} ({count})" for patient, count in counts.items() if count > 1]
    more = ", ..." if len(several) > 10 else ""
    line = f"patients with several CTs, which stay together: {', '.join(several[:10])}{more}; --patients otherwise"
    return [line] if several else []


def usual_patient(root: Path, path: Path, known: str) -> str:
    """The patient by the rule ``auto`` of `patient_rule`.

    Args:
        root: The folder that is searched.
        path: A CT's file, or the folder of a series, in `root`.
        known: PatientID, or what a record says; empty if there is none.
    """
    if named := named_patient(known):
        return named
    known = unicodedata.normalize("NFC", known).strip()
    parts = path.relative_to(root).parts
    if match := _LIDC.search("/".join(parts)):
        return match.group()
    names = list(parts)
    while names and GROUPS.fullmatch(names[0]):
        names.pop(0)
    if path.is_dir():
        return unicodedata.normalize("NFC", names[0] if names else known or root.absolute().name)
    return _own_name(path) if len(names) < 2 or _stem(path) == path.parent.name else names[0]


def named_patient(patient_id: str) -> str:
    """A PatientID without blanks around it; empty if it is a placeholder, which names nobody."""
    known = unicodedata.normalize("NFC", patient_id).strip()
    return "" if PLACEHOLDERS.fullmatch(known) else known


def _own_name(path: Path) -> str:
    """The name of a file without its ending, or of a folder."""
    name = unicodedata.normalize("NFC", path.absolute().name if path.is_dir() else _CHANNEL.sub("", _stem(path)))
    match = _BIDS.match(name)
    return match.group() if match else name


def _stem(path: Path) -> str:
    return path.name[: len(path.name) - len(extension_of(path.name) or "")]
