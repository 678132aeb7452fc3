"""4-D CTs: the phases of a breath or a heart beat, which belong together, and what each of them is called."""

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trct_monai.datasets.sources import Source, find_sources, safe_name
from trct_monai.io.ct import extension_of
from trct_monai.io.dicom.header import read_header

FEWEST_PHASES = 4
"""Fewer phases are no cycle."""

TOLERANCE_PERCENT = 1.0
"""How far a phase may be from its place in a cycle of equal steps."""

STUDY_UID, SERIES_DESCRIPTION = "0020|000d", "0008|103e"

_PERCENT = re.compile(r"(?<![\d.])(\d{1,3})(?:\.\d+)?\s*(?:%|pct|percent)", re.IGNORECASE)
_NAMED = re.compile(r"(?:^|[^a-z])(?:phase|resp|ph|t|p|ct)[ _-]*(\d{1,3})(?![\d.])", re.IGNORECASE)
_NUMBER = re.compile(r"^0*(\d{1,3})$")


@dataclass(frozen=True)
class Cycle:
    """One 4-D CT.

    Attributes:
        case_id: Name of the case.
        patient_id: The patient.
        phases: The CT of each phase in percent of the cycle, from 0 on.
    """

    case_id: str
    patient_id: str
    phases: dict[float, Source]


def find_cycles(root: str | os.PathLike[str], min_slices: int = 16) -> tuple[list[Cycle], list[str]]:
    """The 4-D CTs of a folder, and one line for each that is none.

    What belongs together: the files of one folder, and the DICOM series of one study. A phase is what a series'
    description or the name of a file or of its folder says: ``Gated, 30.0%``, ``T30``, ``phase_3``, ``30``. Numbers
    from 0 to N - 1 for N phases are steps, others percent.

    Args:
        root: Where to look.
        min_slices: Shorter DICOM series do not count.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = Path(root)
    found = find_sources(root, min_slices)
    refused = [f"{path}: {reason}" for path, reason in found.refused]
    groups: dict[tuple[str, ...], list[Source]] = {}
    for source in found.sources:
        groups.setdefault(_group(source), []).append(source)
    patients = [_patient(root, sources[0]) for sources in groups.values()]
    cycles: dict[str, Cycle] = {}
    for (key, sources), patient in zip(groups.items(), patients):
        name = safe_name(patient if patients.count(patient) == 1 else f"{patient}_{_place(root, key)}")
        try:
            if name in cycles:
                raise ValueError(f"{sources[0].path.parent}: another 4-D CT has the name {name}")
            cycles[name] = Cycle(name, patient, _in_order(sources))
        except ValueError as error:
            refused.append(str(error))
    return [cycles[name] for name in sorted(cycles)], refused


def phase_of(source: Source) -> int | None:
    """The number by which a CT says which phase it is; None if it does not."""
    path = source.path
    stem = path.name[: len(path.name) - len(extension_of(path.name) or "")]
    described = read_header(source.files[0], [SERIES_DESCRIPTION])[0] if source.format == "DICOM" else ""
    for text in (described, stem):
        for pattern in (_PERCENT, _NAMED, _NUMBER):
            numbers = pattern.findall(text)
            if numbers:
                return int(numbers[-1])
    return None


def _group(source: Source) -> tuple[str, ...]:
    """What the phases of one cycle have in common."""
    if source.format == "DICOM":
        return ("study", source.patient_id, read_header(source.files[0], [STUDY_UID])[0])
    return ("folder", str(source.path.parent))


def _place(root: Path, group: tuple[str, ...]) -> str:
    """What tells a patient's 4-D CTs apart: the folders below the patient's, or a digest of the study."""
    if group[0] == "study":
        return hashlib.sha256(group[-1].encode()).hexdigest()[:6]
    return "_".join(Path(group[-1]).relative_to(root).parts[1:])


def _patient(root: Path, source: Source) -> str:
    """The patient: of files, the folder that they are in."""
    if source.format == "DICOM":
        return source.patient_id
    parts = source.path.relative_to(root).parts
    return safe_name(parts[0] if len(parts) > 1 else root.absolute().name)


def _in_order(sources: list[Source]) -> dict[float, Source]:
    """The phases of a cycle in percent, complete.

    Raises:
        ValueError: If one is not named, there twice, or missing.
    """
    where = sources[0].path.parent
    numbers: dict[int, Source] = {}
    for source in sources:
        number = phase_of(source)
        if number is None:
            raise ValueError(f"{source.path}: does not say which phase it is; name the files T00, T10, ... in percent")
        if number in numbers:
            raise ValueError(
                f"{source.path}: phase {number} again, also {numbers[number].path}; give each 4-D CT its own folder"
            )
        numbers[number] = source
    if len(numbers) < FEWEST_PHASES:
        raise ValueError(f"{where}: {len(numbers)} phases are no cycle; at least {FEWEST_PHASES} are")
    return _steps(where, numbers)


def _steps(where: Path, numbers: Mapping[int, Source]) -> dict[float, Source]:
    """Phases by their percent, in equal steps from 0 on."""
    found = sorted(numbers)
    count = len(found)
    if found == list(range(count)):
        return {100.0 * number / count: numbers[number] for number in found}
    step = min(later - earlier for earlier, later in zip(found, found[1:]))
    whole = round(100 / step)
    expected = [100.0 * number / whole for number in range(whole)]
    missing = [place for place in expected if not any(abs(place - number) <= TOLERANCE_PERCENT for number in found)]
    if missing or count != whole:
        raise ValueError(
            f"{where}: phases {', '.join(map(str, found))} of a cycle"
            + (f"; {', '.join(f'{place:g}' for place in missing)} % missing" if missing else " are not equal steps")
            + ": an average would stand for another breath"
        )
    return {place: numbers[number] for place, number in zip(expected, found)}
