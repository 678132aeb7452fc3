"""Training that is killed and resumed ends with the weights of training that was never stopped, to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.miniature import RECONSTRUCTION, DataOf, assert_same_weights, load, train, train_and_kill
from tests.bundles.sources import BUNDLES, COMMON, PHASES, name

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_resume_after_a_kill_is_exact(bundle: Path, data: DataOf, tmp_path: Path) -> None:
    """SIGKILL somewhere in the middle, then resume: the weights of a run that was never touched, to the bit."""
    options = {"epochs": 8, "val_interval": 2}
    overlays = [COMMON / "findings.json"] if bundle == RECONSTRUCTION else []
    expected = train(bundle, data(bundle), tmp_path / "whole", *overlays, **options)
    killed = tmp_path / "killed"
    stopped_after = train_and_kill(bundle, data(bundle), killed, *overlays, after_epoch=2, **options)
    assert 2 <= stopped_after < 8
    resumed = train(bundle, data(bundle), killed, *overlays, **options, resume=True)
    assert_same_weights(resumed, expected)
    for key in ("epoch", "lr_scheduler", "best_metric", "best_metric_epoch"):
        assert resumed[key] == expected[key], key
    torch.testing.assert_close(resumed["optimizer"], expected["optimizer"], atol=0, rtol=0)
    assert_same_weights({"network": load(killed / "model.pt")}, {"network": load(tmp_path / "whole" / "model.pt")})


@pytest.mark.parametrize(
    ("bundle", "sizes"),
    [
        (
            RECONSTRUCTION,
            {"finer_channels": [4], "patch_size": 2, "decoder_channels": [8], "schedule": [[1, 8], [3, 16]]},
        ),
        (RECONSTRUCTION.with_name("two_stage"), {"ssim_weight": 0.0, "schedule": [[1, 4], [3, 8]]}),
    ],
    ids=name,
)
def test_multi_resolution_training_grows_and_resumes(
    bundle: Path, sizes: dict[str, Any], phantoms: Path, tmp_path: Path
) -> None:
    """Coarse to fine in one run; resuming in the finer part gives the same weights."""
    overlay = COMMON / "multi_resolution.json"
    whole = train(bundle, phantoms, tmp_path / "whole", overlay, **sizes, epochs=4)
    fine = [key for key in whole["network"] if key.startswith(("finer.heads.0", "heads.1"))]
    assert fine and all(whole["network"][key].any() for key in fine)
    train_and_kill(bundle, phantoms, tmp_path / "killed", overlay, after_epoch=2, **sizes, epochs=4)
    resumed = train(bundle, phantoms, tmp_path / "killed", overlay, **sizes, epochs=4, resume=True)
    assert_same_weights(resumed, whole)


def test_a_finished_training_that_is_resumed_does_nothing(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last epoch, which the interval leaves out, has been validated, and is known to be."""
    options = {"epochs": 3, "val_interval": 2}
    before = train(RECONSTRUCTION, phantoms, tmp_path, **options)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.pt")}
    best = capsys.readouterr().out.split("best psnr")[1].split("(")[0]
    assert "after epoch 3" in best and before["best_metric_epoch"] == before["validated_epoch"] == 3
    train(RECONSTRUCTION, phantoms, tmp_path, **options, resume=True)
    text = capsys.readouterr().out
    assert "the training is complete after epoch 3: nothing is left to do" in text
    assert f"best psnr{best.rstrip()}" in text
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.pt")} == written


def test_averaged_weights_are_validated_saved_and_resumed(phase_pairs: Path, tmp_path: Path) -> None:
    options = {"ema_decay": 0.9, "epochs": 3, "val_interval": 1}
    whole = train(PHASES, phase_pairs, tmp_path / "whole", **options)
    assert any((whole["ema"][key] != value).any() for key, value in whole["network"].items())
    saved = load(tmp_path / "whole" / "model.pt")
    assert saved.keys() == whole["ema"].keys()
    train_and_kill(PHASES, phase_pairs, tmp_path / "stopped", **options)
    assert_same_weights(train(PHASES, phase_pairs, tmp_path / "stopped", **options, resume=True), whole)
