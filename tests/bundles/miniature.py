"""Every bundle in miniature: the numbers that make it small, and how it runs here and in other processes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import monai.bundle
import torch
from monai.bundle import ConfigParser

from tests.bundles.processes import Warm
from tests.bundles.sources import COMMON

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
    "dif_net": {
        "encoder_channels": [4, 8],
        "feature_channels": 4,
        "hidden_size": 8,
        "num_layers": 1,
        "num_points": 100,
    },
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
    "x2ct_gan": {
        "stem_channels": 4,
        "dense_layers": [1, 2],
        "growth_rate": 4,
        "decoder_channels": [8, 4, 4],
        "discriminator_channels": [4, 8],
    },
}
# What an overlay needs beyond its bundle's line.
OVERLAY_MINIATURE: dict[str, dict[str, Any]] = {
    "patch_vit": {"num_heads": 2, "patch_size": 16, "grid_size": 2, "decoder_channels": [8], "finer_channels": [4, 2]},
    "from_phantoms": {
        "datalist": None,
        "geometry": "x2ct",
        "usual_views": [0, 1],
        "validation_seeds": [900000],
        "fitted_seeds": 3,
        "fitted_size": 16,
        "steps_per_epoch": 2,
        "epochs": 2,
        "num_workers": 0,
    },
    "many_views": {"geometry": "x2ct", "usual_views": [0, 1]},
    "large": {"encoder_channels": [4, 8], "channels": [4, 8]},
    "train_adversarial": {"discriminator_channels": [4, 8], "adversarial_start": 1},
    "train_refine": {"patch_size": 8, "patches_per_case": 2},
}
WITHOUT_CHANCE: dict[str, dict[str, Any]] = {
    "dif_net": {"train::trainer::prepare_batch": "@train::prepare_batch"},
    "x2ct_gan": {"dropout": 0.0},
}
"""What makes a step the same in one process and in several: each draws by itself what is dropped, and points, so here
all voxels count."""

SIZES = {"volume_size": 16, "radiograph_size": 32}
"""What inference needs beyond its bundle's line: the smoke overlay is for training."""

RECONSTRUCTION = COMMON.with_name("direct_regression")
CHECKPOINT = Path("resume", "checkpoint.pt")
DataOf = Callable[[Path], Path]
Trained = Callable[[Path], Path]


def arguments(bundle: Path, datalist: Path, output: Path, weights: Path | None = None) -> dict[str, Any]:
    """The flags of a bundle in miniature; its weights are in its output folder if not given."""
    paths = {"datalist": str(datalist), "output_dir": str(output), "ckpt_path": str(weights or output / "model.pt")}
    return {**paths, **MINIATURE.get(bundle.name, {})}


def smoke(bundle: Path) -> Path:
    """The overlay that makes a bundle's run short."""
    own: Path = bundle / "configs" / "smoke.json"
    return own if own.is_file() else COMMON / "smoke.json"


def files(bundle: Path, first: str, *overlays: Path) -> list[str]:
    return [str(bundle / "configs" / first), *map(str, overlays)]


def run(config: list[str], **options: Any) -> None:
    """`monai.bundle run` with those options that the configuration has: inference has not all of training."""
    keys = ConfigParser.load_config_files(config)
    known = {option: value for option, value in options.items() if option.split("::")[0] in keys}
    monai.bundle.run(config_file=config, **known)


def without_pictures(config: list[str]) -> dict[str, bool]:
    """The option by which TensorBoard gets no pictures: drawing takes ten times as long as a miniature's training."""
    target = ConfigParser.load_config_files(config)["validate"]["named_handlers"]["_target_"]
    return {"validate::named_handlers::pictures": False} if target.endswith(".validation_handlers") else {}


def train(
    bundle: Path, datalist: Path, output: Path, *overlays: Path, pictures: bool = False, **changes: Any
) -> dict[str, Any]:
    """Train in this process; returns the last checkpoint."""
    config = files(bundle, "train.json", smoke(bundle), *overlays)
    run(config, **arguments(bundle, datalist, output) | ({} if pictures else without_pictures(config)) | changes)
    return load(output / CHECKPOINT)


def train_by_the_clock(folder: Path, *overlays: Path, **changes: Any) -> dict[str, Any]:
    """any_view on phantoms that are drawn meanwhile; returns the last checkpoint."""
    bundle = RECONSTRUCTION.with_name("any_view")
    config = files(bundle, "train.json", bundle / "configs" / "from_phantoms.json", *overlays, smoke(bundle))
    options = arguments(bundle, folder, folder) | OVERLAY_MINIATURE["from_phantoms"] | without_pictures(config)
    run(config, **options | changes)
    return load(folder / CHECKPOINT)


def train_second_stage(bundle: Path, datalist: Path, output: Path) -> None:
    """Train the refiner of a bundle that has one, beside the model."""
    refine = bundle / "configs" / "train_refine.json"
    if refine.is_file():
        changes = {"stage1_path": str(output / "model.pt"), "ckpt_path": str(output / "refiner" / "model.pt")}
        changes |= OVERLAY_MINIATURE["train_refine"]
        train(bundle, datalist, output / "refiner", refine, pictures=True, **changes)


def command(
    bundle: Path, datalist: Path, output: Path, *overlays: Path, pictures: bool = False, **changes: Any
) -> list[str]:
    """The same as what stands after `python -m` in the shell."""
    config = files(bundle, "train.json", smoke(bundle), *overlays)
    options = arguments(bundle, datalist, output) | ({} if pictures else without_pictures(config)) | changes
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    return ["monai.bundle", "run", "training", "--config_file", str(config), *flags]


def train_and_kill(
    bundle: Path, datalist: Path, output: Path, *overlays: Path, after_epoch: int = 1, **changes: Any
) -> int:
    """Train in a process of its own, SIGKILL it after this epoch; returns the epoch of the checkpoint that it left.

    It draws its pictures: they give the time to kill it before it ends.
    """
    process = Warm(*command(bundle, datalist, output, *overlays, pictures=True, **changes))
    deadline = time.monotonic() + 120
    while not ((output / CHECKPOINT).exists() and load(output / CHECKPOINT)["epoch"] >= after_epoch):
        assert process.is_running() and time.monotonic() < deadline, "training ended before it could be killed"
        time.sleep(0.02)
    process.kill()
    epoch: int = load(output / CHECKPOINT)["epoch"]
    return epoch


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def assert_same_weights(one: dict[str, Any], other: dict[str, Any], **tolerance: float) -> None:
    for network in {"network", "discriminator", "ema"} & set(one):
        assert one[network].keys() == other[network].keys()
        for key, value in one[network].items():
            torch.testing.assert_close(other[network][key], value, **(tolerance or {"atol": 0, "rtol": 0}))
