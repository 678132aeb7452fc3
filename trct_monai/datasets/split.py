"""Training, validation and test by patient: by a hash that never changes its mind, or by published lists."""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_numbers
from trct_monai.datasets.cases import RECORD, load_cases
from trct_monai.datasets.patients import patient_of, read_names
from trct_monai.io.ct import extension_of
from trct_monai.io.datalist import PHASES, SECTIONS, read_datalist, save_datalist
from trct_monai.io.files import read_text
from trct_monai.io.locks import alone_at, alone_in

DATALIST = "datalist.json"

Sections = dict[str, list[Any]]


def split(
    data: str,
    fractions: str = "0.7/0.15/0.15",
    seed: int = 0,
    by: str = "hash",
    train_list: str | None = None,
    test_list: str | None = None,
    leaks_to: str | None = None,
    output: str | None = None,
) -> None:
    """Split prepared cases by patient and write the datalist.

    Args:
        data: Folder that `prepare` wrote.
        fractions: Shares of training / validation / test. With lists, the first two share the training list.
        seed: Another seed gives another split. A patient's side depends on nothing but its name and the seed.
        by: hash, or lists.
        train_list: File with the name of a case or a patient on each line, or a CSV with a column patient_id or
            case_id.
        test_list: The same for the test section.
        leaks_to: training or test: the section of patients who are in both lists. Without it they are refused.
        output: Datalist to write; DATA/datalist.json if not given.
    """
    folder = Path(data)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if by == "lists":
        if train_list is None or test_list is None:
            raise ValueError("by=lists needs --train_list and --test_list")
        lists = read_lists(train_list, test_list, leaks_to)
    elif by == "hash":
        if train_list is not None or test_list is not None:
            raise ValueError("--train_list and --test_list need --by lists")
        lists = None
    else:
        raise ValueError(f"by must be hash or lists, got {by!r}")
    target = folder / DATALIST if output is None else Path(output)
    with alone_in(folder) if output is None else alone_at(target):
        header = _header(folder / DATALIST)
        if header.get("task") == PHASES:
            raise ValueError(f"{folder} holds pairs of phases, and their folders give the sections; run prepare again")
        cases = [case for case in load_cases(folder) if case["case_id"] not in header.get("left_out", ())]
        _check_gone(folder, {case["case_id"] for case in cases})
        if not cases:
            raise ValueError(f"{folder}: no prepared cases; run prepare first")
        shares = check_fractions(fractions)
        if lists is None:
            sections = split_by_hash(cases, shares, seed)
        else:
            sections = split_by_lists(cases, lists, shares, seed)
        how: dict[str, Any] = {"by": by, "fractions": list(shares), "seed": seed}
        if lists is not None:
            how["lists"] = [Path(str(train_list)).name, Path(str(test_list)).name]
        write_split(target, sections, header | {"split": how})


def write_split(target: Path, sections: Sections, header: Mapping[str, Any]) -> None:
    """Check for leaks, write the datalist, and print what is in it.

    Raises:
        ValueError: If a patient or a volume is in two sections.
    """
    leaks = find_leaks(sections)
    if leaks:
        raise ValueError("the split leaks: " + "; ".join(leaks))
    save_datalist(target, sections, header)
    for name in SECTIONS:
        patients = {case["patient_id"] for case in sections[name]}
        print(f"{name:<10} {len(sections[name]):5d} cases of {len(patients)} patients")
    empty = [name for name in SECTIONS if not sections[name]]
    patients = {case["patient_id"] for name in SECTIONS for case in sections[name]}
    if len(patients) == 1 and empty:
        print(f"note: all cases are of one patient, {next(iter(patients))}, so they are in one section")
    elif empty and header.get("split", {}).get("by") == "hash":
        print(
            f"note: no case in {' and '.join(empty)}. Each patient's side is drawn from a hash of its name, so a few "
            "patients may leave a section empty; it fills as patients are added, or choose by --by lists or --seed"
        )
    print(f"wrote {target}")


def check_fractions(fractions: str | float | Sequence[float]) -> tuple[float, ...]:
    """Three shares, scaled to a sum of 1.

    Raises:
        ValueError: If they are not three numbers of at least 0, and one above 0.
    """
    numbers = parse_numbers(fractions, 3, "fractions", "0.7/0.15/0.15")
    if min(numbers) < 0 or sum(numbers) <= 0:
        raise ValueError(f"fractions must not be negative, and one must be above 0, got {fractions!r}")
    return tuple(number / sum(numbers) for number in numbers)


def training_share(fractions: Sequence[float]) -> float:
    """The part that stays in training where only training and validation are drawn, and the test section is given.

    Raises:
        ValueError: If neither of the two has a share.
    """
    if fractions[0] + fractions[1] <= 0:
        raise ValueError(
            "where the test section is given, the first two fractions share the rest: one of them must be above 0, "
            f"such as 0.8/0.2/0, got {'/'.join(f'{number:g}' for number in fractions)}"
        )
    return fractions[0] / (fractions[0] + fractions[1])


def draw(patient_id: str, seed: int) -> float:
    """The patient's number in [0, 1): the same on every machine, whoever else is in the data set."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", patient_id).strip("._") or "case"  # as it was called in 0.1.0
    return int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:13], 16) / 16**13


def split_by_hash(cases: Iterable[Mapping[str, Any]], fractions: Sequence[float], seed: int) -> Sections:
    """Cases by section, each patient where `draw` puts it."""
    sections: Sections = {name: [] for name in SECTIONS}
    for case in cases:
        number = draw(case["patient_id"], seed)
        name = "training" if number < fractions[0] else "validation" if number < sum(fractions[:2]) else "test"
        sections[name].append(case)
    return sections


def read_lists(
    train_list: str | os.PathLike[str], test_list: str | os.PathLike[str], leaks_to: str | None = None
) -> dict[str, set[str]]:
    """The patients of two published lists, ``training`` and ``test``.

    Args:
        train_list: Text file, one name a line.
        test_list: Text file, one name a line.
        leaks_to: Side that gets the patients of both lists.

    Raises:
        ValueError: If a patient is in both lists and `leaks_to` is not given.
    """
    if leaks_to not in (None, "training", "test"):
        raise ValueError(f"leaks_to must be training or test, got {leaks_to!r}")
    lists = {}
    for name, path in (("training", Path(train_list)), ("test", Path(test_list))):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such list")
        lists[name] = {patient_of(line) for line in _names(path)}
        if not lists[name]:
            raise ValueError(f"{path}: no names in it")
    both = lists["training"] & lists["test"]
    if both and leaks_to is None:
        raise ValueError(
            f"the split leaks: {', '.join(sorted(both))} in both {train_list} and {test_list}; "
            "--leaks_to training or --leaks_to test puts all of such a patient on one side"
        )
    if both:
        lists["test" if leaks_to == "training" else "training"] -= both
        print(f"all cases of {', '.join(sorted(both))} go to {leaks_to}: the lists have them on both sides")
    return lists


def _names(path: Path) -> list[str]:
    """The names in a list: one on each line, or a table with a column patient_id or case_id; endings of files go.

    Raises:
        ValueError: If it is a table without such a column.
    """
    lines = [line.strip().strip('"') for line in read_text(path).splitlines() if line.strip()]
    lines = lines[1:] if lines and lines[0].lower() in ("patient_id", "case_id") else lines
    if lines and any(mark in lines[0] for mark in ",;\t"):
        rows = read_names(path)
        key = next((key for key in ("patient_id", "case_id") if rows and key in rows[0]), None)
        if key is None:
            raise ValueError(
                f"{path}: expected one name on each line, or a column patient_id or case_id, got {lines[0]!r}"
            )
        lines = [row[key].strip() for row in rows if row[key]]
    names = [Path(line).name for line in lines]
    return [name.removesuffix(extension_of(name) or "") for name in names]


def split_by_lists(
    cases: Iterable[Mapping[str, Any]], lists: Mapping[str, set[str]], fractions: Sequence[float], seed: int
) -> Sections:
    """Cases by section as the lists say; a part of the training patients is drawn for validation."""
    sections: Sections = {name: [] for name in SECTIONS}
    unlisted, seen = [], set()
    share = training_share(fractions)
    for case in cases:
        patient = patient_of(case["patient_id"])
        names = {patient, case["case_id"]}
        seen |= names
        if names & lists["test"]:
            sections["test"].append(case)
        elif names & lists["training"]:
            sections["training" if draw(patient, seed) < share else "validation"].append(case)
        else:
            unlisted.append(case["case_id"])
    if unlisted:
        print(f"{len(unlisted)} cases in neither list are left out: {', '.join(unlisted[:10])}")
    for name, listed in lists.items():
        absent = sorted(listed - seen)
        if len(absent) == len(listed):
            raise ValueError(
                f"none of the {len(listed)} names of the {name} list, such as {absent[0]!r}, is a prepared case or its "
                f"patient; those are called {', '.join(sorted(seen)[:3])}, ..."
            )
        if absent:
            print(f"{len(absent)} names of the {name} list have no prepared case: {', '.join(absent[:10])}")
    return sections


def find_leaks(sections: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """One line for each patient, and each volume, that is in more than one section."""
    leaks = []
    for what, key in (("patient", "patient_id"), ("the same voxels,", "voxels")):
        places: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for name, cases in sections.items():
            for case in cases:
                if case.get(key):
                    places[case[key]][name].append(str(case.get("case_id")))
        for value, names in sorted(places.items()):
            if len(names) > 1:
                where = " and ".join(f"{name} ({', '.join(ids)})" for name, ids in names.items())
                leaks.append(f"{what} {value if key == 'patient_id' else value[:12]} in {where}")
    return leaks


def _check_gone(folder: Path, names: set[str]) -> None:
    """Name the cases of the last datalist that are no more; refuse those whose folder is there without its record."""
    content = read_datalist(folder / DATALIST) if (folder / DATALIST).is_file() else {}
    gone = [case["case_id"] for name in SECTIONS for case in content.get(name, []) if case["case_id"] not in names]
    damaged = [name for name in gone if (folder / name).is_dir()]
    if damaged:
        raise ValueError(f"{folder / damaged[0]} has no {RECORD} any more; run prepare again, or remove the folder")
    if gone:
        print(f"{len(gone)} cases of the last datalist are gone: {', '.join(gone[:10])}")


def _header(datalist: Path) -> dict[str, Any]:
    """The header of a data set's datalist without what a split decides; empty if it has no datalist."""
    content = read_datalist(datalist) if datalist.is_file() else {}
    return {key: value for key, value in content.items() if key not in (*SECTIONS, "split", "num_cases")}
