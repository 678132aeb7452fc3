"""The program that forks the commands, and what they read."""

import sys
from collections.abc import Iterator

import pytest

from tests.robustness.commands import Inputs, make_inputs
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
