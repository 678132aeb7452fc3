"""Radiographs (CR, DX) of the same patients as the CTs: paired by the PatientID of DICOM headers, never by folders."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from trct_monai.datasets.patients import named_patient
from trct_monai.datasets.sources import Found
from trct_monai.io.dicom.examination import read_examination

CHEST = re.compile(r"CHEST|THORA|TORAX|LUNG|PULMO|RIB|STERN|HEART|CARDI")
OTHER_PARTS = re.compile(
    r"ABDOM|PELVI|\bHIP|SKULL|\bHEAD|\bNECK|SPINE|SHOULDER|CLAVIC|HUMER|ELBOW|\bARM|WRIST|HAND|FINGER|FEMUR|KNEE|\bLEG|"
    r"TIBIA|ANKLE|FOOT|\bTOE|BREAST|\bJAW|SINUS|EXTREMITY"
)
"""Words of BodyPartExamined: what has one of the others and none of the chest is no chest radiograph. Registration
decides about the rest."""


def pair_radiographs(root: Path, found: Found, single_view: bool) -> Found:
    """The CTs with the radiographs of their patients; all others among what is skipped, with the reason.

    Args:
        root: The folder that was searched, for messages.
        found: What it holds.
        single_view: Whether one radiograph is enough.

    Raises:
        ValueError: If no CT has a radiograph of its patient.
    """
    with_ct = {source.header_patient for source in found.sources} - {""}
    of_patient: dict[str, list[Path]] = defaultdict(list)
    places = {series.files[0] for series in found.radiograph_series}
    skipped = [entry for entry in found.skipped if entry[0] not in places]
    for series in found.radiograph_series:
        patient = named_patient(series.patient_id)
        if patient in with_ct:
            for file in series.files:
                if part := _other_part(file):
                    skipped.append((file, f"a radiograph of another part by its header (BodyPartExamined {part})"))
                else:
                    of_patient[patient].append(file)
        else:
            why = f"of {patient}, of whom there is no CT" if patient else "of a PatientID that names nobody"
            skipped.append((series.files[0], f"{_count(len(series.files))} {why}"))
    sources = []
    for source in found.sources:
        files = of_patient.get(source.header_patient, [])
        if not source.header_patient:
            reason = "a CT without a PatientID, by which radiographs are found"
        elif not files:
            reason = f"a CT of {source.header_patient}, of whom there are no radiographs"
        elif len(files) == 1 and not single_view:
            reason = f"a CT of {source.header_patient}, of whom there is one radiograph: --single_view True keeps it"
        else:
            sources.append(replace(source, unsorted=tuple(sorted(files)), radiographs={}))
            continue
        skipped.append((source.path, reason))
    if not sources:
        raise ValueError(
            f"{root}: expected CTs and radiographs of the same patients, by the PatientID of their DICOM headers; got "
            f"{len(found.sources)} CTs and {_count(sum(len(series.files) for series in found.radiograph_series))}"
            + (f"; {skipped[-1][0]} is {skipped[-1][1]}" if skipped else "")
        )
    return replace(found, sources=sources, skipped=skipped)


def describe_radiographs(found: Found) -> Iterator[str]:
    """One line if there are radiographs of the CTs' patients, and none of them is kept."""
    if any(source.unsorted for source in found.sources):
        return
    with_ct = {source.header_patient for source in found.sources} - {""}
    owners = [named_patient(series.patient_id) for series in found.radiograph_series for _ in series.files]
    theirs = [patient for patient in owners if patient in with_ct]
    if theirs:
        count = len(set(theirs))
        yield (
            f"{_count(len(theirs), 'CR/DX ')} of {count} of these patients: --real_radiographs True keeps "
            f"{'them' if len(theirs) > 1 else 'it'}"
        )


def _other_part(file: Path) -> str:
    """BodyPartExamined, if it names another part than the chest."""
    part = read_examination(file).body_part
    return part if OTHER_PARTS.search(part) and not CHEST.search(part) else ""


def _count(number: int, kind: str = "") -> str:
    return f"{number} {kind}radiograph{'' if number == 1 else 's'}"
