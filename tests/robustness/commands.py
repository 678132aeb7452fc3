"""The commands that write, in miniature, and what their outputs have in common with those of an undisturbed run."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.bundles.miniature import CHECKPOINT, RECONSTRUCTION, command, load
from tests.files import save_nifti
from tests.robustness.trials import Trials
from trct_monai.phantoms import thorax_phantom

GAN = RECONSTRUCTION.with_name("trct_gan")


@dataclass(frozen=True)
class Inputs:
    """What the commands read.

    Attributes:
        cts: Folder of CTs in NIfTI.
        datalist: Cases prepared from phantoms.
        predictions: Folder of predictions of its test section.
        evaluation: Their evaluation.
    """

    cts: Path
    datalist: Path
    predictions: Path
    evaluation: Path


@dataclass(frozen=True)
class Undisturbed:
    """A command's output, and how long it took.

    Attributes:
        out: The folder.
        seconds: From the fork to the end.
    """

    out: Path
    seconds: float


def make_inputs(folder: Path, trials: Trials) -> Inputs:
    """The inputs of all commands."""
    inputs = Inputs(folder / "cts", folder / "data" / "datalist.json", folder / "predictions", folder / "evaluation")
    inputs.cts.mkdir()
    for seed in range(3):
        phantom = thorax_phantom(seed, size=40, findings=[])
        save_nifti(inputs.cts / f"p{seed}.nii.gz", phantom.ct_hu, phantom.affine)
    trials.succeed(*COMMANDS["phantoms"](inputs, inputs.datalist.parent))
    inputs.predictions.mkdir()
    for path in sorted(inputs.datalist.parent.glob("*/phantom_??????.nii.gz")):
        (inputs.predictions / path.name).write_bytes(path.read_bytes())
    trials.succeed(*COMMANDS["evaluate"](inputs, inputs.evaluation))
    return inputs


def _trct(name: str, **flags: Any) -> list[str]:
    return ["trct_monai", name, *(text for key, value in flags.items() for text in (f"--{key}", str(value)))]


SMALL = {"size": 16, "radiograph_size": 32, "num_workers": 0}

Command = Callable[[Inputs, Path], list[str]]

WITH_WORKERS = "prepare, 2 workers"
"""It makes what ``prepare`` makes, and takes long: each worker imports everything first."""

COMMANDS: dict[str, Command] = {
    "phantoms": lambda i, out: _trct("phantoms", output=out, split="4/2/2", **SMALL),
    "phases": lambda i, out: _trct("phantoms", output=out, split="1/1/1", phases=2, size=16, num_workers=0),
    "prepare": lambda i, out: _trct("prepare", input=i.cts, output=out, **SMALL),
    WITH_WORKERS: lambda i, out: _trct("prepare", input=i.cts, output=out, **SMALL | {"num_workers": 2}),
    "plant": lambda i, out: _trct(
        "plant", datalist=i.datalist, output=out, diameters="80", contrasts="500/900", cases=2, num_workers=0
    ),
    "evaluate": lambda i, out: _trct(
        "evaluate", predictions=i.predictions, datalist=i.datalist, output=out, figures=1, num_workers=0
    ),
    "leaderboard": lambda i, out: _trct(
        "leaderboard", datalist=i.datalist, output=out, methods=f"good={i.predictions}",
        baselines="mean_volume,nearest_neighbour", num_workers=0,
    ),
    "report": lambda i, out: _trct("report", evaluation=i.evaluation, output=out / "report.html", size=16),
    "export": lambda i, out: _trct("export", bundle="direct_regression+small", out=out),
    "training": lambda i, out: command(RECONSTRUCTION, i.datalist, out, epochs=6, val_interval=2),
    "GAN training, 2 workers": lambda i, out: command(GAN, i.datalist, out, epochs=5, num_workers=2),
}  # fmt: skip


def resumed(arguments: list[str], out: Path) -> list[str]:
    """The command that goes on after a kill: the same, and a training resumes once it has a checkpoint."""
    trains = arguments[0] == "monai.bundle" and (out / CHECKPOINT).is_file()
    return [*arguments, "--resume", "True"] if trains else arguments


def contents(out: Path) -> dict[str, str]:
    """Digest of each file of an output by its path, to be compared with another's.

    All bytes count, but for the output's own path in a summary, and for a checkpoint, of which all numbers count, since
    PyTorch writes equal names once or twice. TensorBoard's records are left out: they have times, and those of a killed
    training stay.
    """
    found = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file() and "tfevents" not in path.name):
        if path.name == CHECKPOINT.name:
            raw = repr(_plain(load(path))).encode()
        else:
            raw = path.read_bytes().replace(str(out).encode(), b"OUT")
        found[path.relative_to(out).as_posix()] = hashlib.sha256(raw).hexdigest()
    return found


def _plain(value: Any) -> Any:
    """Tensors as their types and numbers, wherever they are."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return (str(value.dtype), value.tolist()) if isinstance(value, torch.Tensor) else value


def half_written(folder: Path) -> list[Path]:
    """Temporary files and locks."""
    return [path for path in folder.rglob(".*") if path.name.endswith((".partial", ".lock"))]


def assert_said_in_one_line(answer: dict[str, Any], *parts: str) -> None:
    """Check that a command failed with all of this in one line: the last one, but for MONAI's own error around it."""
    assert answer["code"] > 0, answer
    lines = answer["said"].rstrip().splitlines()
    if "Traceback" not in answer["said"]:
        lines = lines[-1:]
    assert any(all(part in line for part in parts) for line in lines), answer["said"][-3000:]
