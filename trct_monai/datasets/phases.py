"""Pairs of CTs for the phase generator, a time average and its phase 0: prepared once, then read slice by slice.

The layout is pix2pix's: ``trainA/`` holds time averages, ``trainB/`` phase 0 under the same names, ``testA/`` and
``testB/`` likewise, and ``valA/`` and ``valB/`` if there are any. A CT is a file of any format that `read_ct` knows, or
a folder with one DICOM series. `prepare` turns it into cases: two NIfTI files each, in RAS order and not compressed, so
that an axial slice is read without the rest, and the system keeps in memory what there is room for.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trct_monai.datasets.cases import is_finished, load_cases, write_page
from trct_monai.datasets.driver import EARLY_STOP, in_shard, parse_shard, reason_if_refused, run_cases, too_many
from trct_monai.datasets.sources import Source, patient_of, safe_name
from trct_monai.datasets.split import DATALIST, Sections, draw, training_share, write_split
from trct_monai.io.ct import DICOM, ct_files, extension_of, read_ct
from trct_monai.io.datalist import PHASES, Case
from trct_monai.io.dicom.header import read_study
from trct_monai.io.files import remove_partial, replacing_folder
from trct_monai.io.nifti import write_nifti
from trct_monai.io.provenance import digest_voxels

FOLDERS = {"training": "train", "validation": "val", "test": "test"}
"""Section to the prefix of its two folders."""


AVERAGE, PHASE = "A", "B"
"""What is added for time averages, and for phase 0."""


MAX_DISTANCE_MM = 0.1
"""How far the corners of a pair's volumes may lie apart."""


COMPANIONS = (".raw", ".raw.gz", ".zraw", ".json", ".csv", ".txt", ".md", ".png", ".xml")
"""Files that may lie beside CTs and are left alone: the voxels of a header, notes."""


OPTIONS: dict[str, Any] = {"task": PHASES}


@dataclass(frozen=True)
class Pair:
    """One patient's two CTs.

    Attributes:
        case_id: Name of both files.
        section: Where its folder says it belongs.
        average: The time average.
        phase: Phase 0.
    """

    case_id: str
    section: str
    average: Source
    phase: Source

    def fingerprint(self, root: Path) -> dict[str, Any]:
        """What identifies the files without reading them."""
        return {
            "section": self.section,
            "average": self.average.fingerprint(root),
            "phase": self.phase.fingerprint(root),
        }


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
    return Source(safe_name(name), safe_name(patient or patient_of(name)), kind, path, tuple(files))


def find_cts(folder: str | os.PathLike[str], min_slices: int = 4) -> tuple[dict[str, Source], list[str]]:
    """The CTs that lie directly in a folder, by name, and one line for each entry that should be one and is none.

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
            refused.append(f"{path}: there are two CTs named {source.case_id}")
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


def prepare_phases(
    root: Path,
    output: Path,
    *,
    min_slices: int,
    num_workers: int,
    shard: str,
    max_skipped: float,
    fractions: Sequence[float],
    seed: int,
) -> None:
    """Turn the layout of pix2pix into cases and a datalist; see `trct_monai.datasets.prepare.prepare`.

    Without ``valA`` and ``valB`` a part of the training patients is drawn for validation.

    Raises:
        ValueError: If too many entries were refused, or no pair is left.
    """
    parse_shard(shard)
    share = training_share(fractions)
    pairs, unpaired = find_pairs(root, min_slices)
    print(f"{root}: {len(pairs)} pairs of a time average and phase 0 (layout 4); they keep their voxels")
    for line in unpaired:
        print(f"refused  {line}")
    total = len(pairs) + len(unpaired)
    twice = {pair.case_id for pair in pairs if sum(other.case_id == pair.case_id for other in pairs) > 1}
    if twice:
        raise ValueError(f"{root}: the name {', '.join(sorted(twice)[:5])} stands in two sections; a patient has one")
    mine = [pair for pair in pairs if in_shard(pair.case_id, shard)]
    remove_partial(output, [pair.case_id for pair in mine])
    todo = [p for p in mine if not is_finished(output / p.case_id, OPTIONS, p.fingerprint(root))]
    if len(todo) < len(mine):
        print(f"{len(mine) - len(todo)} of {len(mine)} cases are there already")
    refused = run_cases(
        partial(reason_if_refused, partial(_prepare, root=root, output=output)),
        [(pair.case_id, pair) for pair in todo],
        num_workers=num_workers,
        description="prepare",
        stop=lambda list_: len(list_) >= EARLY_STOP and too_many(len(list_), total, max_skipped),
    )
    if too_many(len(unpaired) + len(refused), total, max_skipped):
        raise ValueError(
            f"{len(unpaired) + len(refused)} of {total} entries refused, more than --max_skipped {max_skipped:g}; "
            "the others are written, and no datalist"
        )
    here = {pair.case_id: pair.fingerprint(root) for pair in pairs}
    cases: list[Case] = []
    stale: list[Case] = []
    for case in load_cases(output):
        current = here.get(case["case_id"])
        is_current = current is not None and current.items() <= case["provenance"].items()
        (cases if is_current else stale).append(case)
    if stale:
        names = ", ".join(case["case_id"] for case in stale[:5])
        print(f"{len(stale)} cases of {output} are not, or no longer, those of {root} and are left out: {names}")
    if not cases:
        raise ValueError(f"{root}: no pair is left")
    sections: Sections = {section: [] for section in FOLDERS}
    drawn = not any(case["provenance"]["section"] == "validation" for case in cases)
    for case in cases:
        section = case["provenance"]["section"]
        if drawn and section == "training" and draw(case["patient_id"], seed) >= share:
            section = "validation"
        sections[section].append(case)
    header = {
        "name": output.absolute().name,
        "description": f"{len(cases)} pairs of a time average and phase 0, prepared from {root.absolute().name}",
        "task": PHASES,
        "split": {"by": "folders"} | ({"fractions": list(fractions), "seed": seed} if drawn else {}),
    }
    print(
        f"{len(mine) - len(refused)} pairs in this run, {len(unpaired) + len(refused)} entries refused, "
        f"{len(cases)} pairs in {output}"
    )
    write_split(output / DATALIST, sections, header)
    if drawn and not sections["validation"]:
        print("note: no patient was drawn for validation; add valA and valB, or try another --seed or --fractions")


def _prepare(pair: Pair, root: Path, output: Path) -> None:
    cts = [read_ct(source.path, source.files) for source in (pair.average, pair.phase)]
    average, phase = ((ct.ct_hu[0], ct.affine.numpy()) for ct in cts)
    shapes = [tuple(volume.shape) for volume, _ in (average, phase)]
    if shapes[0] != shapes[1]:
        both = f"{shapes[0]} and {shapes[1]}"
        raise ValueError(f"{pair.average.path}: this and {pair.phase.path} have different shapes, {both}")
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.array(shapes[0]) - 1
    apart = np.abs(corners @ (average[1] - phase[1]).T).max()
    if apart > MAX_DISTANCE_MM:
        raise ValueError(f"{pair.average.path}: this and {pair.phase.path} lie {apart:.1f} mm apart; register them")
    with replacing_folder(output / pair.case_id) as folder:
        digests = {}
        for name, (volume, affine) in (("average", average), ("phase", phase)):
            numbers = volume.round().clamp(-32768, 32767).numpy().astype(np.int16)
            write_nifti(folder / f"{pair.case_id}_{name}.nii", numbers, affine)
            digests[name] = digest_voxels(numbers)
        source = pair.fingerprint(root)
        case = {
            "case_id": pair.case_id,
            "patient_id": pair.average.patient_id,
            "label": f"{pair.case_id}_phase.nii",
            "image": [f"{pair.case_id}_average.nii"],
            "voxels": digests["phase"],
            "pixels": [digests["average"]],
            "provenance": {**source, "format": pair.average.format, "layout": "pairs of phases", **cts[0].header},
        }
        write_page(folder, case, OPTIONS, source)
