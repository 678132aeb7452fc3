"""What a configuration's `run` does: a training that can be resumed, an evaluation, an inference."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ignite.engine import Events
from ignite.handlers import ProgressBar, TimeLimit
from monai.engines import Evaluator, Trainer
from torch import Tensor

from trct_monai.baselines import MeanVolume
from trct_monai.baselines.cases import CaseList, each
from trct_monai.io.weights import load_state
from trct_monai.networks.linear_start import LinearStart
from trct_monai.networks.reconstruction import ReconstructionNetwork
from trct_monai.training.checkpoints import ResumableCheckpoint
from trct_monai.training.readings import RecentLoss
from trct_monai.training.schedules import validate_last

Volumes = Iterable[Mapping[str, Tensor] | Tensor] | CaseList
"""Cases with ``label``, or labels: volumes (1, X, Y, Z) in [0, 1]. They are gone through twice."""


def start_from_data(
    network: ReconstructionNetwork,
    volumes: Volumes | None = None,
    start_path: str | os.PathLike[str] | None = None,
    *,
    size: int | None = None,
    model: int | None = None,
) -> None:
    """Let a network begin where a baseline ends: at the mean of the training volumes, or at a linear model of them.

    A network with a linear start, such as `trct_monai.networks.AnyView`, has that fitted. Then it takes over weights.

    Args:
        network: The network, not in its DistributedDataParallel wrapper.
        volumes: Training cases, or their volumes; None leaves the network as it is.
        start_path: Weights of a coarser network of the same kind; none if empty.
        size: Voxels along each side of the volumes; those of the network if None.
        model: Which model of the linear start the volumes are for, if it has several.

    Raises:
        ValueError: If there is no volume, or the weights are not those of a coarser network of this kind.
    """
    if volumes is not None:
        which = {} if model is None else {"model": model}
        mean = MeanVolume(size or network.volume_size)
        network.start_from(mean.fit(_label(one) for one in each(volumes)).volume, **which)
        linear_start: LinearStart | None = getattr(network, "linear_start", None)
        if linear_start is not None:
            linear_start.fit((_label(one) for one in each(volumes)), **which)
    if start_path:
        network.start_from_coarser(load_state(start_path))


def _label(one: Mapping[str, Tensor] | Tensor) -> Tensor:
    return one["label"] if isinstance(one, Mapping) else one


def run_training(
    trainer: Trainer,
    evaluator: Evaluator,
    checkpoint: ResumableCheckpoint,
    *,
    summary_writer: Any = None,
    name: str = "train",
    rank: int = 0,
    minutes: float | None = None,
) -> None:
    """Train, or go on with a training, with a checkpoint after each epoch and a bar of the progress.

    The first line of the validation's log is the score of what a new training begins with, the last one that of the
    epoch with which it ends, whatever the interval. One that is resumed and complete is left as it is.

    Args:
        trainer: Runs the training.
        evaluator: Runs the validation.
        checkpoint: Writes the checkpoints, and knows whether the training is resumed.
        summary_writer: TensorBoard's, closed at the end.
        name: What stands before the bar.
        rank: Number of this process; the first alone shows the bar.
        minutes: End after the epoch in which they are over; None for an end by the epochs.
    """
    checkpoint.attach(trainer)
    ProgressBar(disable=rank > 0, desc=name).attach(trainer, output_transform=RecentLoss())
    start = None
    if not checkpoint.resume:
        evaluator.run(0)
        start = evaluator.state.metrics.get(evaluator.state.key_metric_name)
    if minutes is not None:
        limit = TimeLimit(limit_sec=max(1, round(60 * minutes)))
        trainer.add_event_handler(Events.EPOCH_COMPLETED, limit)
    trainer.run()
    if validate_last(evaluator, trainer):
        if checkpoint.save:
            checkpoint.write(trainer)
    elif not rank and checkpoint.resume and checkpoint.resumed_epoch == trainer.state.epoch:
        print(f"the training is complete after epoch {trainer.state.epoch}: nothing is left to do")
    if summary_writer is not None:
        summary_writer.close()
    state = evaluator.state
    if not rank and state.key_metric_name is not None:
        before = "" if start is None else f" ({start:.4g} before the training)"
        print(f"best {state.key_metric_name} {state.best_metric:.4g} after epoch {state.best_metric_epoch}{before}")


def run_fitting(trainer: Trainer) -> None:
    """Train without validation and checkpoints, with a bar of the progress."""
    ProgressBar().attach(trainer, output_transform=RecentLoss())
    trainer.run()


def run_evaluation(evaluator: Evaluator, wrote: str, *, name: str = "reconstruct", rank: int = 0) -> None:
    """Run an evaluator over its cases with a bar of the progress, and say where the results are.

    Args:
        evaluator: Runs the network; nothing is done if it has no case.
        wrote: What was written, and where; ``{}`` in it stands for the number of cases.
        name: What stands before the bar.
        rank: Number of this process; the first alone shows the bar and says it.
    """
    number = len(evaluator.data_loader.dataset)
    ProgressBar(disable=rank > 0, desc=name).attach(evaluator)
    if number:
        evaluator.run()
    if not rank:
        print("wrote", wrote.replace("{}", str(number)))
