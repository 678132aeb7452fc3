"""Every bundle trains in miniature: alone, with every overlay, in two processes, and from another folder."""

import socket
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.bundles.miniature import (
    CHECKPOINT,
    OVERLAY_MINIATURE,
    RECONSTRUCTION,
    SIZES,
    WITHOUT_CHANCE,
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
from tests.bundles.sources import BUNDLES, COMMON, PHASES, RADIOGRAPHS, name, overlays, read
from trct_monai.io.datalist import load_datalist

pytestmark = pytest.mark.slow

ANY_VIEW = RECONSTRUCTION.with_name("any_view")

FINDINGS = COMMON / "findings.json"

OWN_OVERLAYS = [
    pair
    for pair in overlays("train.json")
    # The intervals need a trained network, patients a folder of CTs.
    if pair[1].parent.name == "configs" and pair[1].stem not in ("train_intervals", "from_patients")
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


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_every_radiograph_bundle_trains_with_findings(
    bundle: Path, trained: Trained, phantoms: Path, tmp_path: Path
) -> None:
    state = train(bundle, phantoms, tmp_path, FINDINGS, findings_prob=1.0, findings_weight=1.0)["network"]
    before = load(trained(bundle) / CHECKPOINT)["network"]
    assert any(not torch.equal(value, before[key]) for key, value in state.items())


def test_phantoms_that_are_drawn_meanwhile_get_findings(tmp_path: Path) -> None:
    one, other = (train_by_the_clock(tmp_path / str(prob), FINDINGS, findings_prob=prob) for prob in (0.0, 1.0))
    assert any(not torch.equal(value, other["network"][key]) for key, value in one["network"].items())


def from_cts(bundle: Path, known: Path, folder: Path, output: Path, *more: Path, **changes: Any) -> dict[str, Any]:
    """Train a miniature from CTs; returns the last checkpoint."""
    config = files(bundle, "train.json", smoke(bundle), COMMON / "from_cts.json", *more)
    options = arguments(bundle, known, output) | without_pictures(config) | {"phantom_datalist": str(known)}
    options["datalist"] = None
    few = {"cts": str(folder), "warps": 1, "phantoms": 2, "validation_phantoms": 1, "num_workers": 0}
    run(config, **options | few | changes)
    return load(output / CHECKPOINT)


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_every_radiograph_bundle_trains_from_cts(bundle: Path, phantoms: Path, ct_folder: Path, tmp_path: Path) -> None:
    """And nothing of it needs the findings, which most have here."""
    findings = [] if bundle == ANY_VIEW else [FINDINGS]
    options = {"held_out": "p2"} | ({"findings_weight": 1.0} if findings else {})
    state = from_cts(bundle, phantoms, ct_folder, tmp_path / "one", *findings, **options)
    assert state["epoch"] == 2 and state["best_metric"] > 5
    if bundle == RECONSTRUCTION:
        assert_same_weights(from_cts(bundle, phantoms, ct_folder, tmp_path / "two", *findings, **options), state)


def test_a_model_of_patients_stands_beside_that_of_phantoms(
    trained: Trained, phantoms: Path, ct_folder: Path, tmp_path: Path
) -> None:
    bundle = ANY_VIEW
    overlay = bundle / "configs" / "from_patients.json"
    views = {"geometry": "x2ct", "usual_views": [0, 1], "fitted_warps": 2, "start_path": trained(bundle) / "model.pt"}
    models = {"num_models": 2, "num_pyramids": 2, "num_modes": 96, "start_noise": [0.2, 0.4]}
    state = from_cts(bundle, phantoms, ct_folder, tmp_path, overlay, FINDINGS, **views, **models)["network"]
    before = load(trained(bundle) / "model.pt")
    number = len(before["linear_start.modes"])
    assert torch.equal(state["linear_start.modes"][:number], before["linear_start.modes"])
    assert torch.equal(state["linear_start.mean"][:1], before["linear_start.mean"])
    assert state["linear_start.modes"][96:].any() and not state["linear_start.modes"][number:96].any()
    assert not torch.equal(state["initial_volume"][0], state["initial_volume"][1])
    names = [name.removeprefix("pyramids.0.") for name in state if name.startswith("pyramids.0.")]
    assert any(not torch.equal(state[f"pyramids.0.{name}"], state[f"pyramids.1.{name}"]) for name in names)
    run(files(bundle, "inference.json"), **arguments(bundle, phantoms, tmp_path) | SIZES | models | {"max_cases": 1})
    assert list(tmp_path.glob("*.nii.gz"))


def test_models_of_phantoms_and_of_patients_begin_from_nothing(phantoms: Path, ct_folder: Path, tmp_path: Path) -> None:
    more = [ANY_VIEW / "configs" / "from_patients.json", COMMON / "findings.json"]
    views = {"geometry": "x2ct", "usual_views": [0, 1], "fitted_warps": 2, "start_path": "", "findings_weight": 1.0}
    models = {"num_models": 2, "num_pyramids": 2, "start_noise": [0.2, 0.4]}
    state = from_cts(ANY_VIEW, phantoms, ct_folder, tmp_path, *more, **views, **models)["network"]
    phantom, patient = state["linear_start.mean"].flatten(1)
    assert phantom.any() and patient.any() and not torch.equal(phantom, patient)
    modes = state["linear_start.modes"].flatten(1).any(dim=1).view(2, -1)
    assert modes.any(dim=1).all()  # of phantoms and of patients


def test_training_from_cts_says_what_is_missing(phantoms: Path, ct_folder: Path, tmp_path: Path) -> None:
    for changes, message in (
        ({"cts": ""}, "no folder of CTs was given: pass --cts FOLDER"),
        ({"held_out": "p3"}, "p3: no such case or patient to hold out; there are p1, p2"),
        ({"held_out": "p1,p2"}, "all 2 CTs are held out"),
        ({"datalist": "a.json"}, "its phantoms from --phantom_datalist: --datalist cannot be given with it"),
    ):
        with pytest.raises(RuntimeError) as error:
            from_cts(RECONSTRUCTION, phantoms, ct_folder, tmp_path, **changes)
        assert message in str(innermost(error.value))
    assert not list(tmp_path.glob("*.pt"))


def innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_two_processes_train_like_one_with_twice_the_batch(
    bundle: Path, trained: Trained, data: DataOf, tmp_path: Path
) -> None:
    half, same = read(smoke(bundle))["batch_size"] // 2, WITHOUT_CHANCE.get(bundle.name, {})
    one = train(bundle, data(bundle), tmp_path / "one", **same) if same else load(trained(bundle) / CHECKPOINT)
    two = command(bundle, data(bundle), tmp_path, COMMON / "multi_gpu.json", batch_size=half, **same)
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
    assert_same_weights(load(tmp_path / CHECKPOINT), one, atol=2e-4, rtol=1e-3)


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
    # With the loss that the validation measures, from a mean of one phantom, every step helps: the end is the best.
    squares = {"l1_weight": 0.0, "deep_weight": 0.0, "fitted_seeds": 1}
    last = train_by_the_clock(tmp_path, val_interval=100, learning_rate=3e-3, steps_per_epoch=4, **squares)
    best = load(tmp_path / "model.pt")
    assert last["epoch"] == last["best_metric_epoch"] == 2
    assert all(torch.equal(best[name], value) for name, value in last["network"].items())
