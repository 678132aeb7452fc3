"""Every bundle in miniature, alone and with every overlay: train, kill and resume, two processes, evaluate, infer."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.test_configs import BUNDLES, COMMON, PHASES, name, overlays
from trct_monai.baselines import BASELINES
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.io.datalist import load_datalist
from trct_monai.networks import VolumeRefiner

# Smaller networks for tiny volumes: a bundle whose own numbers are too large for a test adds its line here.
MINIATURE: dict[str, dict[str, Any]] = {
    "direct_regression": {
        "encoder_channels": [4, 8, 16],
        "hidden_size": 32,
        "num_layers": 1,
        "patch_size": 4,
        "decoder_channels": [16, 8],
    },
    "two_stage": {
        "volume_size": 8,
        "encoder_channels": [4, 8],
        "decoder_channels": [8, 4],
        "skip_channels": 2,
        "num_scales": 2,
        "num_doublings": 1,
        "refiner_features": 4,
        "refiner_growth": 2,
        "perceptual_weight": 0.0,
    },
    "hybrid_cnn_vit": {
        "encoder_channels": [4, 8],
        "channels": [4, 8],
        "num_heads": 2,
        "window_size": 2,
        "num_exchange_layers": 1,
        "perceptual_weight": 0.0,
    },
    "any_view": {
        "encoder_channels": [4, 8],
        "decoder_channels": [8, 4],
        "num_blocks": 1,
        "view_channels": 4,
        "num_steps": 1,
        "step_size": 16,
        "perceptual_weight": 0.0,
    },
    "ct_phase_pix2pix": {},
    "trct_gan": {
        "encoder_channels": [4, 8, 16],
        "hidden_size": 32,
        "num_layers": 1,
        "num_heads": 4,
        "decoder_channels": [16, 8],
        "skip_channels": 4,
        "discriminator_channels": [4, 8],
        "adversarial_start": 1,
    },
}
# What an overlay needs beyond its bundle's line.
OVERLAY_MINIATURE: dict[str, dict[str, Any]] = {
    "patch_vit": {"num_heads": 2, "patch_size": 16, "grid_size": 2, "decoder_channels": [8], "finer_channels": [4, 2]},
    "many_views": {"geometry": "x2ct", "usual_views": [0, 1]},
    "large": {"encoder_channels": [4, 8], "channels": [4, 8]},
    "train_adversarial": {"discriminator_channels": [4, 8], "adversarial_start": 1},
    "train_refine": {"patch_size": 8, "patches_per_case": 2},
}
RECONSTRUCTION = COMMON.with_name("direct_regression")
DataOf = Callable[[Path], Path]
OWN_OVERLAYS = [
    pair
    for pair in overlays("train.json")
    if pair[1].parent.name == "configs" and pair[1].stem != "train_intervals"  # which needs a trained network
]


def arguments(bundle: Path, datalist: Path, output: Path) -> dict[str, Any]:
    return {
        "datalist": str(datalist),
        "output_dir": str(output),
        "ckpt_path": str(output / "model.pt"),
        **MINIATURE.get(bundle.name, {}),
    }


@pytest.fixture(scope="session")
def data(phantoms: Path, phase_pairs: Path) -> DataOf:
    """The tiny datalist that a bundle can read."""
    return lambda bundle: phase_pairs if bundle == PHASES else phantoms


def smoke(bundle: Path) -> Path:
    """The overlay that makes a bundle's run short."""
    own: Path = bundle / "configs" / "smoke.json"
    return own if own.is_file() else COMMON / "smoke.json"


def files(bundle: Path, first: str, *overlays: Path) -> list[str]:
    return [str(bundle / "configs" / first), *map(str, overlays)]


def run(config: list[str], **options: Any) -> None:
    """`monai.bundle run` with those options that the configuration has: inference has not all of training."""
    known = ConfigParser.load_config_files(config)
    monai.bundle.run(config_file=config, **{key: value for key, value in options.items() if key in known})


def train(bundle: Path, datalist: Path, output: Path, *overlays: Path, **changes: Any) -> dict[str, Any]:
    """Train in this process; returns the last checkpoint."""
    config = files(bundle, "train.json", smoke(bundle), *overlays)
    run(config, **{**arguments(bundle, datalist, output), **changes})
    return load(output / "resume" / "checkpoint.pt")


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def command(bundle: Path, datalist: Path, output: Path, *launcher: str, **changes: Any) -> list[str]:
    """The shell command that trains the bundle in miniature."""
    config = files(bundle, "train.json", smoke(bundle), *changes.pop("overlays", ()))
    options = {**arguments(bundle, datalist, output), **changes}
    pairs = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return [
        sys.executable,
        "-m",
        *(launcher or ()),
        "monai.bundle",
        "run",
        "training",
        "--config_file",
        str(config),
        *pairs,
    ]


def moved(datalist: Path, folder: Path) -> Path:
    """The same cases with their CTs elsewhere in the world, as patients in a scanner are."""
    page = json.loads(datalist.read_text(encoding="utf-8"))
    for section in ("training", "validation", "test"):
        for case in load_datalist(datalist, section):
            image = nibabel.load(case["label"])
            affine = image.affine.copy()
            affine[:3, 3] += [-13.0, 7.0, -170.0]
            target = folder / Path(case["label"]).name
            target.parent.mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), affine), target)
            own = next(own for own in page[section] if own["case_id"] == case["case_id"])
            own.update(label=str(target), image=case["image"])
    (folder / "datalist.json").write_text(json.dumps(page), encoding="utf-8")
    return folder / "datalist.json"


def assert_same_weights(one: dict[str, Any], other: dict[str, Any], **tolerance: float) -> None:
    for network in {"network", "discriminator", "ema"} & set(one):
        assert one[network].keys() == other[network].keys()
        for key, value in one[network].items():
            torch.testing.assert_close(other[network][key], value, **(tolerance or {"atol": 0, "rtol": 0}))


@pytest.fixture(scope="module", params=BUNDLES, ids=name)
def trained(
    request: pytest.FixtureRequest, data: DataOf, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """A bundle, and the output folder of its miniature training."""
    output = tmp_path_factory.mktemp(request.param.name)
    train(request.param, data(request.param), output)
    train_second_stage(request.param, data(request.param), output)
    return request.param, output


@pytest.fixture
def reconstructing(trained: tuple[Path, Path]) -> tuple[Path, Path]:
    """The same of a bundle that takes radiographs."""
    if trained[0] == PHASES:
        pytest.skip("this bundle takes no radiographs")
    return trained


def train_second_stage(bundle: Path, datalist: Path, output: Path) -> None:
    """Train the refiner of a bundle that has one, beside the model."""
    refine = bundle / "configs" / "train_refine.json"
    if refine.is_file():
        changes = {"stage1_path": str(output / "model.pt"), "ckpt_path": str(output / "refiner" / "model.pt")}
        train(bundle, datalist, output / "refiner", refine, **OVERLAY_MINIATURE["train_refine"], **changes)


def test_training_leaves_model_checkpoint_and_curves(trained: tuple[Path, Path]) -> None:
    _, output = trained
    weights = load(output / "model.pt")
    assert all(isinstance(value, torch.Tensor) for value in weights.values())
    state = load(output / "resume" / "checkpoint.pt")
    assert state["epoch"] == 2 and state["best_metric"] > (
        -1 if trained[0] == PHASES else 10
    )  # HU over the identity; dB
    assert list((output / "tensorboard").glob("events*"))


def test_training_is_repeatable_to_the_bit(trained: tuple[Path, Path], data: DataOf, tmp_path: Path) -> None:
    bundle, output = trained
    assert_same_weights(train(bundle, data(bundle), tmp_path), load(output / "resume" / "checkpoint.pt"))


def test_inference_writes_hu_where_the_patient_lies(
    reconstructing: tuple[Path, Path], phantoms: Path, tmp_path: Path
) -> None:
    bundle, output = reconstructing
    phantoms = moved(phantoms, tmp_path / "moved")
    tmp_path = tmp_path / "predictions"
    options = {
        "volume_size": 16,
        "radiograph_size": 32,
        **arguments(bundle, phantoms, output),
        "output_dir": str(tmp_path),
    }
    run(files(bundle, "inference.json"), **options)
    cases = load_datalist(phantoms, "test")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{case['case_id']}.nii.gz" for case in cases)
    for case in cases:
        truth, prediction = nibabel.load(case["label"]), nibabel.load(tmp_path / f"{case['case_id']}.nii.gz")
        np.testing.assert_allclose(prediction.affine, truth.affine, atol=1e-4)
        values = prediction.get_fdata()
        assert values.shape == truth.shape and values.min() >= -1024 and values.max() <= 1476 and values.min() < -900
    evaluate(predictions=str(tmp_path), datalist=str(phantoms), output=str(tmp_path / "scores"))
    with open(tmp_path / "scores" / "cases.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(cases) and {row["method"] for row in rows} == {"prediction", "mean volume"}


def test_inference_takes_one_pair_of_radiographs(
    reconstructing: tuple[Path, Path], phantoms: Path, tmp_path: Path
) -> None:
    bundle, output = reconstructing
    case = load_datalist(phantoms, "test")[0]
    options = {
        "volume_size": 16,
        "radiograph_size": 32,
        **arguments(bundle, phantoms, output),
        "datalist": None,
        "dataset_dir": str(tmp_path / "not made"),
        "radiographs": case["image"],
        "output_dir": str(tmp_path / "predictions"),
    }
    run(files(bundle, "inference.json"), **options)
    assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["reconstruction.nii.gz"]
    assert not (tmp_path / "not made").exists()


@pytest.mark.parametrize("baseline", BASELINES)
def test_a_baseline_runs_as_a_bundle(baseline: str, phantoms: Path, tmp_path: Path) -> None:
    bundle, sizes = RECONSTRUCTION, {"volume_size": 16, "radiograph_size": 32}
    options = arguments(bundle, phantoms, tmp_path) | sizes | {"baseline": baseline}
    run(files(bundle, "inference.json", COMMON / "baseline.json"), **options)
    for case in load_datalist(phantoms, "test"):
        prediction, truth = (nibabel.load(path) for path in (tmp_path / f"{case['case_id']}.nii.gz", case["label"]))
        np.testing.assert_allclose(prediction.affine, truth.affine, atol=1e-4)
        assert prediction.shape == truth.shape


def test_inference_without_a_model_says_what_to_do(data: DataOf, tmp_path: Path) -> None:
    for bundle in BUNDLES:
        with pytest.raises(RuntimeError) as error:
            run(files(bundle, "inference.json"), **arguments(bundle, data(bundle), tmp_path))
        assert "no trained model at" in str(error.value.__cause__)


def test_evaluation_writes_every_case(trained: tuple[Path, Path], data: DataOf) -> None:
    bundle, output = trained
    config = files(bundle, "train.json", smoke(bundle), COMMON / "evaluate.json")
    run(config, **arguments(bundle, data(bundle), output))
    lines = (output / "evaluation" / "psnr_raw.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + len(load_datalist(data(bundle), "test"))


@pytest.mark.parametrize(("bundle", "overlay"), OWN_OVERLAYS, ids=name)
def test_every_overlay_of_its_own_trains(bundle: Path, overlay: Path, data: DataOf, tmp_path: Path) -> None:
    changes = OVERLAY_MINIATURE.get(overlay.stem, {})
    if overlay.stem == "train_refine":
        train(bundle, data(bundle), tmp_path / "stage1")
        changes = {**changes, "stage1_path": str(tmp_path / "stage1" / "model.pt")}
    config = files(bundle, "train.json", overlay, smoke(bundle))
    run(config, **{**arguments(bundle, data(bundle), tmp_path), **changes})
    assert load(tmp_path / "resume" / "checkpoint.pt")["epoch"] == 2


def test_intervals_are_fitted_written_and_scored(
    reconstructing: tuple[Path, Path], phantoms: Path, tmp_path: Path
) -> None:
    bundle, output = reconstructing
    if not (bundle / "configs" / "train_intervals.json").is_file():
        pytest.skip("a bundle without intervals")
    sizes = {"volume_size": 16, "radiograph_size": 32, "interval_channels": 4}
    options = {**arguments(bundle, phantoms, output), **sizes}
    fit = files(bundle, "train.json", smoke(bundle), bundle / "configs" / "train_intervals.json")
    run(fit, **options, interval_steps=4)
    predict = files(bundle, "inference.json", bundle / "configs" / "intervals.json")
    run(predict, **{**options, "output_dir": str(tmp_path / "predictions")})
    alone = load_datalist(phantoms, "test")
    run(files(bundle, "inference.json"), **{**options, "output_dir": str(tmp_path / "alone")})
    for case in alone:
        prediction = nibabel.load(tmp_path / "predictions" / f"{case['case_id']}.nii.gz")
        same = nibabel.load(tmp_path / "alone" / f"{case['case_id']}.nii.gz")
        quantiles = nibabel.load(tmp_path / "predictions" / f"{case['case_id']}_quantiles.nii.gz")
        np.testing.assert_allclose(prediction.get_fdata(), same.get_fdata(), atol=1e-2)
        assert quantiles.shape == (*prediction.shape, 4) and (np.diff(quantiles.get_fdata(), axis=-1) >= 0).all()
    evaluate(predictions=str(tmp_path / "predictions"), datalist=str(phantoms), output=str(tmp_path / "scores"))
    with open(tmp_path / "scores" / "cases.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["method"] == "prediction"]
    assert all(0 < float(row["coverage_50"]) < float(row["coverage_90"]) <= 1 for row in rows)


def test_interpolation_reaches_any_size(reconstructing: tuple[Path, Path], phantoms: Path, tmp_path: Path) -> None:
    bundle, output = reconstructing
    shutil.copy(output / "model.pt", tmp_path / "model.pt")  # without a refiner beside it
    options = {"volume_size": 16, "radiograph_size": 32, **arguments(bundle, phantoms, output), "max_cases": 1}
    options |= {"ckpt_path": str(tmp_path / "model.pt"), "output_dir": str(tmp_path / "out"), "output_size": 20}
    alone = [path for path in [bundle / "configs" / "stage1.json"] if path.is_file()]
    run(files(bundle, "inference.json", *alone, COMMON / "interpolate.json"), **options)
    (path,) = (tmp_path / "out").iterdir()
    assert nibabel.load(path).shape == (20, 20, 20)


def test_the_gain_of_a_refiner_is_zero_before_training(
    trained: tuple[Path, Path], phantoms: Path, tmp_path: Path
) -> None:
    bundle, output = trained
    if not (bundle / "configs" / "train_refine.json").is_file():
        pytest.skip("a bundle without a refiner")
    changes = {"stage1_path": str(output / "model.pt"), **OVERLAY_MINIATURE["train_refine"], "learning_rate": 0.0}
    parser = ConfigParser()
    parser.read_config(files(bundle, "train.json", smoke(bundle), bundle / "configs" / "train_refine.json"))
    parser.update({**arguments(bundle, phantoms, tmp_path), **changes})
    evaluator = parser.get_parsed_content("validate::evaluator")
    evaluator.run()
    metrics = evaluator.state.metrics
    assert metrics["psnr_gain"] == 0 and metrics["ssim_gain"] == 0 and metrics["psnr"] == metrics["psnr_interpolated"]


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_resume_after_a_kill_is_exact(bundle: Path, data: DataOf, tmp_path: Path) -> None:
    """SIGKILL somewhere in the middle, then resume: the weights of a run that was never touched, to the bit."""
    expected = train(bundle, data(bundle), tmp_path / "whole", epochs=8, val_interval=2)
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command(bundle, data(bundle), killed, epochs=8, val_interval=2), stdout=subprocess.DEVNULL
    )
    checkpoint = killed / "resume" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not (checkpoint.exists() and load(checkpoint)["epoch"] >= 2):
        assert process.poll() is None and time.monotonic() < deadline, "training ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped_after = load(checkpoint)["epoch"]
    assert 2 <= stopped_after < 8
    resumed = train(bundle, data(bundle), killed, epochs=8, val_interval=2, resume=True)
    assert_same_weights(resumed, expected)
    for key in ("epoch", "lr_scheduler", "best_metric", "best_metric_epoch"):
        assert resumed[key] == expected[key], key
    torch.testing.assert_close(resumed["optimizer"], expected["optimizer"], atol=0, rtol=0)
    assert_same_weights({"network": load(killed / "model.pt")}, {"network": load(tmp_path / "whole" / "model.pt")})


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_two_processes_train_like_one_with_twice_the_batch(bundle: Path, data: DataOf, tmp_path: Path) -> None:
    launcher = ("torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")
    two = command(bundle, data(bundle), tmp_path / "two", *launcher, overlays=[COMMON / "multi_gpu.json"], batch_size=1)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(two, env=environment, capture_output=True, encoding="utf-8", timeout=240)
    assert finished.returncode == 0, finished.stderr[-3000:]
    one = train(bundle, data(bundle), tmp_path / "one", batch_size=2)
    assert_same_weights(load(tmp_path / "two" / "resume" / "checkpoint.pt"), one, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_commands_run_from_another_folder(bundle: Path, data: DataOf, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(
        command(bundle, data(bundle), tmp_path / "output"), cwd=elsewhere, check=True, stdout=subprocess.DEVNULL
    )
    assert (tmp_path / "output" / "model.pt").is_file() and not list(elsewhere.iterdir())


def test_multi_resolution_training_grows_and_resumes(phantoms: Path, tmp_path: Path) -> None:
    """Coarse to fine in one run, on two bundles; resuming in the finer part gives the same weights."""
    for bundle, sizes in (
        (
            RECONSTRUCTION,
            {"finer_channels": [4], "patch_size": 2, "decoder_channels": [8], "schedule": [[1, 8], [3, 16]]},
        ),
        (RECONSTRUCTION.with_name("two_stage"), {"ssim_weight": 0.0, "schedule": [[1, 4], [3, 8]]}),
    ):
        overlay, output = COMMON / "multi_resolution.json", tmp_path / bundle.name
        whole = train(bundle, phantoms, output / "whole", overlay, **sizes, epochs=4)
        fine = [key for key in whole["network"] if key.startswith(("finer.heads.0", "heads.1"))]
        assert fine and all(whole["network"][key].any() for key in fine)
        process = subprocess.Popen(
            command(bundle, phantoms, output / "killed", overlays=[overlay], **sizes, epochs=4),
            stdout=subprocess.DEVNULL,
        )
        checkpoint = output / "killed" / "resume" / "checkpoint.pt"
        deadline = time.monotonic() + 120
        while not (checkpoint.exists() and load(checkpoint)["epoch"] >= 2):
            assert process.poll() is None and time.monotonic() < deadline, "training ended before it could be killed"
            time.sleep(0.02)
        process.kill()
        process.wait()
        assert_same_weights(train(bundle, phantoms, output / "killed", overlay, **sizes, epochs=4, resume=True), whole)


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
    assert "does not hold the weights of a coarser DirectRegression" in str(error.value.__cause__)


def test_the_refiner_takes_any_coarse_ct(phantoms: Path, tmp_path: Path) -> None:
    bundle = RECONSTRUCTION.with_name("two_stage")
    torch.manual_seed(0)
    refiner = VolumeRefiner(1, 4, 2).eval()
    torch.nn.init.normal_(refiner.heads[0].weight, std=0.05)  # type: ignore[arg-type]
    torch.save(refiner.state_dict(), tmp_path / "refiner.pt")
    affine = np.diag([-4.0, 5.0, 6.0, 1.0]) + np.array([[0, 0, 0, 30], [0, 0, 0, -20], [0, 0, 0, 7], [0, 0, 0, 0]])
    coarse = np.random.default_rng(0).uniform(-1000, 400, (9, 12, 10)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(coarse, affine), tmp_path / "thorax.nii.gz")
    options = arguments(bundle, phantoms, tmp_path) | {
        "volumes": [str(tmp_path / "thorax.nii.gz")],
        "ckpt_path": str(tmp_path / "refiner.pt"),
        "output_dir": str(tmp_path / "fine"),
    }
    config = files(bundle, "inference.json", bundle / "configs" / "refine_volumes.json")
    run(config, **options)
    fine = nibabel.load(tmp_path / "fine" / "thorax.nii.gz")
    assert fine.shape == (18, 24, 20)
    middle = [affine @ [*(np.array(coarse.shape) / 2 - 0.5), 1], fine.affine @ [*(np.array(fine.shape) / 2 - 0.5), 1]]
    np.testing.assert_allclose(*middle, atol=1e-4)
    upright = torch.as_tensor((coarse[::-1].copy() + 1024) / 2500).clamp(0, 1)  # the refiner knows RAS; the file is LAS
    with torch.no_grad():
        expected = refiner(upright[None, None])[0, 0].numpy() * 2500 - 1024
    np.testing.assert_allclose(nibabel.as_closest_canonical(fine).get_fdata(), expected, atol=1.0)
    options["volumes"] = [str(tmp_path / "thorax.nii.gz")] * 2
    with pytest.raises(RuntimeError) as error:
        run(config, **options)
    assert "have one name" in str(error.value.__cause__)


def test_averaged_weights_are_validated_saved_and_resumed(phase_pairs: Path, tmp_path: Path) -> None:
    options = {"ema_decay": 0.9, "epochs": 3, "val_interval": 1}
    whole = train(PHASES, phase_pairs, tmp_path / "whole", **options)
    assert any((whole["ema"][key] != value).any() for key, value in whole["network"].items())
    saved = load(tmp_path / "whole" / "model.pt")
    assert saved.keys() == whole["ema"].keys()
    stopped = tmp_path / "stopped"
    process = subprocess.Popen(command(PHASES, phase_pairs, stopped, **options), stdout=subprocess.DEVNULL)
    checkpoint, deadline = stopped / "resume" / "checkpoint.pt", time.monotonic() + 120
    while not checkpoint.exists():
        assert process.poll() is None and time.monotonic() < deadline, "training ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert_same_weights(train(PHASES, phase_pairs, stopped, **options, resume=True), whole)


def test_phases_go_back_onto_the_grids_of_their_cts(
    phase_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with an oblique CT of odd size and three that cannot be used; then the same command once more."""
    train(PHASES, phase_pairs, tmp_path, learning_rate=0.01)
    folder = tmp_path / "in"
    folder.mkdir()
    affine = np.array([[-1.9, 0.3, 0.0, 30.0], [0.3, 1.9, 0.2, 12.0], [0.0, -0.2, 2.9, 5.0], [0.0, 0.0, 0.0, 1.0]])
    ct = np.full((19, 13, 9), -1000, dtype=np.int16)
    ct[4:-4, 3:-3] = np.random.default_rng(0).integers(0, 80, (11, 7, 9))
    for stem, volume in (("oblique", ct), ("torn", ct), ("long", np.stack([ct, ct], axis=-1)), ("flat", ct[..., 0])):
        nibabel.save(nibabel.Nifti1Image(volume, affine), folder / f"{stem}.nii.gz")
    torn = folder / "torn.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-30])
    options = arguments(PHASES, phase_pairs, tmp_path) | {"volumes": str(folder), "output_dir": str(tmp_path / "out")}
    for roi_size in (None, [16, 16]):
        changes = {} if roi_size is None else {"roi_size": roi_size, "output_dir": str(tmp_path / "windows")}
        run(files(PHASES, "inference.json", smoke(PHASES)), **options | changes)
        written = nibabel.load(Path(str((options | changes)["output_dir"])) / "oblique.nii.gz")
        assert written.shape == ct.shape
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)
        assert np.abs(np.asarray(written.dataobj) - ct.astype(float)).max() > 0  # the network did something
    text = capsys.readouterr().out
    for line in ("torn.nii.gz: damaged NIfTI", "long.nii.gz: a CT has three", "flat.nii.gz: a CT has three"):
        assert line in text
    run(files(PHASES, "inference.json", smoke(PHASES)), **options)
    assert "1 of 1 are in" in capsys.readouterr().out
    train(PHASES, phase_pairs, tmp_path, learning_rate=0.02)
    with pytest.raises(RuntimeError) as error:
        run(files(PHASES, "inference.json", smoke(PHASES)), **options)
    assert "holds results of another model or of other CTs" in str(error.value.__cause__)
