"""The adversarial trainer: which network learns from which term, and that it resumes exactly."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import MeanAbsoluteError, from_engine
from monai.losses import PatchAdversarialLoss
from monai.transforms import Lambdad
from torch import nn
from torch.utils.data import DataLoader

from trct_monai.training.adversarial import AdversarialTrainer, DiscriminatorEvents
from trct_monai.training.checkpoints import ResumableCheckpoint
from trct_monai.training.gan_guard import GANGuard
from trct_monai.training.handlers import ClipGradients, EpochSeed, StopOnNonFinite


class Generator(nn.Module):
    """Two radiographs to a volume, no norm: a batch is the mean of its cases."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * 16, 64)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.layer(image.flatten(1))).view(-1, 1, 4, 4, 4)


class Scaled(Generator):
    """A generator that is told something beside the radiographs."""

    def forward(self, image: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        return super().forward(scale * image)


def discriminator() -> nn.Module:
    return nn.Sequential(nn.Conv3d(1, 4, 2, 2), nn.LeakyReLU(0.2), nn.Conv3d(4, 1, 1))


def cases(count: int = 8) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.rand(32, 64, generator=generator) - 0.5
    images = torch.rand(count, 2, 4, 4, generator=generator)
    labels = torch.sigmoid(images.flatten(1) @ mix).view(-1, 1, 4, 4, 4)
    return [{"image": image, "label": label} for image, label in zip(images, labels)]


def trainer(
    epochs: int = 2, batch_size: int = 2, network: nn.Module | None = None, **options: Any
) -> AdversarialTrainer:
    torch.manual_seed(0)
    network, against = network or Generator(), discriminator()
    return AdversarialTrainer(
        torch.device("cpu"),
        epochs,
        DataLoader(cases(), batch_size),
        network,
        options.pop("optimizer", None) or torch.optim.Adam(network.parameters(), 1e-2),
        nn.L1Loss(),
        against,
        torch.optim.Adam(against.parameters(), 1e-2),
        PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True),
        **options,
    )


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b))


def test_each_step_changes_its_own_network_alone() -> None:
    engine = trainer(epochs=1)
    seen: dict[str, Any] = {}

    @engine.on(IterationEvents.FORWARD_COMPLETED)
    def before(engine: AdversarialTrainer) -> None:
        engine.discriminator.zero_grad()
        seen["generator"], seen["discriminator"] = weights(engine.network), weights(engine.discriminator)

    @engine.on(IterationEvents.BACKWARD_COMPLETED)
    def after_generator(engine: AdversarialTrainer) -> None:
        assert all(parameter.grad is None for parameter in engine.discriminator.parameters())
        assert all(parameter.requires_grad for parameter in engine.discriminator.parameters())
        seen["gradients"] = [parameter.grad.clone() for parameter in engine.network.parameters()]

    @engine.on(DiscriminatorEvents.DISCRIMINATOR_BACKWARD_COMPLETED)
    def after_discriminator(engine: AdversarialTrainer) -> None:
        assert not same(weights(engine.network), seen["generator"])
        assert same(weights(engine.discriminator), seen["discriminator"])
        assert same([parameter.grad for parameter in engine.network.parameters()], seen["gradients"])
        assert all(parameter.grad is not None for parameter in engine.discriminator.parameters())

    @engine.on(Events.ITERATION_COMPLETED)
    def at_the_end(engine: AdversarialTrainer) -> None:
        assert not same(weights(engine.discriminator), seen["discriminator"])

    engine.run()
    assert engine.state.iteration == 4 and "gradients" in seen


def test_the_label_is_real_and_the_prediction_is_fake() -> None:
    engine, inputs = trainer(epochs=1), []
    engine.discriminator.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach().clone()))
    engine.run()
    batch = next(iter(DataLoader(cases(), 2)))
    fake, both = inputs[:2]  # the generator's pass, then the discriminator's only one
    assert len(inputs) == 2 * 4 and both.shape[0] == 4
    torch.testing.assert_close(both[:2], batch["label"])
    torch.testing.assert_close(both[2:], fake)


def test_the_condition_is_put_before_the_volume() -> None:
    shapes: list[tuple[int, ...]] = []
    engine = trainer(
        epochs=1, condition=lambda image: image.mean(dim=(1, 2, 3))[:, None, None, None, None].expand(-1, 1, 4, 4, 4)
    )
    engine.discriminator[0] = nn.Conv3d(2, 4, 2, 2)
    engine.discriminator_optimizer = torch.optim.Adam(engine.discriminator.parameters())
    engine.discriminator.register_forward_pre_hook(lambda _, inputs: shapes.append(tuple(inputs[0].shape)))
    engine.run()
    assert set(shapes) == {(2, 2, 4, 4, 4), (4, 2, 4, 4, 4)}


def test_the_condition_gets_what_the_network_is_given() -> None:
    given: list[float] = []

    def condition(image: torch.Tensor, scale: float) -> torch.Tensor:
        given.append(scale)
        return scale * image.mean(dim=(1, 2, 3))[:, None, None, None, None].expand(-1, 1, 4, 4, 4)

    engine = trainer(
        epochs=1,
        condition=condition,
        network=Scaled(),
        prepare_batch=lambda batch, *_, **__: (batch["image"], batch["label"], (), {"scale": 3.0}),
    )
    engine.discriminator[0] = nn.Conv3d(2, 4, 2, 2)
    engine.discriminator_optimizer = torch.optim.Adam(engine.discriminator.parameters())
    engine.run()
    assert given == [3.0] * 4, "once for each iteration"


def test_the_generator_learns_against_the_discriminator() -> None:
    engine, losses, accuracies = trainer(epochs=60, adversarial_weight=0.01), [], []

    @engine.on(Events.EPOCH_COMPLETED)
    def remember(engine: AdversarialTrainer) -> None:
        output = engine.state.output[0]
        losses.append(float(output["reconstruction_loss"]))
        accuracies.append(float(output["accuracy_real"] + output["accuracy_fake"]) / 2)

    engine.run()
    assert losses[-1] < 0.6 * losses[0]
    assert 0 <= min(accuracies) and max(accuracies) <= 1 and max(accuracies) > 0.5


def test_the_discriminator_is_inactive_before_its_start_and_without_a_weight() -> None:
    for options in ({"adversarial_start": 2}, {"adversarial_weight": 0.0}):
        engine = trainer(epochs=2, **options)
        before = weights(engine.discriminator)
        engine.run()
        assert same(weights(engine.discriminator), before) and "discriminator_loss" not in engine.state.output[0]
    engine = trainer(epochs=3, adversarial_start=2)
    engine.run()
    assert "discriminator_loss" in engine.state.output[0]


@pytest.mark.parametrize("frozen", ["0.weight", "2.bias"])
def test_frozen_parts_of_the_discriminator_stay_frozen(frozen: str) -> None:
    engine = trainer(epochs=1)
    parameters = dict(engine.discriminator.named_parameters())
    parameters[frozen].requires_grad_(False)
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    engine.run()
    assert [name for name, parameter in parameters.items() if not parameter.requires_grad] == [frozen]
    assert [name for name, parameter in parameters.items() if torch.equal(parameter, before[name])] == [frozen]


def test_two_accumulated_half_batches_are_one_batch() -> None:
    whole, halves = trainer(epochs=2, batch_size=4), trainer(epochs=2, batch_size=2, accumulation_steps=2)
    for engine in (whole, halves):
        engine.run()
    for name in ("network", "discriminator"):
        for a, b in zip(weights(getattr(whole, name)), weights(getattr(halves, name))):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_bfloat16_trains_and_needs_no_scaler() -> None:
    engine = trainer(epochs=2, amp=True, amp_kwargs={"dtype": torch.bfloat16})
    engine.run()
    assert engine.scaler is None
    assert all(torch.isfinite(weight).all() for weight in [*weights(engine.network), *weights(engine.discriminator)])


def test_float16_trains_with_one_scaler_for_both() -> None:
    engine = trainer(epochs=2, amp=True, amp_kwargs={"dtype": torch.float16})
    before = weights(engine.network), weights(engine.discriminator)
    engine.run()
    assert engine.scaler is not None and engine.scaler.is_enabled()
    assert not same(weights(engine.network), before[0]) and not same(weights(engine.discriminator), before[1])
    assert all(torch.isfinite(weight).all() for weight in [*weights(engine.network), *weights(engine.discriminator)])


def test_postprocessing_and_metrics_run_as_in_monais_trainers() -> None:
    engine = trainer(
        epochs=1,
        postprocessing=Lambdad("pred", lambda pred: pred + 1),
        key_train_metric={"mae": MeanAbsoluteError(output_transform=from_engine(["pred", "label"]))},
    )
    engine.run()
    assert isinstance(engine.state.output, list) and engine.state.output[0]["pred"].min() >= 1
    assert (
        engine.state.metrics["mae"] == pytest.approx(1.0, abs=0.5)
        and engine.state.best_metric == engine.state.metrics["mae"]
    )


def full(folder: Path, epochs: int, resume: bool = False) -> tuple[AdversarialTrainer, ResumableCheckpoint]:
    """A training as a bundle sets it up."""
    torch.manual_seed(1)
    network = Generator()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    engine = trainer(
        epochs,
        network=network,
        optimizer=optimizer,
        adversarial_start=1,
        train_handlers=[
            EpochSeed(3),
            StopOnNonFinite(folder / "checkpoint.pt"),
            ClipGradients(network, 1.0),
            GANGuard(str(folder / "gan_guard.csv")),
        ],
    )
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda _: schedule.step())
    objects = {
        "network": network,
        "optimizer": optimizer,
        "lr_scheduler": schedule,
        "discriminator": engine.discriminator,
        "discriminator_optimizer": engine.discriminator_optimizer,
    }
    checkpoint = ResumableCheckpoint(folder / "checkpoint.pt", objects, resume=resume)
    checkpoint.attach(engine)
    return engine, checkpoint


def test_a_resumed_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    whole, _ = full(tmp_path / "whole", 6)
    whole.run()
    first, _ = full(tmp_path / "parts", 3)
    first.run()
    second, _ = full(tmp_path / "parts", 6, resume=True)
    second.run()
    assert same(weights(whole.network), weights(second.network))
    assert same(weights(whole.discriminator), weights(second.discriminator))
    assert (tmp_path / "whole" / "gan_guard.csv").read_text(encoding="utf-8") == (
        tmp_path / "parts" / "gan_guard.csv"
    ).read_text(encoding="utf-8")
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "parts")]
    torch.testing.assert_close(
        states[0]["discriminator_optimizer"], states[1]["discriminator_optimizer"], atol=0, rtol=0
    )


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    engine, _ = full(tmp_path, 2)
    engine.loss_function = lambda pred, label: (pred - label).sum() * float("nan")
    with pytest.raises(RuntimeError, match="the loss became nan in epoch 1"):
        engine.run()


def test_negative_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="adversarial_weight and adversarial_start must be 0 or above"):
        trainer(adversarial_weight=-1.0)
    with pytest.raises(ValueError, match="accumulation_steps 1 or above, got 1.0, 0 and 0"):
        trainer(accumulation_steps=0)


def test_the_generators_term_bypasses_the_wrapper_of_the_discriminator() -> None:
    """As DistributedDataParallel wraps it: the generator's pass goes to the module inside."""

    class Wrapper(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module, self.calls = module, 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return self.module(x)

    plain, wrapped = trainer(epochs=1), trainer(epochs=1)
    wrapper = Wrapper(wrapped.discriminator)
    wrapped.discriminator = wrapper
    for engine in (plain, wrapped):
        engine.run()
    assert wrapper.calls == 4  # one forward for each backward
    assert same(weights(plain.network), weights(wrapped.network))
    assert same(weights(plain.discriminator), weights(copy.deepcopy(wrapper.module)))
