"""A training that ends by the clock, on phantoms that are drawn meanwhile, then the evaluation of its weights.

    python benchmarks/gpu_train.py --output build/gpu_train
    python benchmarks/gpu_train.py --output build/gpu_train --miniature True    # the whole chain, tiny

It trains `any_view` at 128 x 128 x 128 voxels by `train_128.json` and `from_phantoms.json`: every phantom has a new
seed and is drawn by the processor's cores while the network trains, its radiographs are rendered on the GPU. Unseen
phantoms, drawn twice as fine as their labels, are then reconstructed and scored. OUTPUT gets model.pt, in half
precision as a bundle ships it, the logs, and gpu_train.md with all numbers.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fire

REPOSITORY = Path(__file__).resolve().parents[1]

CONFIGS = REPOSITORY / "bundles" / "any_view" / "configs"
MAX_MB = 16.0
"""The largest file of weights."""

TINY = {
    "volume_size": 16,
    "start_size": 16,
    "radiograph_size": 32,
    "encoder_channels": [4, 4, 4, 8],
    "decoder_channels": [8, 4],
    "view_channels": 4,
    "step_size": 16,
}
TINY_TRAINING = {
    "fitted_seeds": 4,
    "fitted_size": 16,
    "validation_seeds": [900000, 900001],
    "steps_per_epoch": 2,
    "val_interval": 1,
    "batch_size": 2,
    "num_workers": 1,
}


def gpu_train(output: str = "build/gpu_train", minutes: float = 7.0, cases: int = 16, miniature: bool = False) -> None:
    """Train, reconstruct, score, and write everything to one folder.

    Args:
        output: Folder to write.
        minutes: Time of the training; the fit of the linear start and the evaluation come on top, about two minutes.
        cases: Unseen phantoms that are scored, of seeds 220 on: the test section of the 128^3 tables in the docs. With
            0 the weights are left for an evaluation elsewhere.
        miniature: The whole chain at a tiny size.
    """
    folder, started = Path(output).resolve(), time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    size, minutes, cases = (16, min(minutes, 0.05), 2) if miniature else (128, minutes, cases)
    data, trained = folder / "phantoms", folder / "training"
    numbers = ["--size", size, "--radiograph_size", 32 if miniature else 256, "--split", f"0/0/{cases}", "--seed", 220]
    workers = ["--num_workers", 0 if miniature else 4]
    unseen = None
    if cases:
        unseen = _start("trct_monai", "phantoms", "--output", data, *numbers, *workers, log=folder / "phantoms.txt")

    changes: dict[str, Any] = {"output_dir": trained, "ckpt_dir": trained, "minutes": minutes}
    changes |= TINY | TINY_TRAINING if miniature else {"num_workers": max(1, (os.cpu_count() or 2) - 5)}
    files = ["train", "train_128", "from_phantoms"]
    training = _start("monai.bundle", "run", "training", *_bundle(files, changes), log=folder / "training.txt")
    sys.path.insert(0, str(REPOSITORY))
    from trct_monai.io import load_state, ship_weights  # meanwhile: with PyTorch it takes its time

    try:
        _finish(training, folder / "training.txt")
    except SystemExit:
        if unseen is not None:
            unseen.terminate()
        raise
    seconds = time.monotonic() - started
    ship_weights(trained / "model.pt", folder / "model.pt")
    if unseen is not None:
        _finish(unseen, folder / "phantoms.txt")

    rows, datalist = {}, data / "datalist.json"
    views = [("frontal and lateral", None), ("frontal", [0])] if cases else []
    for name, view in views[: 1 if miniature else None]:
        short = name.replace(" ", "_")
        predictions, scores = folder / "predictions" / short, folder / "scores" / short
        options = {"datalist": datalist, "ckpt_path": folder / "model.pt", "output_dir": predictions}
        options |= (TINY if miniature else {}) | ({} if view is None else {"views": view})
        arguments = _bundle(["inference", "train_128"], options)
        _finish(_start("monai.bundle", "run", *arguments, log=folder / "inference.txt"), folder / "inference.txt")
        arguments = ["--predictions", predictions, "--datalist", datalist, "--output", scores, "--name", "any_view"]
        _finish(_start("trct_monai", "evaluate", *arguments, log=folder / "evaluate.txt"), folder / "evaluate.txt")
        rows[name] = json.loads((scores / "summary.json").read_text(encoding="utf-8"))
    checkpoint = load_state(trained / "resume" / "checkpoint.pt")
    steps = int(checkpoint["epoch"]) * int(checkpoint["epoch_length"])
    write_summary(folder, steps, rows, seconds, time.monotonic() - started, cases)


def write_summary(folder: Path, steps: int, rows: dict[str, Any], seconds: float, whole: float, cases: int) -> None:
    """What was trained, for how long, on what, and what it scores."""
    import torch

    size_mb = (folder / "model.pt").stat().st_size / 1e6
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    lines = [
        f"any_view, {', '.join(['train.json', 'train_128.json', 'from_phantoms.json'])}, on {card}: {steps} steps in "
        f"{seconds:.0f} s (imports and the fit of the linear start included), {whole:.0f} s with the evaluation on "
        f"{cases} unseen phantoms; weights of {size_mb:.1f} MB",
        "",
        "| views | PSNR (dB) | SSIM | MAE (HU) |",
        "| --- | --- | --- | --- |",
    ]
    for name, summary in rows.items():
        metrics = summary["metrics"]["any_view"]
        values = (metrics[f"hu.{key}"]["mean"] for key in ("psnr_3d", "ssim", "mae"))
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |")
    text = "\n".join(lines) + "\n"
    (folder / "gpu_train.md").write_text(text, encoding="utf-8")
    print(text)
    if size_mb > MAX_MB:
        raise SystemExit(f"{folder / 'model.pt'} has {size_mb:.1f} MB, at most {MAX_MB:g} were asked for")


def _bundle(names: list[str], changes: dict[str, Any]) -> list[str]:
    files = [str(CONFIGS / f"{name}.json") for name in names]
    return ["--config_file", str(files), *(text for key, value in changes.items() for text in (f"--{key}", str(value)))]


def _start(*arguments: Any, log: Path) -> "subprocess.Popen[bytes]":
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    environment = {"OMP_NUM_THREADS": "2", **os.environ, "PYTHONPATH": path}
    with log.open("ab") as file:
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment)


def _finish(process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait for its end; a failure ends everything, with the last lines of the log."""
    if process.wait():
        raise SystemExit("\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]))


if __name__ == "__main__":
    fire.Fire(gpu_train)
