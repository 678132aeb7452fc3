"""The two sides of the comparison do the same training."""

from pathlib import Path
from typing import Any

import pytest
import step_time
import torch
from plain_training import make_step
from torch.utils.data import default_collate

from tests.benchmarks.test_plain import tiny
from tests.bundles.sources import SHIPPED, name
from trct_monai.io.files import read_csv

NETWORKS = ("network", "discriminator")


def trainer_step(parser: Any) -> Any:
    """One step of a batch by the bundle's own trainer; it gives the network's loss."""
    trainer = parser.get_parsed_content("train::trainer")
    trainer.state.epoch, trainer.state.iteration, trainer.state.epoch_length = 1, 1, 1
    return lambda batch: trainer._iteration(trainer, batch)["loss"].detach()


def seeded_loss(step: Any, batch: Any, seed: int) -> float:
    """The loss of a step whose random numbers, such as a field's points, follow from a seed."""
    torch.manual_seed(seed)
    return float(step(batch))


@pytest.mark.parametrize("bundle", [bundle.name for bundle in SHIPPED], ids=name)
def test_both_sides_have_the_same_losses_and_steps(bundle: str) -> None:
    ours, other = tiny(bundle), tiny(bundle)
    batch = default_collate([ours["train"]["dataset"][index] for index in range(2)])
    for key in NETWORKS:
        if f"{key}_def" in ours.config:
            other.get_parsed_content(key).load_state_dict(ours.get_parsed_content(key).state_dict())
    step, plain_step = trainer_step(ours), make_step(other)
    losses = [tuple(seeded_loss(side, batch, seed) for side in (step, plain_step)) for seed in range(3)]
    assert losses[0][1] == pytest.approx(losses[0][0], rel=1e-5)
    # A spectral norm's power iteration goes on at every pass, of which the plain loop has one more.
    assert losses[-1][1] == pytest.approx(losses[-1][0], rel=1e-2)
    assert losses[-1] != losses[0]


@pytest.mark.slow
def test_table_has_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    case = step_time.Case("ct_phase_pix2pix", changes={"batch_size": 1})
    monkeypatch.setattr(step_time, "CASES", (case,))
    step_time.step_time(rounds=2, threads=1, output=str(tmp_path / "step_time.csv"))
    (row,) = read_csv(tmp_path / "step_time.csv")
    assert float(row["ours_step_ms"]) > 0 and float(row["plain_memory_mb"]) > 0
    assert "| ct_phase_pix2pix | 128 x 128 | 1 | 1.1 M |" in capsys.readouterr().out
