"""`prepare` of pairs of phases: two NIfTI files a case, each with its own voxels.

They are in RAS order and not compressed, so that an axial slice is read without the rest, and the system's
cache keeps what fits.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from trct_monai.datasets.cases import CaseFolder
from trct_monai.datasets.driver import Job, Product, Recipe, make_data_set
from trct_monai.datasets.patients import describe_patients
from trct_monai.datasets.phases import FOLDERS, Pair, find_pairs
from trct_monai.datasets.split import Sections, draw, training_share
from trct_monai.datasets.workers import parse_shard
from trct_monai.intensity import HU_INT16
from trct_monai.io.case import Case
from trct_monai.io.ct import CT, read_ct
from trct_monai.io.datalist import PHASES
from trct_monai.io.nifti import write_hu
from trct_monai.io.provenance import digest_voxels

MAX_DISTANCE_MM = 0.1
"""Greatest distance between the same corners of a pair's volumes."""

OPTIONS = {"task": PHASES}
"""The pairs keep their voxels: there is nothing to choose."""


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
    for line in describe_patients(pair.average.patient_id for pair in pairs):
        print(line.partition(";")[0])  # folders decide the sections here
    twice = {pair.case_id for pair in pairs if sum(other.case_id == pair.case_id for other in pairs) > 1}
    if twice:
        raise ValueError(f"{root}: the name {', '.join(sorted(twice)[:5])} is in two sections; a patient has one")
    if not pairs and not unpaired:
        raise ValueError(f"{root}: no CT found in its folders")

    def arrange(cases: list[Case]) -> tuple[Sections, dict[str, Any]]:
        sections: Sections = {section: [] for section in FOLDERS}
        drawn = not any(case["provenance"]["section"] == "validation" for case in cases)
        for case in cases:
            section = case["provenance"]["section"]
            if drawn and section == "training" and draw(case["patient_id"], seed) >= share:
                section = "validation"
            sections[section].append(case)
        if drawn and not sections["validation"]:
            print("note: no patient was drawn for validation; add valA and valB, or try another --seed or --fractions")
        return sections, {
            "name": output.absolute().name,
            "description": f"{len(cases)} pairs of a time average and phase 0, prepared from {root.absolute().name}",
            "task": PHASES,
            "split": {"by": "folders"} | ({"fractions": list(fractions), "seed": seed} if drawn else {}),
        }

    jobs = [Job((pair.case_id,), pair) for pair in sorted(pairs, key=lambda pair: pair.case_id)]
    recipe = Recipe(partial(_products, root=root, output=output), OPTIONS, "prepare", "pairs")
    make_data_set(
        output, jobs, recipe, arrange, num_workers=num_workers, shard=shard, max_skipped=max_skipped,
        refused=unpaired,
    )  # fmt: skip


def _products(pair: Pair, root: Path, output: Path) -> Iterator[Product]:
    inputs = {"average": pair.average.digests(root), "phase": pair.phase.digests(root)}
    yield Product(CaseFolder(output / pair.case_id), inputs, partial(_prepare, pair, root))


def _prepare(pair: Pair, root: Path, folder: Path) -> dict[str, Any]:
    """Write both CTs and give the fields of the case.

    Raises:
        ValueError: If one cannot be read, or they are not on one grid.
    """
    average, phase = (read_ct(source.path, source.files) for source in (pair.average, pair.phase))
    check_grids(pair.average.path, average, pair.phase.path, phase)
    return {
        "case_id": pair.case_id,
        "patient_id": pair.average.patient_id,
        **write_pair(folder, pair.case_id, average, phase),
        "provenance": {
            "section": pair.section,
            "average": pair.average.location(root),
            "phase": pair.phase.location(root),
            "format": pair.average.format,
            "layout": "pairs of phases",
            **average.header,
        },
    }


def write_pair(folder: Path, case_id: str, average: CT, phase: CT) -> dict[str, Any]:
    """Write a time average and phase 0 into a case's folder; their fields of `Case`."""
    digests = []
    for name, ct in (("average", average), ("phase", phase)):
        hu = ct.ct_hu[0].clamp(*HU_INT16) if ct.ct_hu.is_floating_point() else ct.ct_hu[0]
        numbers = write_hu(folder / f"{case_id}_{name}.nii", hu.numpy(), ct.affine.numpy())
        digests.append(digest_voxels(numbers))
    return {
        "label": f"{case_id}_phase.nii",
        "image": [f"{case_id}_average.nii"],
        "voxels": digests[1],
        "pixels": digests[:1],
    }


def check_grids(path: Path, ct: CT, other_path: Path, other: CT) -> None:
    """Refuse two CTs that are not on one grid.

    Raises:
        ValueError: If their shapes differ, or they lie elsewhere.
    """
    shapes = [tuple(one.ct_hu.shape[1:]) for one in (ct, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{path}: this and {other_path} have different shapes, {shapes[0]} and {shapes[1]}")
    corners = np.array([[i, j, k, 1.0] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    corners[:, :3] *= np.array(shapes[0]) - 1
    apart = np.abs(corners @ (ct.affine - other.affine).numpy().T).max()
    if apart > MAX_DISTANCE_MM:
        raise ValueError(f"{path}: this and {other_path} are {apart:.1f} mm apart; register them")
