"""Checkpoints: one to resume exactly from, and the best weights."""

import os
import weakref
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ignite.engine import Engine, Events
from torch import nn

from trct_monai.io.locks import alone_at
from trct_monai.io.weights import load_frozen, load_state, save_state


@runtime_checkable
class Stateful(Protocol):
    """A part of a checkpoint: a network, an optimiser, a scheduler, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class ResumableCheckpoint:
    """Writes the whole state of a training after each epoch to one file, and resumes from it exactly.

    Unlike MONAI's `CheckpointSaver` it writes one file under a temporary name and renames it, so that a killed process
    leaves the last whole one, and it keeps the best metric. The file loads with `weights_only=True`. Attach it after
    validation and schedulers. `resumed_epoch` is the epoch after which a training goes on. A second training with the
    same file is refused until this one has ended, by an error of it or of the evaluator too, or until nothing refers to
    its engine any more.

    Args:
        path: The checkpoint file.
        objects: Networks, optimisers and schedulers by name; None is left out. The engine's gradient scaler, which it
            makes when it runs, is added.
        evaluator: Validation engine, whose best metric is kept.
        resume: Continue from `path`, which must exist.
        save: Write checkpoints.
        rank: Number of this process; the first alone writes.

    Raises:
        ValueError: If there is no checkpoint to resume from.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        objects: Mapping[str, Stateful | None],
        evaluator: Engine | None = None,
        *,
        resume: bool = False,
        save: bool = True,
        rank: int = 0,
    ) -> None:
        self.path = Path(path)
        self.objects = {name: value for name, value in objects.items() if value is not None}
        self.evaluator, self.save = evaluator, save and rank == 0
        if resume and not self.path.is_file():
            raise ValueError(f"cannot resume: there is no checkpoint {self.path}; start without --resume True")
        self.resume, self.resumed_epoch = resume, 0

    def attach(self, engine: Engine) -> None:
        """Load at the start if the run resumes; save at every epoch's end.

        Raises:
            BlockingIOError: If another training writes this checkpoint.
        """
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        if self.save:
            lock = ExitStack()
            lock.enter_context(alone_at(self.path))
            weakref.finalize(engine, lock.close)  # at the latest when Python ends
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)
            engine.add_event_handler(Events.COMPLETED, lock.close)
            # An event's handlers would not do: MONAI's raise the error again, and those that follow are not called.
            for one in (engine, self.evaluator):
                if one is not None:
                    one.run = _released_by_errors(one.run, lock)

    def write(self, engine: Engine) -> None:
        """Write the state after the epoch that has just ended."""
        state: dict[str, Any] = {"epoch": engine.state.epoch, "epoch_length": engine.state.epoch_length}
        if self.evaluator is not None:
            state["best_metric"] = float(self.evaluator.state.best_metric)
            state["best_metric_epoch"] = int(self.evaluator.state.best_metric_epoch)
            state["validated_epoch"] = int(self.evaluator.state.epoch)
        state.update({name: value.state_dict() for name, value in self.objects.items()})
        if _scales(engine):
            state["scaler"] = engine.scaler.state_dict()
        save_state(self.path, state)

    def load(self, engine: Engine) -> None:
        """Set every object, the engine's epoch and the best metric to those of the file.

        Raises:
            ValueError: If the checkpoint lacks an object of this run, or a cosine schedule has another length, which
                PyTorch would replace by the checkpoint's.
        """
        state = load_state(self.path)
        missing = sorted(set(self.objects) - set(state))
        if missing:
            raise ValueError(f"checkpoint {self.path} lacks {', '.join(missing)}; it belongs to another configuration")
        for name, value in self.objects.items():
            made_for, wanted = state[name].get("T_max"), getattr(value, "T_max", None)
            if made_for != wanted:
                raise ValueError(
                    f"checkpoint {self.path} has a learning rate schedule over {made_for} epochs, this run has "
                    f"{wanted}; resume with --epochs {made_for}, or start a new run"
                )
            value.load_state_dict(state[name])
        if _scales(engine) and "scaler" in state:
            engine.scaler.load_state_dict(state["scaler"])
        self.resumed_epoch = state["epoch"]
        # Resume by the epoch, not the iteration: another batch size or world size changes an epoch's length.
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * (engine.state.epoch_length or state["epoch_length"])
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]
            if "validated_epoch" in state:  # checkpoints of 0.1.0 lack it
                self.evaluator.state.epoch = state["validated_epoch"]


def _released_by_errors(run: Callable[..., Any], lock: ExitStack) -> Callable[..., Any]:
    """What runs an engine, so that its lock is free after an error, also in a notebook, whose process goes on."""

    def run_and_release(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except BaseException:
            lock.close()
            raise

    return run_and_release


def _scales(engine: Engine) -> bool:
    """Whether an engine has a gradient scaler that is in use."""
    scaler = getattr(engine, "scaler", None)
    return scaler is not None and bool(scaler.is_enabled())


class BestModel:
    """Writes a network's weights whenever the evaluator's key metric is the best so far.

    Args:
        path: The weights' file: a flat CPU state dict that loads with `weights_only=True`.
        network: The network, or its DistributedDataParallel wrapper.
    """

    def __init__(self, path: str | os.PathLike[str], network: nn.Module) -> None:
        self.path, self.network = Path(path), network

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator: the key metric is compared after each validation."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch != engine.state.epoch:
            return
        network = getattr(self.network, "module", self.network)
        save_state(self.path, {name: value.detach().cpu() for name, value in network.state_dict().items()})


class FrozenWeights:
    """Loads the weights of a further network, such as a refiner, when the engine starts, and freezes it.

    Unlike MONAI's CheckpointLoader it says in one line what is wrong with them; see `trct_monai.io.load_frozen`.

    Args:
        path: The weights' file.
        network: The network, on its device.
        load_pretrain: False leaves the weights that it has.
    """

    def __init__(self, path: str | os.PathLike[str], network: nn.Module, *, load_pretrain: bool = True) -> None:
        self.path, self.network, self.load_pretrain = Path(path), network, load_pretrain

    def attach(self, engine: Engine) -> None:
        """Load at the engine's start."""
        if self.load_pretrain:
            engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        load_frozen(self.network, self.path, next(self.network.parameters()).device)
