"""CTs of folders as training cases, some patients held out."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_names
from trct_monai.datasets.sections import RadiographCases
from trct_monai.datasets.sources import find_sources
from trct_monai.io.datalist import load_datalist


def ct_cases(folders: str | os.PathLike[str] | Sequence[str] | None, min_slices: int = 16) -> list[dict[str, Any]]:
    """The CTs of some folders, for `trct_monai.transforms.LoadPatientd`.

    Whose they are follows the rule of `prepare`: in DICOM by the PatientID; else each file directly in a folder is one
    patient's, and each subfolder is.

    Args:
        folders: One folder or several, also as text with commas between; CTs in any format that `prepare` reads.
        min_slices: Shorter DICOM series are left out.

    Returns:
        For each CT ``case_id``, ``patient_id``, ``patient`` (its path) and ``files`` (all of its files), in the order
        of the names.

    Raises:
        ValueError: If there is no CT, one cannot be read as a whole, or two have one name.
    """
    places = parse_names(folders)
    if not places:
        raise ValueError("no folder of CTs was given: pass --cts FOLDER, or several with commas between them")
    cases: dict[str, dict[str, Any]] = {}
    for folder in places:
        if not Path(folder).is_dir():
            raise ValueError(f"{folder}: no such folder of CTs")
        found = find_sources(Path(folder), min_slices)
        if found.refused:
            path, reason = found.refused[0]
            raise ValueError(f"{len(found.refused)} CTs of {folder} are refused, such as {path}: {reason}")
        for source in found.sources:
            files = [str(file) for file in source.files]
            case = {"case_id": source.case_id, "patient_id": source.patient_id, "patient": str(source.path)}
            if cases.setdefault(source.case_id, {**case, "files": files})["files"] != files:
                raise ValueError(
                    f"two CTs are called {source.case_id}: {cases[source.case_id]['patient']}, {source.path}"
                )
    if not cases:
        raise ValueError(f"{', '.join(places)}: no CT found")
    return [cases[name] for name in sorted(cases)]


def hold_out(
    cases: Sequence[dict[str, Any]], names: str | int | Iterable[str | int] = ()
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Cases to train on, and those that are held out: all of a patient's, if one of them is.

    Args:
        cases: As `ct_cases` gives them.
        names: ``case_id`` or ``patient_id`` of what is held out, also as text with commas between, or as numbers, which
            a command line makes of names of digits.

    Raises:
        ValueError: If a name is that of no case, or nothing is left to train on.
    """
    wanted = parse_names(names)
    known = {case[key] for case in cases for key in ("case_id", "patient_id")}
    missing = [name for name in wanted if name not in known]
    if missing:
        raise ValueError(
            f"{', '.join(missing)}: no such case or patient to hold out; there are "
            f"{', '.join(case['case_id'] for case in cases)}"
        )
    patients = {case["patient_id"] for case in cases if case["case_id"] in wanted or case["patient_id"] in wanted}
    training = [case for case in cases if case["patient_id"] not in patients]
    if not training:
        raise ValueError(f"all {len(cases)} CTs are held out; nothing is left to train on")
    return training, [case for case in cases if case["patient_id"] in patients]


class PhantomPatients:
    """Phantoms in place of patients: the CTs of PhantomThorax, or of another datalist, for `LoadPatientd`'s transforms.

    Args:
        datalist: The datalist; PhantomThorax if None, which is made first where it is missing and asked for.
        dataset_dir: Folder of PhantomThorax.
        volume_size: Voxels along each side of its CTs.
        radiograph_size: Rows and columns of its radiographs.
    """

    def __init__(
        self,
        datalist: str | os.PathLike[str] | None = None,
        dataset_dir: str | os.PathLike[str] = "data",
        *,
        volume_size: int = 64,
        radiograph_size: int = 128,
    ) -> None:
        self.cases = RadiographCases(datalist, dataset_dir, volume_size=volume_size, radiograph_size=radiograph_size)

    def __call__(self, section: str, number: int) -> list[dict[str, Any]]:
        """The first so many CTs of a section as ``patient``; none if none is asked for.

        Raises:
            FileNotFoundError: If the datalist or a file that it names is missing.
            ValueError: If it is none, or has no such section.
        """
        if not number:
            return []
        return [{"patient": case["label"]} for case in load_datalist(self.cases.datalist, section)[:number]]
