"""SIGKILL at any moment, then the same command again: the end is that of a run that nothing disturbed, to the bit.

Set TRCT_KILLS=50 for fifty moments of each command; without it there are one or two.
"""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.robustness.commands import (
    COMMANDS,
    WITH_WORKERS,
    Inputs,
    Undisturbed,
    contents,
    half_written,
    resumed,
)
from tests.robustness.trials import Trials

pytestmark = pytest.mark.slow

LONG = ("phantoms", "phases", "evaluate", "export", WITH_WORKERS)

SHORTEST = 0.01
"""Seconds in which no command ends."""


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_after_a_kill_ends_as_if_nothing_had_been(
    name: str, trials: Trials, inputs: Inputs, undisturbed: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    """Every other kill of a command with workers hits it alone: they must end by themselves."""
    whole = undisturbed("prepare" if name == WITH_WORKERS else name)
    seconds = whole.seconds + (2 * trials.seconds_to_import if name == WITH_WORKERS else 0)
    expected, rng = contents(whole.out), random.Random(name)
    kills = int(os.environ.get("TRCT_KILLS", 1 if name in LONG else 2))
    num_left = 0
    for number in range(kills):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        moment = (number + rng.random()) / kills * seconds
        alone = "workers" in name and number % 2 == 0
        while (killed := trials.run(*COMMANDS[name](inputs, out), kill_after=moment, alone=alone))["code"] != -9:
            assert killed["code"] == 0, killed["said"][-3000:]
            assert moment > SHORTEST, f"ended within {moment:.3f} s"
            moment *= rng.random()  # the kill came after the end
            shutil.rmtree(out.parent)
            out.parent.mkdir()
        num_left += bool(half_written(out.parent))
        again = trials.run(*resumed(COMMANDS[name](inputs, out), out))
        finished = name == "export" and "already exists" in again["said"]  # the kill came after the last file
        assert again["code"] == 0 or finished, again["said"][-3000:]
        assert not again["orphans"], f"workers of the command that was killed after {moment:.3f} s are still there"
        assert contents(out) == expected, f"killed after {moment:.3f} s"
        assert half_written(out.parent) == [], f"killed after {moment:.3f} s"
        shutil.rmtree(out.parent)
    print(f"{name}: {num_left} of {kills} kills left temporary files or a lock")
