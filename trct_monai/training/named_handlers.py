"""The handlers that every bundle has, by name: a configuration changes one without counting places in a list."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from ignite.engine import Engine
from monai.engines import Evaluator
from monai.handlers import (
    CheckpointLoader,
    LrScheduleHandler,
    MetricsSaver,
    StatsHandler,
    TensorBoardStatsHandler,
    ValidationHandler,
)
from torch import Tensor, nn

from trct_monai.io.files import as_cell
from trct_monai.training.checkpoints import BestModel
from trct_monai.training.gan_guard import GANGuard
from trct_monai.training.handlers import ClipGradients, EpochSeed, LossTerms, SliceImages, StopOnNonFinite


@runtime_checkable
class Handler(Protocol):
    """What Ignite's and MONAI's handlers have in common."""

    def attach(self, engine: Engine) -> Any: ...


NamedEntries = dict[str, Handler | bool | None]
"""Handlers by name; None or false for one that is left out."""


class NamedHandlers:
    """Handlers attached in the order of their names' entries; one of None, or false, is left out.

    It is one handler for MONAI, whose `train#handlers` is a list. A configuration has it so, and then
    ``--train::named_handlers::clip False`` leaves one out, and an overlay adds one as
    ``"train::named_handlers::mine": {"_target_": ...}``:

        "named_handlers": {"_target_": "trct_monai.training.training_handlers", ...},
        "handlers": [{"_target_": "trct_monai.training.NamedHandlers", "handlers": "@train::named_handlers"}]

    Args:
        handlers: The handlers by name.

    Raises:
        ValueError: If one cannot be attached to an engine.
    """

    def __init__(self, handlers: Mapping[str, Handler | bool | None]) -> None:
        self.handlers = {name: handler for name, handler in handlers.items() if handler}
        wrong = [name for name, handler in self.handlers.items() if not hasattr(handler, "attach")]
        if wrong:
            raise ValueError(f"handler {wrong[0]!r} is {handlers[wrong[0]]!r}; give a handler, or False for none")

    def attach(self, engine: Engine) -> None:
        """Attach all of them."""
        for handler in self.handlers.values():
            handler.attach(engine)  # type: ignore[union-attr]  # checked above


def training_handlers(
    *,
    lr_scheduler: Any,
    evaluator: Evaluator,
    val_interval: int,
    max_grad_norm: float,
    resume_path: str | os.PathLike[str],
    summary_writer: Any = None,
    name: str = "train",
    seed: int = 0,
    rank: int = 0,
    **named: Handler | bool | None,
) -> NamedEntries:
    """What every training is watched by, for `NamedHandlers`.

    By name, in this order: ``seed`` (`EpochSeed`), ``non_finite`` (`StopOnNonFinite`), ``clip`` (`ClipGradients`),
    ``schedule`` (MONAI's LrScheduleHandler), ``stats``, ``tensorboard`` and ``loss_terms`` (the log of rank 0), those
    that are given, ``validation`` (MONAI's ValidationHandler).

    Args:
        lr_scheduler: Its step is taken after each epoch.
        evaluator: Runs the validation.
        val_interval: Epochs from one validation to the next.
        max_grad_norm: Largest L2 norm of all gradients together.
        resume_path: File of the checkpoint, for the message of a loss that is not finite.
        summary_writer: TensorBoard's SummaryWriter; None writes nothing.
        name: Name of the training in the log.
        seed: The run's seed.
        rank: Number of this process, which is added to the seed; the first alone writes.
        named: More handlers, or others in place of these; None or false leaves one out.
    """
    stats = StatsHandler(name=name, tag_name="loss", iteration_log=False, output_transform=_loss)
    handlers: NamedEntries = {
        "seed": EpochSeed(seed + rank),
        "non_finite": StopOnNonFinite(resume_path),
        "clip": ClipGradients(None, max_grad_norm),
        "schedule": LrScheduleHandler(lr_scheduler, print_lr=False),
        "stats": None if rank else stats,
        "tensorboard": summary_writer
        and TensorBoardStatsHandler(summary_writer, tag_name="loss", iteration_log=10, output_transform=_loss),
        "loss_terms": summary_writer and LossTerms(None, summary_writer),
    }
    validation = named.pop("validation", ValidationHandler(val_interval, evaluator, epoch_level=True))
    return {**_with(handlers, named), "validation": validation}


def fitting_handlers(
    *,
    max_grad_norm: float,
    name: str = "fit",
    tag_name: str = "loss",
    seed: int = 0,
    rank: int = 0,
    **named: Handler | bool | None,
) -> NamedEntries:
    """Of `training_handlers` those that a part of a trained network needs: ``seed``, ``clip`` and ``stats``.

    Args:
        max_grad_norm: Largest L2 norm of all gradients together.
        name: Name of the training in the log.
        tag_name: What the log calls the loss.
        seed: The run's seed.
        rank: Number of this process.
        named: More handlers, or others in place of these; None or false leaves one out.
    """
    handlers: NamedEntries = {
        "seed": EpochSeed(seed + rank),
        "clip": ClipGradients(None, max_grad_norm),
        "stats": StatsHandler(name=name, tag_name=tag_name, iteration_log=False, output_transform=_loss),
    }
    return _with(handlers, named)


def adversarial_handlers(
    *,
    discriminator_lr_scheduler: Any,
    guard_path: str | os.PathLike[str],
    guard_threshold: float,
    guard_patience: int,
    summary_writer: Any = None,
    rank: int = 0,
    **options: Any,
) -> NamedEntries:
    """Those of `training_handlers`, then ``discriminator_schedule`` and ``gan_guard`` (`GANGuard`, of rank 0).

    Args:
        discriminator_lr_scheduler: Its step is taken after each epoch.
        guard_path: The CSV that the guard writes.
        guard_threshold: See `GANGuard`.
        guard_patience: See `GANGuard`.
        summary_writer: TensorBoard's SummaryWriter.
        rank: Number of this process.
        options: Of `training_handlers`.
    """
    options_of_guard = {"summary_writer": summary_writer, "threshold": guard_threshold, "patience": guard_patience}
    guard = None if rank else GANGuard(str(guard_path), **options_of_guard)
    more = {"discriminator_schedule": LrScheduleHandler(discriminator_lr_scheduler, print_lr=False), "gan_guard": guard}
    own = {name: options.pop(name) for name in more if name in options}
    options |= {name: handler for name, handler in _with(more, own).items() if handler}
    return training_handlers(summary_writer=summary_writer, rank=rank, **options)


def validation_handlers(
    *,
    network: nn.Module,
    ckpt_path: str | os.PathLike[str],
    summary_writer: Any = None,
    name: str = "validate",
    rank: int = 0,
    **named: Handler | bool | None,
) -> NamedEntries:
    """What every validation during a training is watched by, in the first process, for `NamedHandlers`.

    By name: ``stats``, ``tensorboard``, ``pictures`` (`SliceImages`), ``best`` (`BestModel`), and those that are given.

    Args:
        network: The network whose best weights are kept, or its DistributedDataParallel wrapper.
        ckpt_path: Their file.
        summary_writer: TensorBoard's SummaryWriter; None writes nothing.
        name: Name of the validation in the log.
        rank: Number of this process.
        named: More handlers, or others in place of these; None or false leaves one out.
    """
    handlers: NamedEntries = {
        "stats": StatsHandler(name=name, iteration_log=False),
        "tensorboard": summary_writer and TensorBoardStatsHandler(summary_writer, iteration_log=False),
        "pictures": summary_writer and SliceImages(summary_writer),
        "best": BestModel(ckpt_path, network),
    }
    if rank:
        handlers = dict.fromkeys(handlers)
    return _with(handlers, named)


def evaluation_handlers(
    *,
    network: nn.Module,
    ckpt_path: str | os.PathLike[str],
    eval_dir: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    name: str = "evaluate",
    rank: int = 0,
    **named: Handler | bool | None,
) -> NamedEntries:
    """What an evaluation of a checkpoint, case by case, needs: ``checkpoint``, ``stats`` and ``metrics``.

    Args:
        network: The network that the evaluator runs.
        ckpt_path: Its weights.
        eval_dir: Folder of the CSV of each metric.
        device: Where the network is.
        name: Name of the evaluation in the log.
        rank: Number of this process.
        named: More handlers, or others in place of these; None or false leaves one out.
    """
    metrics = MetricsSaver(
        str(eval_dir), metrics="*", metric_details="*", summary_ops="*", delimiter=",", batch_transform=_case_ids
    )
    handlers: NamedEntries = {
        "checkpoint": CheckpointLoader(str(ckpt_path), {"model": network}, map_location=device),
        "stats": None if rank else StatsHandler(name=name, iteration_log=False),
        "metrics": metrics,
    }
    return _with(handlers, named)


def inference_handlers(
    *,
    network: nn.Module,
    ckpt_path: str | os.PathLike[str],
    load_pretrain: bool = True,
    device: str | torch.device = "cpu",
    name: str = "inference",
    refiner: Handler | bool | None = None,
    **named: Handler | bool | None,
) -> NamedEntries:
    """What every inference needs: ``checkpoint``, which loads the weights as it starts, and ``stats``.

    Args:
        network: The network.
        ckpt_path: Its weights.
        load_pretrain: Load them; false for a network that has them already.
        device: Where the network is.
        name: Name of the inference in the log.
        refiner: What loads the weights of a second network, see `FrozenWeights`; None or false for none.
        named: More handlers, or others in place of these; None or false leaves one out.
    """
    handlers: NamedEntries = {
        "checkpoint": load_pretrain and CheckpointLoader(str(ckpt_path), {"model": network}, map_location=device),
        "refiner": refiner,
        "stats": StatsHandler(name=name, iteration_log=False),
    }
    return _with(handlers, named)


def _with(handlers: NamedEntries, named: NamedEntries) -> NamedEntries:
    """Standard handlers with those that are given in their places, or after them.

    Raises:
        ValueError: If one that there is none of shall be left out: its name is misspelt.
    """
    unknown = [name for name, handler in named.items() if handler is False and name not in handlers]
    if unknown:
        raise ValueError(f"there is no handler {unknown[0]!r} to leave out; there are {', '.join(handlers)}")
    return {**handlers, **named}


def _loss(output: Mapping[str, Tensor]) -> float:
    return output["loss"].item()


def _case_ids(batch: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What MetricsSaver names the rows by."""
    return [{"filename_or_obj": as_cell(case["case_id"])} for case in batch]
