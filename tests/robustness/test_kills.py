"""SIGKILL at any moment, then the same command again: the end is that of a run that nothing disturbed, to the bit.

Set TRCT_KILLS=50 for fifty moments of each command; without it there are one or two.
"""

import os
import random
import shutil
from pathlib import Path

import pytest

from tests.robustness.commands import COMMANDS, Inputs, contents, resumed
from tests.robustness.trials import Trials

pytestmark = pytest.mark.slow

LONG = ("export", "phases", "prepare, 2 workers")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_same_command_after_a_kill_ends_as_if_nothing_had_been(
    name: str, trials: Trials, inputs: Inputs, tmp_path: Path
) -> None:
    """Every other kill of a command with workers hits it alone: they must end by themselves."""
    arguments, whole = COMMANDS[name], tmp_path / "whole" / "out"
    whole.parent.mkdir()
    undisturbed = COMMANDS[name.removesuffix(", 2 workers")] if name.startswith("prepare") else arguments
    seconds = trials.succeed(*undisturbed(inputs, whole))["seconds"]
    if undisturbed != arguments:  # the workers make the same, but each imports everything first
        seconds += 2 * trials.seconds_to_import
    expected, rng = contents(whole), random.Random(name)
    kills = int(os.environ.get("TRCT_KILLS", 1 if name in LONG else 2))
    num_killed = num_left = 0
    for number in range(kills):
        out = tmp_path / str(number) / "out"
        out.parent.mkdir()
        moment = (number + rng.random()) / kills * seconds
        alone = "workers" in name and number % 2 == 0
        killed = trials.run(*arguments(inputs, out), kill_after=moment, alone=alone)
        num_killed += killed["code"] == -9
        num_left += bool(half_written(out.parent))
        again = trials.succeed(*resumed(arguments(inputs, out), out))
        assert not again["orphans"], f"workers of the command that was killed after {moment:.3f} s are still there"
        assert contents(out) == expected, f"killed after {moment:.3f} s"
        assert half_written(out.parent) == [], f"killed after {moment:.3f} s"
        shutil.rmtree(out.parent)
    print(f"{name}: {num_killed} of {kills} kills came before the end, {num_left} left temporary files or a lock")


def half_written(folder: Path) -> list[Path]:
    """Temporary files and locks."""
    return [path for path in folder.rglob(".*") if path.suffix in (".partial", ".lock")]
