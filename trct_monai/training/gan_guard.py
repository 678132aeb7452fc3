"""A record of the discriminator's accuracy, and a warning when it leaves the generator nothing to learn from."""

import logging
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from torch import Tensor

from trct_monai.io.files import read_csv, write_csv
from trct_monai.training.readings import as_numbers

COLUMNS = (
    "accuracy_real",
    "accuracy_fake",
    "discriminator_loss",
    "adversarial_loss",
    "reconstruction_loss",
    "gradient_norm",
    "discriminator_gradient_norm",
)


class GANGuard:
    """Records the discriminator's accuracy after each epoch, and warns when the discriminator dominates.

    After each epoch in which the discriminator is active, the means of its accuracy on real and on fake patches, of
    both losses and of both gradient norms go to the log, to TensorBoard, and as a row to a CSV file, which a resumed
    training continues. An accuracy (mean of real and fake) above `threshold` in `patience` epochs in a row is a
    warning: such a discriminator gives the generator no useful gradient. A summary ends the training's log.

    Args:
        path: The CSV file.
        summary_writer: TensorBoard's SummaryWriter, or None.
        threshold: Accuracy above which the discriminator dominates.
        patience: Epochs in a row that make a warning.
        logger: Name of the logger.

    Raises:
        ValueError: If `threshold` is not between 0.5 and 1, or `patience` not positive.
    """

    def __init__(
        self,
        path: str,
        summary_writer: Any = None,
        *,
        threshold: float = 0.95,
        patience: int = 3,
        logger: str = "gan_guard",
    ) -> None:
        if not 0.5 < threshold < 1.0 or patience < 1:
            raise ValueError(f"threshold must be between 0.5 and 1 and patience 1 or more, got {threshold}, {patience}")
        self.path, self.summary_writer = Path(path), summary_writer
        self.threshold, self.patience = threshold, patience
        self.logger = logging.getLogger(logger)
        self.values: dict[str, list[Tensor | float]] = {}
        self.rows: list[dict[str, float]] = []
        self.read = False

    def attach(self, engine: Engine) -> None:
        """Attach to an `AdversarialTrainer`, after `ClipGradients` and before the checkpoint."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)
        engine.add_event_handler(Events.COMPLETED, self.conclude)

    def collect(self, engine: Engine) -> None:
        """Keep the numbers of this iteration."""
        output = engine.state.output
        if isinstance(output, list):  # decollated
            output = output[0]
        if "discriminator_loss" not in output:
            return
        for name in COLUMNS:
            value = engine.state.gradient_norm if name == "gradient_norm" else output.get(name)
            if value is not None:
                self.values.setdefault(name, []).append(value)

    def report(self, engine: Engine) -> None:
        """Write the epoch's means, and warn if the discriminator dominates."""
        if not self.values:
            return
        numbers = {name: as_numbers(values) for name, values in self.values.items()}
        means = {name: sum(values) / len(values) for name, values in numbers.items()}
        self.values = {}
        epoch = engine.state.epoch
        if not self.read:  # a resumed training continues its rows, a new one starts a new file
            self.rows, self.read = [row for row in _read(self.path) if row["epoch"] < epoch], True
        self.rows.append({"epoch": epoch, **means})
        _write(self.path, self.rows)
        for name, value in means.items():
            if self.summary_writer is not None:
                self.summary_writer.add_scalar(f"gan/{name}", value, epoch)
        self.logger.info(
            "epoch %d: discriminator accuracy %.0f %% on real and %.0f %% on fake patches; discriminator loss %.3f, "
            "generator's adversarial loss %.3f",
            epoch,
            100 * means["accuracy_real"],
            100 * means["accuracy_fake"],
            means["discriminator_loss"],
            means["adversarial_loss"],
        )
        recent = self.rows[-self.patience :]
        if len(recent) == self.patience and all(self._dominates(row) for row in recent):
            self.logger.warning(
                "the discriminator dominates: its accuracy was above %.0f %% in %d epochs in a row, and the generator "
                "gets no useful gradient; lower discriminator_learning_rate or adversarial_weight",
                100 * self.threshold,
                self.patience,
            )

    def conclude(self, engine: Engine) -> None:
        """Log the accuracy over all epochs, as a warning if the discriminator dominates in the last one."""
        if not self.rows:
            self.logger.info("discriminator inactive until epoch %d, the last", engine.state.epoch)
            return
        accuracies = [_accuracy(row) for row in self.rows]
        self.logger.log(
            logging.WARNING if self._dominates(self.rows[-1]) else logging.INFO,
            "discriminator active from epoch %d: accuracy between %.0f and %.0f %%, %.0f %% in the last epoch; above "
            "%.0f %% in %d of %d epochs",
            self.rows[0]["epoch"],
            100 * min(accuracies),
            100 * max(accuracies),
            100 * accuracies[-1],
            100 * self.threshold,
            sum(self._dominates(row) for row in self.rows),
            len(accuracies),
        )

    def _dominates(self, row: dict[str, float]) -> bool:
        return _accuracy(row) > self.threshold


def _accuracy(row: dict[str, float]) -> float:
    return (row["accuracy_real"] + row["accuracy_fake"]) / 2


def _read(path: Path) -> list[dict[str, float]]:
    rows = read_csv(path) if path.is_file() else []
    return [{key: float(value) for key, value in row.items() if value} for row in rows]


def _write(path: Path, rows: list[dict[str, float]]) -> None:
    write_csv(path, [{**row, "epoch": int(row["epoch"])} for row in rows], ["epoch", *COLUMNS])
