"""Two runs with one output: the second is refused in one line, or, of another shard, works beside the first."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.bundles.miniature import CHECKPOINT
from tests.robustness.commands import (
    COMMANDS,
    SMALL,
    WITH_WORKERS,
    Inputs,
    Undisturbed,
    assert_said_in_one_line,
    contents,
    half_written,
)
from tests.robustness.trials import TIMEOUT, Trials
from trct_monai.datasets.prepare import prepare
from trct_monai.io.locks import alone_at, alone_in

pytestmark = pytest.mark.slow


def as_another_run(name: str, out: Path) -> AbstractContextManager[None]:
    """Hold what a run of this command holds; a lock of this process is another's for the command."""
    if "training" in name:
        return alone_at(out / CHECKPOINT)
    if name == "report":
        return alone_at(out / "report.html")
    return alone_at(out) if name == "export" else alone_in(out)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != WITH_WORKERS])
def test_the_second_run_is_refused_in_one_line(name: str, trials: Trials, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with as_another_run(name, out):
        second = trials.run(*COMMANDS[name](inputs, out))
        (lock,) = half_written(tmp_path)
        assert contents(tmp_path).keys() == {lock.relative_to(tmp_path).as_posix()}
    assert_said_in_one_line(second, str(out), "is being written by another run; wait until it has ended")
    assert half_written(tmp_path) == []


def test_splitting_waits_for_no_one_but_is_refused_while_cases_are_made(trials: Trials, inputs: Inputs) -> None:
    folder = inputs.datalist.parent
    before = contents(folder)
    with alone_in(folder):
        assert trials.run("trct_monai", "split", "--data", str(folder))["code"] == 2
        elsewhere = folder.parent / "other_split.json"
        trials.succeed("trct_monai", "split", "--data", str(folder), "--output", str(elsewhere))
    assert elsewhere.is_file()
    assert {name: digest for name, digest in contents(folder).items() if name != ".lock"} == before


def test_shards_work_at_the_same_time_and_the_same_shard_does_not(
    trials: Trials, inputs: Inputs, undisturbed: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    """Whichever shard ends last writes the datalist of all."""
    out = tmp_path / "out"
    whole, *shards = [[*COMMANDS["prepare"](inputs, out), "--shard", shard] for shard in ("1/1", "1/2", "2/2")]
    with alone_in(out, (1, 2)):
        for refused in (whole, shards[0]):
            assert_said_in_one_line(trials.run(*refused), "is being written by another run")
        trials.succeed(*shards[1])
    trials.start(*shards[0])
    prepare(str(inputs.cts), str(out), shard="2/2", **SMALL)
    assert trials.answer()["code"] == 0
    assert contents(out) == contents(undisturbed("prepare").out)


def test_the_datalist_waits_for_that_of_another_shard(trials: Trials, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with alone_at(out / "datalist.json"):
        trials.start(*COMMANDS["prepare"](inputs, out))
        deadline = time.monotonic() + TIMEOUT
        while len(list(out.glob("*/case.json"))) < len(list(inputs.cts.iterdir())):
            assert time.monotonic() < deadline, trials.answer()["said"][-3000:]  # it has been killed by now
            time.sleep(0.01)
        assert not (out / "datalist.json").exists()
    assert trials.answer()["code"] == 0 and (out / "datalist.json").is_file()
