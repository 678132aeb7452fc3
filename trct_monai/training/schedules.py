"""A training that is limited in time."""

import math
import time
from typing import Any

from monai.engines import Evaluator, Trainer


class CosineOverTime:
    """Factor of the learning rate that falls from one to zero along a cosine while the time passes.

    For `torch.optim.lr_scheduler.LambdaLR`, where the number of epochs is not known before: a training on another card
    ends at the same time, at a rate of zero too, after more or fewer steps. The clock starts at the first call.

    Args:
        seconds: Time of the whole training.

    Raises:
        ValueError: If it is not positive.
    """

    def __init__(self, seconds: float) -> None:
        if seconds <= 0:
            raise ValueError(f"seconds must be positive, got {seconds}")
        self.seconds = seconds
        self.started: float | None = None

    def __call__(self, epoch: int) -> float:
        """The factor now, whatever the epoch."""
        now = time.monotonic()
        self.started = now if self.started is None else self.started
        return 0.5 * (1.0 + math.cos(math.pi * min((now - self.started) / self.seconds, 1.0)))


def linear_decay(epoch: int, *, epochs: int, decay_epochs: int) -> float:
    """Factor of the learning rate that is one, and falls to zero along a line over the last epochs, as in pix2pix.

    With ``epochs`` and ``decay_epochs`` given, for `torch.optim.lr_scheduler.LambdaLR`.

    Args:
        epoch: Epochs that are over.
        epochs: All epochs.
        decay_epochs: The last ones, over which it falls.
    """
    return min(1.0, (epochs - epoch) / (decay_epochs + 1))


def refuse_flags(reason: str, **flags: Any) -> None:
    """Refuse what a configuration would ignore.

    Args:
        reason: Why it does.
        flags: The flags by name; those that are not given are None or false.

    Raises:
        ValueError: If one is given.
    """
    given = [f"--{name}" for name, value in flags.items() if value is not None and value is not False]
    if given:
        raise ValueError(f"{reason}: {', '.join(given)} cannot be given with it")


def validate_last(evaluator: Evaluator, trainer: Trainer) -> bool:
    """Validate the epoch with which a training has ended, if that has not been done: as a rule it is the best.

    Args:
        evaluator: Runs the validation, and has the handlers that keep the best weights.
        trainer: The training, at its end.

    Returns:
        Whether it had not been done.
    """
    if evaluator.state.epoch == trainer.state.epoch:
        return False
    evaluator.run(trainer.state.epoch)
    return True
