"""Every bundle trains in miniature: alone, with every overlay, in two processes, and from another folder."""

import socket
from pathlib import Path

import pytest
import torch

from tests.bundles.miniature import (
    CHECKPOINT,
    OVERLAY_MINIATURE,
    RECONSTRUCTION,
    DataOf,
    Trained,
    arguments,
    assert_same_weights,
    command,
    files,
    load,
    run,
    smoke,
    train,
    train_by_the_clock,
    without_pictures,
)
from tests.bundles.processes import Warm, shell, warm
from tests.bundles.sources import BUNDLES, COMMON, PHASES, name, overlays, read
from trct_monai.io.datalist import load_datalist

pytestmark = pytest.mark.slow

OWN_OVERLAYS = [
    pair
    for pair in overlays("train.json")
    if pair[1].parent.name == "configs" and pair[1].stem != "train_intervals"  # which needs a trained network
]


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_training_leaves_model_checkpoint_and_curves(bundle: Path, trained: Trained) -> None:
    output = trained(bundle)
    weights = load(output / "model.pt")
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    state = load(output / CHECKPOINT)
    assert state["epoch"] == 2 and state["best_metric"] > (-1 if bundle == PHASES else 10)  # HU over the identity; dB
    assert list((output / "tensorboard").glob("events*"))


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_training_is_repeatable_to_the_bit(bundle: Path, trained: Trained, data: DataOf, tmp_path: Path) -> None:
    assert_same_weights(train(bundle, data(bundle), tmp_path), load(trained(bundle) / CHECKPOINT))


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_evaluation_writes_every_case(bundle: Path, trained: Trained, data: DataOf, tmp_path: Path) -> None:
    config = files(bundle, "train.json", smoke(bundle), COMMON / "evaluate.json")
    run(config, **arguments(bundle, data(bundle), tmp_path, trained(bundle) / "model.pt"))
    lines = (tmp_path / "evaluation" / "psnr_raw.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(load_datalist(data(bundle), "test"))


@pytest.mark.parametrize(("bundle", "overlay"), OWN_OVERLAYS, ids=name)
def test_every_overlay_of_its_own_trains(
    bundle: Path, overlay: Path, trained: Trained, data: DataOf, tmp_path: Path
) -> None:
    changes = OVERLAY_MINIATURE.get(overlay.stem, {})
    if overlay.stem == "train_refine":
        changes = {**changes, "stage1_path": str(trained(bundle) / "model.pt")}
    config = files(bundle, "train.json", overlay, smoke(bundle))
    run(config, **arguments(bundle, data(bundle), tmp_path) | without_pictures(config) | changes)
    assert load(tmp_path / CHECKPOINT)["epoch"] == 2


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_two_processes_train_like_one_with_twice_the_batch(
    bundle: Path, trained: Trained, data: DataOf, tmp_path: Path
) -> None:
    half = read(smoke(bundle))["batch_size"] // 2
    two = command(bundle, data(bundle), tmp_path, COMMON / "multi_gpu.json", batch_size=half)
    if bundle == RECONSTRUCTION:
        launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
        shell(*launcher, *two, OMP_NUM_THREADS="1")
    else:  # what the launcher does, without its imports
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        for process in [Warm(*two, RANK=rank, LOCAL_RANK=rank, **world) for rank in ("0", "1")]:
            process.wait()
    assert_same_weights(load(tmp_path / CHECKPOINT), load(trained(bundle) / CHECKPOINT), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_commands_run_from_another_folder(bundle: Path, data: DataOf, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    start = shell if bundle == RECONSTRUCTION else warm
    start(*command(bundle, data(bundle), tmp_path / "output"), cwd=elsewhere)
    assert (tmp_path / "output" / "model.pt").is_file() and not list(elsewhere.iterdir())


def test_a_network_of_one_size_refuses_a_schedule(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as error:
        train(RECONSTRUCTION, phantoms, tmp_path, COMMON / "multi_resolution.json")
    assert "needs a network of several scales" in str(error.value.__cause__)


def test_a_finer_model_starts_from_a_coarser_one(phantoms: Path, tmp_path: Path) -> None:
    bundle = RECONSTRUCTION
    coarse = {"volume_size": 8, "patch_size": 2, "decoder_channels": [8]}
    train(bundle, phantoms, tmp_path / "coarse", **coarse)
    fine = coarse | {"volume_size": 16, "finer_channels": [4], "start_path": str(tmp_path / "coarse" / "model.pt")}
    state = train(bundle, phantoms, tmp_path / "fine", **fine, learning_rate=0.0)
    torch.testing.assert_close(
        state["network"]["blocks.0.mlp.linear1.weight"],
        load(tmp_path / "coarse" / "model.pt")["blocks.0.mlp.linear1.weight"],
    )
    with pytest.raises(RuntimeError) as error:
        train(bundle, phantoms, tmp_path / "other", **fine, hidden_size=16)
    assert "not the weights of a coarser DirectRegression" in str(error.value.__cause__)


def test_a_training_by_the_clock_refuses_what_it_would_ignore(phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as refused:
        train_by_the_clock(tmp_path, datalist=str(phantoms), resume=True)
    assert "--resume, --datalist cannot be given with it" in str(refused.value.__cause__)
    assert not (tmp_path / "model.pt").exists()


def test_a_training_by_the_clock_keeps_the_weights_of_its_end(tmp_path: Path) -> None:
    """Not those of its last validation, which may be epochs before."""
    last = train_by_the_clock(tmp_path, val_interval=100, learning_rate=1e-5)
    best = load(tmp_path / "model.pt")
    assert last["epoch"] == 2 and last["best_metric_epoch"] <= 0
    assert all(torch.equal(best[name], value) for name, value in last["network"].items())
