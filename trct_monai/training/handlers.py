"""Ignite handlers that MONAI lacks: reproducible epochs, a stop on NaN, loss terms, coarse to fine, pictures."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import set_rnd
from monai.engines.utils import IterationEvents
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.utils.data import Dataset

from trct_monai.figures import comparison_figure
from trct_monai.losses import EmphasisLoss
from trct_monai.training.readings import FiniteWatch, Reading, as_numbers


class EpochSeed:
    """Seeds every random generator at the start of each epoch from the run's seed and the epoch's number.

    An epoch then draws the same numbers in a resumed run as in an uninterrupted one, on every GPU, too: their
    generators are PyTorch's, and `prepare_batch` is seeded as the transforms of the data set are. The order of the
    cases follows from the epoch by `torch.utils.data.DistributedSampler`, with one process too.

    Args:
        seed: The run's seed; with several processes add the rank.
        dataset: Training data set, to seed its random transforms too; that of the engine's loader if None.
    """

    def __init__(self, seed: int, dataset: Dataset[Any] | None = None) -> None:
        self.seed, self.dataset = seed, dataset

    def attach(self, engine: Engine) -> None:
        """Seed at every epoch's start."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        seed = self.seed + 100_003 * engine.state.epoch  # far apart: neighbouring seeds belong to other ranks
        set_determinism(seed)
        loader = getattr(engine, "data_loader", None)
        dataset = getattr(loader, "dataset", None) if self.dataset is None else self.dataset
        for random in (dataset, getattr(engine, "prepare_batch", None)):
            if random is not None:
                set_rnd(random, seed)


class StopOnNonFinite:
    """Stops the training when the loss is NaN or infinite: on the CPU before the step.

    A GPU is not asked for each loss, since the next iteration would have to wait for the answer. There the training
    stops at most `trct_monai.training.readings.EVERY` iterations later, and before the epoch's checkpoint is written.

    Args:
        checkpoint: File of the last checkpoint, for the message.
    """

    def __init__(self, checkpoint: str | os.PathLike[str]) -> None:
        self.checkpoint = Path(checkpoint)
        self.watch = FiniteWatch()

    def attach(self, engine: Engine) -> None:
        """Check each loss before it is propagated, and at the epoch's end before what is attached later."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self._stop(self.watch.look()))

    def __call__(self, engine: Engine) -> None:
        self._stop(self.watch.add(engine, engine.state.output["loss"]))

    def _stop(self, wrong: Reading | None) -> None:
        if wrong is not None:
            kept = (
                f"the last checkpoint is {self.checkpoint}"
                if self.checkpoint.exists()
                else "there is no checkpoint yet"
            )
            raise RuntimeError(
                f"the loss became {wrong.value} in epoch {wrong.epoch}, iteration {wrong.iteration}; "
                f"{kept}; resume from it with a lower learning_rate or max_grad_norm"
            )


class ClipGradients:
    """Clips the norm of a network's gradients before each optimiser step (Pascanu et al., ICML 2013).

    The norm before clipping is kept in `engine.state.gradient_norm`, a tensor. It takes MONAI's gradient scaler and
    gradient accumulation into account. A norm that is not finite stops the training as `StopOnNonFinite` does.

    Args:
        network: The network; that of the engine if None.
        max_norm: Largest L2 norm of all gradients together.
    """

    def __init__(self, network: nn.Module | None, max_norm: float) -> None:
        self.network, self.max_norm = network, max_norm
        self.watch = FiniteWatch()

    def attach(self, engine: Engine) -> None:
        """Clip between backward pass and step."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self._stop(self.watch.look()))

    def __call__(self, engine: Engine) -> None:
        in_epoch = (engine.state.iteration - 1) % engine.state.epoch_length + 1
        if in_epoch % engine.accumulation_steps and in_epoch != engine.state.epoch_length:
            return
        scaled = engine.scaler is not None and engine.scaler.is_enabled()
        if scaled:
            engine.scaler.unscale_(engine.optimizer)
        network = engine.network if self.network is None else self.network
        norm = nn.utils.clip_grad_norm_(network.parameters(), self.max_norm)
        engine.state.gradient_norm = norm
        if not scaled:  # a scaler skips a step that is not finite, and lowers its scale
            self._stop(self.watch.add(engine, norm))

    def _stop(self, wrong: Reading | None) -> None:
        if wrong is not None:
            raise RuntimeError(
                f"the gradient norm became {wrong.value} in epoch {wrong.epoch}, iteration {wrong.iteration}, with a "
                "finite loss; resume from the last checkpoint with a lower learning_rate"
            )


class LossTerms:
    """Writes each epoch's mean of every unweighted term of a `WeightedSumLoss`, and the gradient norm, to TensorBoard.

    With several terms it also writes the ratio of gradient norms: that of each weighted term's gradient with respect to
    the prediction over that of the first term, at the epoch's last iteration. It shows a term that dominates.

    Args:
        loss: The loss; that of the engine if None. One that keeps no terms is left alone.
        summary_writer: TensorBoard's SummaryWriter.
    """

    def __init__(self, loss: Any, summary_writer: Any) -> None:
        self.loss, self.summary_writer = loss, summary_writer
        self.values: dict[str, list[Tensor | float]] = {}

    def attach(self, engine: Engine) -> None:
        """Collect after each iteration, write after each epoch."""
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self.compare)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def compare(self, engine: Engine) -> None:
        """Compare the terms' gradients at the epoch's last iteration."""
        self.loss = engine.loss_function if self.loss is None else self.loss
        if isinstance(self.loss, EmphasisLoss):
            self.loss = self.loss.loss
        if len(getattr(self.loss, "losses", ())) < 2 or engine.state.iteration % engine.state.epoch_length:
            return
        norms = self.loss.gradient_norms(engine.state.output["pred"], engine.state.output["label"][:, :1])
        first, *others = norms
        for name in others:
            self.values[f"gradient_over_{first}/{name}"] = [norms[name] / max(norms[first], torch.finfo().tiny)]

    def collect(self, engine: Engine) -> None:
        """Keep the terms of this iteration."""
        for name, term in getattr(self.loss, "terms", {}).items():
            self.values.setdefault(f"loss/{name}", []).append(term)
        if hasattr(engine.state, "gradient_norm"):
            self.values.setdefault("gradient_norm", []).append(engine.state.gradient_norm)

    def write(self, engine: Engine) -> None:
        """Write the epoch's means."""
        for name, collected in self.values.items():
            values = as_numbers(collected)
            self.summary_writer.add_scalar(name, sum(values) / len(values), engine.state.epoch)
        self.values = {}


class ResolutionSchedule:
    """Trains a network of several scales coarse to fine: the finest scale by epoch.

    The network has all its scales from the start. A finer one is zero until it joins, and so begins at the interpolated
    coarser volume. Validation always takes the full size.

    Args:
        network: A network with an `output_size`, such as a `ReconstructionNetwork` of several scales.
        schedule: Pairs of the first epoch, counted from 1, and the voxels along each side from there on; the first
            pair's epoch is 1.

    Raises:
        ValueError: If the network has one size only, or a pair does not fit it.
    """

    def __init__(self, network: Any, schedule: Sequence[Sequence[int]]) -> None:
        sizes = tuple(getattr(network, "sizes", ()))
        if len(sizes) < 2:
            raise ValueError(
                f"multi-resolution training needs a network of several scales, {type(network).__name__} has the sizes "
                f"{sizes}; see the bundle's docs for the overlay that gives it finer scales"
            )
        epochs = [epoch for epoch, _ in schedule]
        wrong = [size for _, size in schedule if size not in sizes]
        if wrong or not epochs or epochs[0] != 1 or epochs != sorted(set(epochs)):
            raise ValueError(
                f"the schedule must be pairs of a first epoch, rising from 1, and a size out of {sizes}, "
                f"got {[list(pair) for pair in schedule]}"
            )
        self.network, self.schedule = network, [(int(epoch), int(size)) for epoch, size in schedule]

    def attach(self, engine: Engine) -> None:
        """Attach to the trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def __call__(self, engine: Engine) -> None:
        self.network.output_size = [size for epoch, size in self.schedule if epoch <= engine.state.epoch][-1]


class SliceImages:
    """Shows the first validation cases in TensorBoard: truth, prediction and difference in three planes.

    Args:
        summary_writer: TensorBoard's SummaryWriter.
        num_cases: Number of cases shown.
        tag: Name of the picture.
    """

    def __init__(self, summary_writer: Any, num_cases: int = 2, tag: str = "validation") -> None:
        self.summary_writer, self.num_cases, self.tag = summary_writer, num_cases, tag
        self.shown = 0

    def attach(self, engine: Engine) -> None:
        """Attach to the evaluator, whose output has `pred` and `label` in HU."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Count the cases from the first again."""
        self.shown = 0

    def __call__(self, engine: Engine) -> None:
        cases: Sequence[Mapping[str, Tensor]] = engine.state.output
        for case in cases[: max(0, self.num_cases - self.shown)]:
            figure = comparison_figure(case["label"][0], case["pred"][0])
            self.summary_writer.add_figure(f"{self.tag}/{self.shown}", figure, engine.state.epoch)
            self.shown += 1
