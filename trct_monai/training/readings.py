"""Numbers of a device, read seldom: whoever reads one waits until the device has done all that it was asked to do."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple

import torch
from ignite.engine import Engine
from torch import Tensor

EVERY = 10
"""Iterations from one reading to the next on a GPU; on the CPU, which is not kept waiting, each is read."""


class Reading(NamedTuple):
    """A number, and where in the training it came up."""

    epoch: int
    iteration: int
    value: float


class FiniteWatch:
    """Numbers that must be finite, one an iteration; they are looked at every `EVERY` iterations, and when asked."""

    def __init__(self) -> None:
        self.places: list[tuple[int, int]] = []
        self.numbers: list[Tensor] = []

    def add(self, engine: Engine, number: Tensor) -> Reading | None:
        """Keep the number of this iteration; the first that is not finite, if this is the time to look."""
        self.places.append((engine.state.epoch, engine.state.iteration))
        self.numbers.append(number.detach())
        return self.look() if number.device.type == "cpu" or len(self.numbers) == EVERY else None

    def look(self) -> Reading | None:
        """The first number since the last look that is not finite."""
        readings = [Reading(*place, value) for place, value in zip(self.places, as_numbers(self.numbers))]
        self.places, self.numbers = [], []
        return next((reading for reading in readings if not isfinite(reading.value)), None)


class RecentLoss:
    """The loss in an engine's output as a number, for a progress bar; on a GPU that of every `EVERY` iterations.

    It is an `output_transform` of Ignite's handlers, for a trainer that does not decollate.
    """

    def __init__(self) -> None:
        self.calls, self.value = 0, float("nan")

    def __call__(self, output: Mapping[str, Any]) -> float:
        """The loss, or the last one that was read."""
        loss: Tensor = output["loss"].detach()
        if loss.device.type == "cpu" or self.calls % EVERY == 0:
            self.value = float(loss)
        self.calls += 1
        return self.value


def as_numbers(values: Sequence[Tensor | float]) -> list[float]:
    """Numbers on a device, fetched together; others as they are."""
    tensors = [value.detach() for value in values if isinstance(value, Tensor)]
    if len(tensors) < len(values) or not tensors:
        return [float(value) for value in values]
    result: list[float] = torch.stack(tensors).tolist()
    return result
