"""Score every case once: the scores of a case whose prediction, files and options have not changed are kept."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from trct_monai.datasets.driver import reason_if_refused, run_cases
from trct_monai.io.files import read_json, write_json
from trct_monai.io.provenance import STAMP, Stamp, digest_file, is_made_from
from trct_monai.io.radiograph import side_car_of

Job = TypeVar("Job")

Row = dict[str, Any]
"""A line of cases.csv: method, case_id, and the scores by name; None where a score is not defined."""

SCORES = "scores"
"""The folder of kept scores, and their key in the file of a case."""


def score_cases(
    jobs: Sequence[tuple[str, Job]],
    measure: Callable[[Job], Sequence[Mapping[str, float] | None]],
    stamp: Callable[[Job], Stamp],
    methods: Sequence[str],
    folder: Path,
    num_workers: int,
) -> list[Row]:
    """Measure all cases but those whose scores are kept.

    Args:
        jobs: Id of each case, and what `measure` and `stamp` take; all three must be picklable.
        measure: The scores of a case for each of `methods`; None for a method that has none.
        stamp: What the scores of a case are made from.
        methods: Name of the method, and of the reference beside it.
        folder: Folder of the evaluation.
        num_workers: Number of processes.

    Returns:
        A row for each case and method, cases in their order.

    Raises:
        ValueError: If a prediction cannot be compared with its CT; all of them are printed.
    """
    work = partial(_score, measure=measure, stamp=stamp, folder=folder / SCORES)
    refused = run_cases(
        work, [(name, (name, job)) for name, job in jobs], num_workers=num_workers, description=methods[0]
    )
    if refused:
        raise ValueError(f"{len(refused)} of {len(jobs)} predictions cannot be compared; {refused[0][1]}")
    rows = []
    for case_id, _ in jobs:
        kept = read_json(_file(folder / SCORES, case_id))[SCORES]
        for method, scores in zip(methods, kept, strict=True):
            if scores is not None:
                rows.append({"method": method, "case_id": case_id, **scores})
    return rows


def digest_case(case: Mapping[str, Any]) -> dict[str, Any]:
    """A case for `make_stamp`: its CT and its radiographs by content, and how these were taken."""
    return {"case_id": case["case_id"], "ct": digest_file(case["label"]), **digest_radiographs(case)}


def digest_radiographs(case: Mapping[str, Any]) -> dict[str, Any]:
    """Pictures and side-cars by content, and what the datalist states about them."""
    pictures = [Path(image) for image in case.get("image", [])]
    files = [path for picture in pictures for path in (picture, side_car_of(picture)) if path.is_file()]
    stated = {key: case.get(key) for key in ("cameras", "orientation", "intensity")}
    return {"radiographs": [digest_file(path) for path in files], **stated}


def _score(
    named: tuple[str, Job],
    *,
    measure: Callable[[Job], Sequence[Mapping[str, float] | None]],
    stamp: Callable[[Job], Stamp],
    folder: Path,
) -> str:
    """Score a case into its file, unless that is done; returns the reason if it cannot be."""

    def score(named: tuple[str, Job]) -> None:
        case_id, job = named
        target, made_from = _file(folder, case_id), stamp(job)
        if not is_made_from(target, made_from):
            scores = [values and _without_nan(values) for values in measure(job)]
            write_json(target, {STAMP: made_from, SCORES: scores})

    return reason_if_refused(score, named)


def _without_nan(values: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in values.items()}


def _file(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}.json"
