"""Shards and processes."""

import os

import pytest

from trct_monai.datasets.driver import reason_if_refused, run_cases
from trct_monai.datasets.workers import in_shard, parse_shard, work_on


def square(number: int) -> int:
    return number * number


def end_process(number: int) -> str:
    os._exit(number)


def odd(number: int) -> None:
    if number % 2 == 0:
        raise ValueError(f"{number}\n is even")


def refuse_even(number: int) -> str:
    return reason_if_refused(odd, number)


def test_every_case_is_in_one_shard() -> None:
    names = [f"case{number}" for number in range(50)]
    for count in (1, 2, 7):
        parts = [[name for name in names if in_shard(name, f"{part}/{count}")] for part in range(1, count + 1)]
        assert sorted(sum(parts, [])) == sorted(names)


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "a/b", "-1/2"])
def test_what_is_no_part_is_refused(shard: str) -> None:
    with pytest.raises(ValueError, match="shard must be i/n with 1 <= i <= n"):
        parse_shard(shard)


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_each_item_comes_back_with_its_result(num_workers: int) -> None:
    results = dict(work_on(square, range(5), num_workers=num_workers, description="squares"))
    assert results == {number: number * number for number in range(5)}


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [0, 2])
def test_reasons_of_refused_cases_are_one_line(num_workers: int) -> None:
    items = [(str(number), number) for number in range(4)]
    refused = run_cases(refuse_even, items, num_workers=num_workers, description="odd")
    assert sorted(refused) == [("0", "0 is even"), ("2", "2 is even")]


@pytest.mark.slow
def test_a_killed_process_is_one_line_that_says_what_to_do() -> None:
    with pytest.raises(ChildProcessError, match="a worker process was killed, .*; the same command goes on where it"):
        run_cases(end_process, [("a", 1), ("b", 1)], num_workers=2, description="killed")
