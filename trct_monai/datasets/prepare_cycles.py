"""`prepare` of 4-D CTs: the time average of all phases, and phase 0, as a pair."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trct_monai.datasets.cases import CaseFolder
from trct_monai.datasets.cycles import Cycle, find_cycles
from trct_monai.datasets.driver import Job, Product, Recipe, make_data_set
from trct_monai.datasets.prepare_phases import check_grids, write_pair
from trct_monai.datasets.split import Sections, split_by_hash
from trct_monai.io.case import Case
from trct_monai.io.ct import read_ct
from trct_monai.io.datalist import PHASES

OPTIONS = {"task": PHASES, "average": "all phases"}
"""The volumes keep their voxels: there is nothing to choose."""


def prepare_cycles(
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
    """Turn 4-D CTs into pairs of a time average and phase 0; see `trct_monai.datasets.prepare.prepare`.

    Raises:
        ValueError: If too many were refused, or none is left.
    """
    cycles, refused = find_cycles(root, min_slices)
    print(f"{root}: {len(cycles)} 4-D CTs (layout 5); phases are averaged and keep their voxels")
    for line in refused:
        print(f"refused  {line}")
    if not cycles and not refused:
        raise ValueError(f"{root}: no CT found")

    def arrange(cases: list[Case]) -> tuple[Sections, dict[str, Any]]:
        return split_by_hash(cases, fractions, seed), {
            "name": output.absolute().name,
            "description": f"{len(cases)} 4-D CTs as time average and phase 0, prepared from {root.absolute().name}",
            "task": PHASES,
            "split": {"by": "hash", "fractions": list(fractions), "seed": seed},
        }

    jobs = [Job((cycle.case_id,), cycle) for cycle in cycles]
    recipe = Recipe(partial(_products, root=root, output=output), OPTIONS, "prepare", "4-D CTs")
    make_data_set(
        output, jobs, recipe, arrange, num_workers=num_workers, shard=shard, max_skipped=max_skipped,
        refused=refused,
    )  # fmt: skip


def _products(cycle: Cycle, root: Path, output: Path) -> Iterator[Product]:
    inputs = {f"{percent:g} %": source.digests(root) for percent, source in cycle.phases.items()}
    yield Product(CaseFolder(output / cycle.case_id), inputs, partial(_prepare, cycle, root))


def _prepare(cycle: Cycle, root: Path, folder: Path) -> dict[str, Any]:
    """Average the phases, and write the average and phase 0; the fields of the case.

    Raises:
        ValueError: If a phase cannot be read, or they are not on one grid.
    """
    sources = list(cycle.phases.values())
    first = read_ct(sources[0].path, sources[0].files)
    total = first.ct_hu.double()
    for source in sources[1:]:
        ct = read_ct(source.path, source.files)
        check_grids(sources[0].path, first, source.path, ct)
        total += ct.ct_hu.double()
    average = replace(first, ct_hu=(total / len(sources)).round().to(torch.float32))
    fields = write_pair(folder, cycle.case_id, average, first)
    provenance = {
        "phases": {f"{percent:g}": source.location(root) for percent, source in cycle.phases.items()},
        "format": sources[0].format,
        "layout": "4-D CTs",
        **first.header,
    }
    return {"case_id": cycle.case_id, "patient_id": cycle.patient_id, **fields, "provenance": provenance}
