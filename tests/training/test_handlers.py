"""Handlers on a small engine of MONAI: repeatable epochs, exact resume, stop on NaN, clipping, best model."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.handlers import LrScheduleHandler, StatsHandler, ValidationHandler
from monai.transforms import RandGaussianNoised
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from tests.devices.accelerator import ACCELERATOR, accelerator
from trct_monai.losses import WeightedSumLoss
from trct_monai.training.checkpoints import BestModel, ResumableCheckpoint
from trct_monai.training.handlers import ClipGradients, EpochSeed, LossTerms, ResolutionSchedule, StopOnNonFinite
from trct_monai.training.readings import EVERY, FiniteWatch
from trct_monai.training.supervised import SupervisedTrainer

CPU = torch.device("cpu")


class Run:
    """A tiny training with everything random that a real one has: data order, augmentation, dropout."""

    def __init__(
        self,
        folder: Path,
        epochs: int,
        *,
        resume: bool = False,
        handlers: tuple[Any, ...] = (),
        device: torch.device = CPU,
    ) -> None:
        torch.manual_seed(99 if resume else 0)  # a resumed process starts from other numbers
        self.network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 1)).to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(self.optimizer, 4)
        x = torch.linspace(-1, 1, 24).view(6, 4)
        data = [{"image": row, "label": row.sum(0, keepdim=True)} for row in x]
        noisy = Dataset(data, RandGaussianNoised("image", prob=1.0, std=0.1))
        sampler = DistributedSampler(noisy, num_replicas=1, rank=0, seed=3)
        self.evaluator = SupervisedEvaluator(
            device,
            DataLoader(Dataset(data), batch_size=1),
            self.network,
            key_val_metric=None,
        )
        self.trainer = SupervisedTrainer(
            device,
            epochs,
            DataLoader(noisy, batch_size=2, sampler=sampler),
            self.network,
            self.optimizer,
            nn.MSELoss(),
            train_handlers=[
                EpochSeed(7, noisy),
                LrScheduleHandler(self.scheduler, print_lr=False),
                ValidationHandler(1, self.evaluator),
                *handlers,
            ],
        )
        objects = {"network": self.network, "optimizer": self.optimizer, "scheduler": self.scheduler}
        self.checkpoint = ResumableCheckpoint(folder / "checkpoint.pt", objects, self.evaluator, resume=resume)
        self.checkpoint.attach(self.trainer)

    def weights(self) -> torch.Tensor:
        self.trainer.run()
        return torch.cat([parameter.detach().flatten() for parameter in self.network.parameters()])


def test_resumed_training_equals_one_that_was_never_stopped(tmp_path: Path) -> None:
    expected = Run(tmp_path / "whole", 4).weights()
    Run(tmp_path / "parts", 2).weights()
    resumed = Run(tmp_path / "parts", 4, resume=True).weights()
    assert torch.equal(resumed, expected)


def test_epochs_differ_from_each_other(tmp_path: Path) -> None:
    draws = []
    run = Run(tmp_path, 3)
    run.trainer.add_event_handler(Events.EPOCH_STARTED, lambda: draws.append(float(torch.rand(()))))
    run.trainer.run()
    assert len(set(draws)) == 3


def test_best_metric_survives_a_resume(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    run.evaluator.state.best_metric, run.evaluator.state.best_metric_epoch = 12.5, 1
    run.trainer.run()
    other = Run(tmp_path, 1, resume=True)
    other.checkpoint.load(other.trainer)
    assert (other.evaluator.state.best_metric, other.evaluator.state.best_metric_epoch) == (12.5, 1)


def test_resume_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot resume: there is no checkpoint"):
        Run(tmp_path, 1, resume=True)


@pytest.mark.parametrize("fails", ["trainer", "evaluator"])
def test_a_second_training_is_refused_until_the_first_has_ended_by_an_error(fails: str, tmp_path: Path) -> None:
    """In one process too, as in a notebook, and though MONAI's handlers raise the error before others see it."""
    pytest.importorskip("fcntl")
    run = Run(tmp_path, 1, handlers=(StatsHandler(),))
    engine = getattr(run, fails)
    with pytest.raises(BlockingIOError, match="is being written by another run"):
        Run(tmp_path, 1)

    def fail() -> None:
        raise KeyError(fails)

    engine.add_event_handler(Events.STARTED, fail)
    with pytest.raises(KeyError):
        engine.run()
    Run(tmp_path, 1).trainer.run()


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    run.trainer.run()
    other = ResumableCheckpoint(tmp_path / "checkpoint.pt", {"discriminator": nn.Linear(1, 1)}, resume=True)
    with pytest.raises(ValueError, match="lacks discriminator"):
        other.load(run.trainer)


def test_a_schedule_of_another_length_is_refused(tmp_path: Path) -> None:
    Run(tmp_path, 1).trainer.run()
    other = Run(tmp_path, 1, resume=True)
    other.scheduler.T_max = 9
    with pytest.raises(ValueError, match="schedule over 4 epochs, this run has 9; resume with --epochs 4"):
        other.checkpoint.load(other.trainer)


def test_nan_loss_stops_before_the_step_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    class Poison(nn.MSELoss):
        calls = 0

        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(input, target) * (float("nan") if self.calls == 5 else 1.0)

    run = Run(tmp_path, 3, handlers=(StopOnNonFinite(tmp_path / "checkpoint.pt"),))
    run.trainer.loss_function = Poison()
    with pytest.raises(
        RuntimeError, match=r"became nan in epoch 2, iteration 5; the last checkpoint is .*checkpoint.pt"
    ):
        run.trainer.run()
    assert all(torch.isfinite(parameter).all() for parameter in run.network.parameters())
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["epoch"] == 1


def test_an_infinite_gradient_of_a_finite_loss_stops_before_the_step(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    ClipGradients(run.network, 1.0).attach(run.trainer)
    next(run.network.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(RuntimeError, match="the gradient norm became (inf|nan) in epoch 1, iteration 1"):
        run.trainer.run()
    assert all(torch.isfinite(parameter).all() for parameter in run.network.parameters())


def test_on_a_gpu_numbers_are_looked_at_in_groups_and_the_first_wrong_one_is_named() -> None:
    watch, place = FiniteWatch(), Engine(lambda engine, batch: None)
    with accelerator() as seen:
        for iteration in range(1, EVERY):
            place.state.iteration = iteration
            assert watch.add(place, torch.rand((), device=ACCELERATOR)) is None
        assert not seen.waits
        assert watch.add(place, torch.rand((), device=ACCELERATOR)) is None
        assert seen.waits
    watch.numbers, watch.places = (
        [torch.tensor([1.0, torch.inf, torch.nan][n]) for n in range(3)],
        [(2, 7), (2, 8), (2, 9)],
    )
    assert watch.look() == (2, 8, torch.inf)
    assert watch.look() is None


def test_what_is_not_finite_is_found_before_the_epoch_is_saved(tmp_path: Path) -> None:
    run = Run(tmp_path, 1, handlers=(StopOnNonFinite(tmp_path / "checkpoint.pt"),))
    (stop,) = [
        h for h in run.trainer._event_handlers[IterationEvents.LOSS_COMPLETED] if isinstance(h[0], StopOnNonFinite)
    ]
    run.trainer.add_event_handler(
        Events.ITERATION_COMPLETED, lambda: stop[0].watch.numbers.append(torch.tensor(torch.nan))
    )
    run.trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda: stop[0].watch.places.append((1, 1)))
    with pytest.raises(RuntimeError, match="became nan in epoch 1, iteration 1; there is no checkpoint yet"):
        run.trainer.run()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_bfloat16_has_no_gradient_scaler_and_float16_has_one() -> None:
    for dtype, scales in ((torch.bfloat16, False), (torch.float16, True), (None, True)):
        options = {} if dtype is None else {"amp_kwargs": {"dtype": dtype}}
        network = nn.Linear(1, 1)
        trainer = SupervisedTrainer(
            torch.device("cpu"),
            1,
            [None],
            network,
            torch.optim.SGD(network.parameters()),
            nn.MSELoss(),
            amp=True,
            **options,
        )
        trainer.add_event_handler(Events.STARTED, trainer.terminate)
        trainer.run()
        assert bool(trainer.scaler and trainer.scaler.is_enabled()) == scales


def test_an_epoch_seeds_what_prepares_its_batches() -> None:
    noise = RandGaussianNoised("image", prob=1.0, std=1.0)
    engine = Engine(lambda engine, batch: noise({"image": torch.zeros(3)})["image"])
    engine.prepare_batch, drawn = SimpleNamespace(noise=noise), []
    engine.add_event_handler(Events.ITERATION_COMPLETED, lambda engine: drawn.append(engine.state.output))
    EpochSeed(3).attach(engine)
    for _ in range(2):
        engine.run([0], max_epochs=2)
        engine.state.epoch = engine.state.iteration = 0
        engine.state.max_epochs = None
    assert torch.equal(torch.stack(drawn[:2]), torch.stack(drawn[2:])) and not torch.equal(drawn[0], drawn[1])


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_epoch_draws_the_same_whatever_ran_before(tmp_path: Path, num_workers: int) -> None:
    """Workers start anew with each epoch: those that persist would go on where the epoch before ended."""
    seen: dict[int, list[Tensor]] = {}

    def draws(first: int) -> Tensor:
        noisy = Dataset([{"image": torch.zeros(2)} for _ in range(4)], RandGaussianNoised("image", prob=1.0, std=1.0))
        loader = DataLoader(noisy, batch_size=2, num_workers=num_workers)
        engine = Engine(lambda engine, batch: seen.setdefault(first, []).append(batch["image"]))
        engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "epoch", first - 1))
        engine.add_event_handler(Events.STARTED, lambda: setattr(engine.state, "iteration", 2 * (first - 1)))
        EpochSeed(3, noisy).attach(engine)
        engine.run(loader, max_epochs=2)
        return torch.cat(seen[first][-2:])

    assert torch.equal(draws(1), draws(2))


def test_the_gradient_scaler_goes_along(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    run.trainer.run()
    run.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
    run.trainer.scaler.scale(torch.ones(()))
    run.checkpoint.write(run.trainer)
    other = Run(tmp_path, 1, resume=True)
    other.trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    other.checkpoint.load(other.trainer)
    assert other.trainer.scaler.get_scale() == 128.0


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_gradients_are_clipped_before_each_step(tmp_path: Path, accumulation_steps: int) -> None:
    run = Run(tmp_path, 1)
    run.trainer.accumulation_steps = accumulation_steps
    ClipGradients(run.network, 1e-3).attach(run.trainer)
    norms = []

    def norm_at_the_step(*_: Any) -> None:
        norms.append(torch.stack([p.grad.norm() for p in run.network.parameters()]).norm().item())

    run.optimizer.register_step_pre_hook(norm_at_the_step)
    run.trainer.run()
    assert len(norms) == {1: 3, 2: 2}[accumulation_steps]
    assert max(norms) <= 1e-3 * 1.001 and run.trainer.state.gradient_norm > 1e-3


def test_best_model_is_written_only_when_the_metric_improves(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    best = BestModel(tmp_path / "models" / "model.pt", run.network)
    state = run.evaluator.state
    state.epoch, state.best_metric_epoch = 2, 1
    best(run.evaluator)
    assert not best.path.exists()
    state.best_metric_epoch = 2
    best(run.evaluator)
    weights = torch.load(best.path, weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in run.network.state_dict().items())
    assert [path.name for path in best.path.parent.iterdir()] == ["model.pt"]


def test_loss_terms_are_logged_unweighted_and_averaged(tmp_path: Path) -> None:
    class Writer:
        values: dict[str, float] = {}

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.values[name] = value

    run, writer = Run(tmp_path, 1), Writer()
    loss = WeightedSumLoss({"l2": nn.MSELoss()}, {"l2": 10.0})
    terms = LossTerms(loss, writer)
    for value in (0.0, 2.0):
        loss(torch.zeros(1, 1, 2, 2, 2), torch.full((1, 1, 2, 2, 2), value))
        terms.collect(run.trainer)
    terms.write(run.trainer)
    assert writer.values == {"loss/l2": 2.0}


def test_a_schedule_that_does_not_fit_the_network_is_refused() -> None:
    network = SimpleNamespace(sizes=(8, 16), output_size=16)
    for schedule in ([[2, 8]], [[1, 12]], [[1, 8], [1, 16]], []):
        with pytest.raises(ValueError, match=r"pairs of a first epoch, rising from 1, and a size out of \(8, 16\)"):
            ResolutionSchedule(network, schedule)
    with pytest.raises(ValueError, match="needs a network of several scales"):
        ResolutionSchedule(nn.Linear(1, 1), [[1, 8]])
    schedule = ResolutionSchedule(network, [[1, 8], [3, 16]])
    sizes: list[int] = []
    engine = Engine(lambda engine, batch: sizes.append(network.output_size))
    schedule.attach(engine)
    engine.run([0], max_epochs=4)
    assert sizes == [8, 8, 16, 16]
