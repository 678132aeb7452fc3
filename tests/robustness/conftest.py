"""The program that forks the commands, and what they read."""

import sys
from collections.abc import Callable, Iterator

import pytest

from tests.robustness.commands import COMMANDS, Inputs, Undisturbed, make_inputs
from tests.robustness.trials import Trials


@pytest.fixture(scope="session")
def trials() -> Iterator[Trials]:
    """The program, which needs Linux: it counts the orphans of what it kills."""
    if sys.platform != "linux":
        pytest.skip("only Linux says when the orphans of a killed command are gone")
    with Trials() as program:
        yield program


@pytest.fixture(scope="session")
def inputs(trials: Trials, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """What the commands read."""
    return make_inputs(tmp_path_factory.mktemp("inputs"), trials)


@pytest.fixture(scope="session")
def undisturbed(
    trials: Trials, inputs: Inputs, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Undisturbed]:
    """What a command gives when nothing happens to it, run once."""
    done: dict[str, Undisturbed] = {}

    def run_once(name: str) -> Undisturbed:
        if name not in done:
            out = tmp_path_factory.mktemp("whole") / "out"
            done[name] = Undisturbed(out, trials.succeed(*COMMANDS[name](inputs, out))["seconds"])
        return done[name]

    return run_once
