"""Pairs of CTs for the phase generator, a time average and its phase 0, in the layout of pix2pix.

``trainA/`` holds time averages, ``trainB/`` phase 0 under the same names, ``testA/`` and ``testB/`` likewise, and
``valA/`` and ``valB/`` if there are any. A CT is a file of any format that `read_ct` knows, or a folder with one DICOM
series.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from trct_monai.datasets.patients import usual_patient
from trct_monai.datasets.sources import Source, safe_name
from trct_monai.io.ct import DICOM, ct_files, extension_of
from trct_monai.io.dicom.header import read_study
from trct_monai.io.picture import ENDINGS

FOLDERS = {"training": "train", "validation": "val", "test": "test"}
"""Section to the prefix of its two folders."""


AVERAGE, PHASE = "A", "B"
"""What is added for time averages, and for phase 0."""


COMPANIONS = (".raw", ".raw.gz", ".zraw", ".json", ".csv", ".txt", ".md", ".xml", *ENDINGS)
"""Files beside CTs that are left alone: the voxels of a header, notes."""


@dataclass(frozen=True)
class Pair:
    """One patient's two CTs.

    Attributes:
        case_id: Name of both files.
        section: The section of its folder.
        average: The time average.
        phase: Phase 0.
    """

    case_id: str
    section: str
    average: Source
    phase: Source


def is_phase_layout(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has the layout of pix2pix: trainA and trainB, or testA and testB."""
    return any(all((Path(folder) / f"{prefix}{side}").is_dir() for side in "AB") for prefix in FOLDERS.values())


def ct_source(path: str | os.PathLike[str], min_slices: int = 4) -> Source:
    """The CT that a path is: a file of any known format, or a folder with one DICOM series or one such file.

    Raises:
        ValueError: If it is neither.
    """
    path = Path(path)
    kind, files = ct_files(path, min_slices)
    name = path.name if path.is_dir() else path.name.removesuffix(extension_of(path.name) or "")
    patient = read_study(files[0]).get("PatientID") if kind == DICOM else None
    return Source(safe_name(name), usual_patient(path.parent, path, patient or ""), kind, path, tuple(files))


def find_cts(folder: str | os.PathLike[str], min_slices: int = 4) -> tuple[dict[str, Source], list[str]]:
    """The CTs directly in a folder, by name, and one line for each entry that should be one and is none.

    Args:
        folder: Where to look.
        min_slices: Shorter DICOM series do not count.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of CTs")
    found: dict[str, Source] = {}
    refused = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower().endswith(COMPANIONS):
            continue
        try:
            source = ct_source(path, min_slices)
        except ValueError as error:
            refused.append(str(error))
            continue
        if source.case_id in found:
            refused.append(f"{path}: another CT has the name {source.case_id}")
        else:
            found[source.case_id] = source
    return found, refused


def find_pairs(root: str | os.PathLike[str], min_slices: int = 4) -> tuple[list[Pair], list[str]]:
    """All pairs of the layout, and one line for each entry that is in none; equal names make a pair."""
    pairs, refused = [], []
    for section, prefix in FOLDERS.items():
        folders = [Path(root) / f"{prefix}{side}" for side in (AVERAGE, PHASE)]
        if not any(folder.is_dir() for folder in folders):
            continue
        (averages, some), (phases, more) = (find_cts(folder, min_slices) for folder in folders)
        refused += some + more
        for mine, other, folder in ((averages, phases, folders[1]), (phases, averages, folders[0])):
            lonely = [source.path for name, source in mine.items() if name not in other]
            refused += [f"{path}: {folder.name} has no CT of this name" for path in lonely]
        pairs += [Pair(name, section, averages[name], phases[name]) for name in averages if name in phases]
    return pairs, refused
