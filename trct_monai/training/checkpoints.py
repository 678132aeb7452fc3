"""Checkpoints: exact resume, and the best weights."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ignite.engine import Engine, Events
from torch import nn

from trct_monai.io.weights import load_state, save_state


@runtime_checkable
class Stateful(Protocol):
    """What a checkpoint can hold: a network, an optimiser, a scheduler, a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


class ResumableCheckpoint:
    """Write all that training needs after each epoch to one file, and continue from it.

    The file is written beside itself and renamed, so that it is whole whenever the process is killed. It loads with
    `weights_only=True`. Attach it after validation and schedulers.

    Args:
        path: The checkpoint file.
        objects: Networks, optimisers and schedulers by name; None is left out. The engine's gradient scaler is taken
            along by itself: it comes into being when the engine runs.
        evaluator: Validation engine whose best metric goes on counting.
        resume: Continue from `path`, which must exist.
        save: Write checkpoints: true on one process only.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        objects: Mapping[str, Stateful | None],
        evaluator: Engine | None = None,
        *,
        resume: bool = False,
        save: bool = True,
    ) -> None:
        self.path = Path(path)
        self.objects = {name: value for name, value in objects.items() if value is not None}
        self.evaluator, self.save = evaluator, save
        if resume and not self.path.is_file():
            raise ValueError(f"cannot resume: there is no checkpoint {self.path}; start without --resume True")
        self.resume = resume

    def attach(self, engine: Engine) -> None:
        """Load at the start if asked to; save at every epoch's end."""
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        if self.save:
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def write(self, engine: Engine) -> None:
        """Write the state after the epoch that has just ended."""
        state: dict[str, Any] = {"epoch": engine.state.epoch, "epoch_length": engine.state.epoch_length}
        if self.evaluator is not None:
            state["best_metric"] = float(self.evaluator.state.best_metric)
            state["best_metric_epoch"] = int(self.evaluator.state.best_metric_epoch)
        state.update({name: value.state_dict() for name, value in self.objects.items()})
        if getattr(engine, "scaler", None) is not None:
            state["scaler"] = engine.scaler.state_dict()
        save_state(self.path, state)

    def load(self, engine: Engine) -> None:
        """Set every object, the engine's epoch and the best metric to what the file holds.

        Raises:
            ValueError: If the checkpoint lacks an object of this run, or a cosine schedule has another length: PyTorch
                would take the checkpoint's without a word.
        """
        state = load_state(self.path)
        missing = sorted(set(self.objects) - set(state))
        if missing:
            raise ValueError(f"checkpoint {self.path} lacks {', '.join(missing)}; it belongs to another configuration")
        for name, value in self.objects.items():
            made_for, wanted = state[name].get("T_max"), getattr(value, "T_max", None)
            if made_for != wanted:
                raise ValueError(
                    f"checkpoint {self.path} is of a learning rate schedule over {made_for} epochs, this run has "
                    f"{wanted}; resume with --epochs {made_for}, or start anew"
                )
            value.load_state_dict(state[name])
        if getattr(engine, "scaler", None) is not None and "scaler" in state:
            engine.scaler.load_state_dict(state["scaler"])
        # The epoch counts, not the iteration: another batch size or world size changes an epoch's length.
        engine.state.epoch = state["epoch"]
        engine.state.iteration = state["epoch"] * (engine.state.epoch_length or state["epoch_length"])
        if self.evaluator is not None:
            self.evaluator.state.best_metric = state["best_metric"]
            self.evaluator.state.best_metric_epoch = state["best_metric_epoch"]


class BestModel:
    """Write a network's weights whenever the evaluator finds a new best key metric.

    Args:
        path: The weights' file: a flat CPU state dict that loads with `weights_only=True`.
        network: The network, or its DistributedDataParallel wrapper.
    """

    def __init__(self, path: str | os.PathLike[str], network: nn.Module) -> None:
        self.path, self.network = Path(path), network

    def attach(self, engine: Engine) -> None:
        """Look at the key metric after each validation; attach to the evaluator."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch != engine.state.epoch:
            return
        network = getattr(self.network, "module", self.network)
        save_state(self.path, {name: value.detach().cpu() for name, value in network.state_dict().items()})
