"""The published split of LIDC-IDRI against the real index of the Imaging Data Commons."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from trct_monai.datasets.split import read_lists
from trct_monai.datasets.x2ct_split import BY_NUMBER, COLLECTION, NO_NUMBER, SIDES, find_x2ct_split, published
from trct_monai.io.files import read_csv, read_text
from trct_monai.io.idc import RemoteSeries, index_file, read_collection


@pytest.fixture(scope="module")
def cts() -> list[RemoteSeries]:
    """The CTs of LIDC-IDRI in the installed index."""
    return read_collection(index_file()[0], COLLECTION, ["CT"])


def test_all_published_series_are_in_the_index(cts: list[RemoteSeries]) -> None:
    split = find_x2ct_split(cts)
    assert {side: len(found) for side, found in split.sides.items()} == {"training": 916, "test": 102}
    assert split.missing == split.others == []
    assert len({one.uid for found in split.sides.values() for one in found}) == 1018
    assert Counter(split.settled.values()) == {BY_NUMBER: 884, NO_NUMBER: 134}
    patients = {side: {one.patient_id for one in found} for side, found in split.sides.items()}
    assert patients["training"] & patients["test"] == {"LIDC-IDRI-0442"}
    several = Counter(one.patient_id for one in cts)
    assert all(split.settled[one.uid] == BY_NUMBER for one in cts if several[one.patient_id] > 1)


def test_the_table_is_that_of_the_published_lists(shared: Path) -> None:
    names = {
        (parts[0], parts[-2], side)
        for side, short in (("training", "train"), ("test", "test"))
        for line in read_text(shared / "splits" / f"x2ctgan_lidc_{short}.txt").split()
        if (parts := line.split("."))
    }
    assert names == set(published()) and len(published()) == 1018


def test_a_series_that_is_not_the_published_one_is_named(cts: list[RemoteSeries]) -> None:
    changed = [replace(one, number="9") if one.patient_id == "LIDC-IDRI-0001" else one for one in cts]
    split = find_x2ct_split([one for one in changed if one.patient_id != "LIDC-IDRI-0003"])
    assert split.missing == [
        "LIDC-IDRI-0001, training: published with SeriesNumber 3000566; the index has CTs of the patient with 9",
        "LIDC-IDRI-0003, test: published with SeriesNumber 3000611; the index has no CT of the patient",
    ]
    assert [one.patient_id for one in split.others] == ["LIDC-IDRI-0001"]


def test_split_reads_the_lists(cts: list[RemoteSeries], tmp_path: Path) -> None:
    find_x2ct_split(cts).write(tmp_path)
    train, test = (tmp_path / name for name in SIDES.values())
    assert len({row["series_uid"] for path in (train, test) for row in read_csv(path)}) == 1018
    with pytest.raises(ValueError, match="the split leaks: LIDC-IDRI-0442 in both"):
        read_lists(train, test)
    assert {side: len(names) for side, names in read_lists(train, test, "test").items()} == {
        "training": 908,
        "test": 102,
    }
