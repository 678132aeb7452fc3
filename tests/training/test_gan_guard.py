"""The GAN guard: what it records, and when it warns."""

import csv
import logging
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events

from tests.training.test_adversarial import trainer
from trct_monai.training.gan_guard import GANGuard


def train_with(accuracies: list[float], path: Path, patience: int = 3) -> Engine:
    """A training in which the discriminator has these accuracies, epoch by epoch."""
    engine = Engine(
        lambda engine, _: {
            "accuracy_real": torch.tensor(accuracies[engine.state.epoch - 1]),
            "accuracy_fake": torch.tensor(accuracies[engine.state.epoch - 1]),
            "discriminator_loss": torch.tensor(0.2),
            "adversarial_loss": torch.tensor(0.5),
        }
    )
    engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "gradient_norm", 1.0))
    GANGuard(str(path), threshold=0.9, patience=patience).attach(engine)
    engine.run([0, 1], max_epochs=len(accuracies))
    return engine


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_discriminator_that_dominates_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train_with([0.7, 0.95, 0.95, 0.95], tmp_path / "guard.csv")
    first, last = warnings(caplog)
    assert "the discriminator dominates: its accuracy was above 90 % in 3 epochs in a row" in first
    assert "from epoch 1: accuracy between 70 and 95 %, 95 % in the last epoch; above 90 % in 3 of 4 epochs" in last
    with open(tmp_path / "guard.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy_real"]) for row in rows] == pytest.approx([0.7, 0.95, 0.95, 0.95])
    assert rows[0]["epoch"] == "1" and float(rows[0]["gradient_norm"]) == 1.0


def test_a_discriminator_that_errs_now_and_then_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    train_with([0.95, 0.95, 0.6, 0.95, 0.7], tmp_path / "guard.csv")
    assert warnings(caplog) == []
    assert "between 60 and 95 %, 70 % in the last epoch; above 90 % in 3 of 5 epochs" in caplog.text


def test_a_generator_that_does_not_learn_ends_in_the_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = trainer(epochs=30, adversarial_weight=1.0)
    engine.optimizer = torch.optim.SGD(engine.network.parameters(), lr=0.0)
    engine.add_event_handler(Events.STARTED, lambda engine: setattr(engine.state, "gradient_norm", 0.0))
    with torch.no_grad():
        engine.network.layer.bias.fill_(-4.0)
    GANGuard(str(tmp_path / "guard.csv"), threshold=0.9, patience=3).attach(engine)
    engine.run()
    assert any("the discriminator dominates" in message for message in warnings(caplog))


def test_a_discriminator_that_stays_inactive_is_logged_and_writes_no_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    engine = trainer(epochs=1, adversarial_weight=0.0)
    GANGuard(str(tmp_path / "guard.csv")).attach(engine)
    engine.run()
    assert "discriminator inactive until epoch 1, the last" in caplog.text and not (tmp_path / "guard.csv").exists()


def test_numbers_out_of_range_are_refused(tmp_path: Path) -> None:
    for threshold, patience in ((0.4, 3), (1.0, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="threshold must be between 0.5 and 1 and patience 1 or more"):
            GANGuard(str(tmp_path / "x.csv"), threshold=threshold, patience=patience)
