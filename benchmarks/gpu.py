"""Tests, speed and memory on a GPU, in one command that ends by itself.

    python benchmarks/gpu.py --output build/gpu
    python benchmarks/gpu.py --output build/gpu --miniature True    # every part, tiny, on any machine

It needs PyTorch with CUDA, and of what is not always beside it MONAI, nibabel, pytorch-ignite, fire, einops and
jaxtyping (pytest and beartype for the tests); DiffDRR and nanodrr are measured where they are installed. Every part is
a process of its own with a limit of its own, and every result is written to OUTPUT/gpu.csv and OUTPUT/gpu.md as soon as
it is there: a run that is cut short still leaves numbers. What fails is a row with the reason; its output is in
OUTPUT/logs. Phantoms that are in OUTPUT already are not made again.
"""

import json
import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fire
from gpu_table import PARTS, Results

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
CONTEXT = multiprocessing.get_context("forkserver")
PRELOADED = ["monai.bundle", "monai.engines", "ignite.handlers", "torch.utils.tensorboard", "torch.utils.data", "fire"]
"""What every part imports, once for all: beside a full installation of PyTorch it takes half a minute."""


@dataclass(frozen=True)
class Task:
    """A process of a part: it prints its results as lines of JSON, all else is its log.

    Attributes:
        part: The part it belongs to.
        case: What it measures; the case of its rows that name none.
        command: A script beside this one, and its arguments.
        limit_s: Seconds after which it is killed.
    """

    part: str
    case: str
    command: Sequence[str]
    limit_s: float


@dataclass
class Sizes:
    """How large everything is: for a GPU, or in miniature.

    Attributes:
        volume: Voxels along each side of the phantoms.
        radiograph: Rows and columns of their radiographs.
        split: Numbers of phantoms.
        phase_volume: Voxels along each side of the pairs for the phase generator.
        phase_split: Numbers of pairs.
        projector: Voxels along each side, and rows and columns, for the projector.
        inference: Sides of the volumes that are reconstructed.
        steps: Steps that are timed.
        repeats: Reconstructions that are timed.
        limit: Factor on every limit.
        options: Further arguments of what measures in one process.
    """

    volume: int = 128
    radiograph: int = 512
    split: str = "6/1/1"
    phase_volume: int = 64
    phase_split: str = "2/1/1"
    projector: int = 256
    inference: Sequence[int] = (64, 128, 256)
    steps: int = 20
    repeats: int = 10
    limit: float = 1.0
    options: Sequence[str] = field(default_factory=list)


MINIATURE = Sizes(
    volume=32,
    radiograph=32,
    split="4/2/1",
    phase_volume=16,
    phase_split="2/1/1",
    projector=16,
    inference=(64, 128),
    steps=1,
    repeats=1,
    limit=4.0,
    options=["--miniature", "True"],
)

BEHIND = ("data", "distributed")
"""Parts that go on while the next ones run: data are made by the processor, and two processes mostly wait to start."""
BESIDE = ("data", "card", "tests", "distributed", "resume")
"""Parts that run while those go on; all others wait for their end."""

TRAININGS = (
    # bundle, overlays, batch size (0: the bundle's own), precisions beyond bf16
    ("direct_regression", "", 0, "fp16,autotuned,compiled"),
    ("direct_regression", "train_256", 0, ""),
    ("trct_gan", "", 0, "fp16,autotuned"),
    ("trct_gan", "reduced", 1, ""),
    ("two_stage", "", 0, "fp16"),
    ("hybrid_cnn_vit", "", 0, "fp16,autotuned"),
    ("any_view", "", 0, "fp16,autotuned"),
    ("ct_phase_pix2pix", "", 0, "fp16"),
    ("x2ct_gan", "", 0, ""),
    ("dif_net", "", 0, ""),
)
"""What is trained: in bf16 first, all of them; in other precisions at the end, as long as there is time."""


def gpu(output: str = "build/gpu", miniature: bool = False, parts: str = ",".join(PARTS), limit_s: float = 480) -> None:
    """Run every part and write the tables.

    Args:
        output: Folder for gpu.csv, gpu.md, the logs and the data.
        miniature: Every part at a tiny size, on whatever device there is: a rehearsal, whose numbers say nothing.
        parts: Which parts, separated by commas; those of PARTS in their order.
        limit_s: Seconds for all parts together; what has not started by then is left out, and the table says so.
    """
    chosen = [part.strip() for part in (parts.split(",") if isinstance(parts, str) else parts)]
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        raise SystemExit(f"parts must be out of {', '.join(PARTS)}, got {', '.join(unknown)}")
    sizes, folder = MINIATURE if miniature else Sizes(), Path(output).resolve()
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))
    os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # what has asked CUDA itself can not be forked
    os.environ.setdefault("OMP_NUM_THREADS", "2")  # threads that wait for each other cost more than they give
    CONTEXT.set_forkserver_preload(PRELOADED)
    results, started = Results(folder), time.monotonic()
    deadline = started + limit_s * sizes.limit
    running: list[Run] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    try:
        for number, task in enumerate(tasks(folder, sizes)):
            if task.part not in chosen:
                continue
            while running and task.part not in BESIDE:
                running[0].finish(deadline)
                running.pop(0)
            if time.monotonic() > deadline:
                results.add({"part": task.part, "case": task.case, "status": f"left out: {limit_s:g} s were over"})
                continue
            running.append(Run(task, number, results, sizes.limit))
            if task.part not in BEHIND:
                running[-1].finish(deadline)
                running.pop()
        while running:
            running[0].finish(deadline)
            running.pop(0)
    finally:  # after Ctrl-C: nothing stays on the GPU
        for run in running:
            run.kill()
    failed = sum(row["status"].startswith(("failed", "stopped")) for row in results.rows)
    seconds = time.monotonic() - started
    print(f"wrote {folder / 'gpu.csv'} and gpu.md: {len(results.rows)} rows, {failed} of them failed, {seconds:.0f} s")
    if failed:
        raise SystemExit(1)


def tasks(folder: Path, sizes: Sizes) -> Iterator[Task]:
    """What is run, in order."""
    phantoms, pairs, cases = folder / "phantoms", folder / "pairs", folder / "phases"
    datalists = ["--datalist", str(phantoms / "datalist.json"), "--phases", str(cases / "datalist.json")]
    commands, steps = "gpu_commands.py", "gpu_steps.py"
    yield Task("data", "phantoms", [
        commands, "phantoms", "--folder", str(phantoms), "--size", str(sizes.volume),
        "--radiograph_size", str(sizes.radiograph), "--split", sizes.split], 120)  # fmt: skip
    yield Task("data", "pairs of phases", [
        commands, "phases", "--pairs", str(pairs), "--cases", str(cases), "--size", str(sizes.phase_volume),
        "--split", sizes.phase_split], 120)  # fmt: skip
    yield Task("card", "card", [steps, "card", *sizes.options], 60)
    yield Task("tests", "pytest -m cuda", [commands, "tests", *sizes.options], 120)

    def training(part: str, bundle: str, overlays: str, batch: int, precisions: str) -> Task:
        name = "+".join([bundle, *([overlays] if overlays else [])])
        return Task(part, name, [
            steps, "train", "--bundle", bundle, "--overlays", overlays, "--batch_size", str(batch),
            "--precisions", precisions, "--steps", str(sizes.steps), *datalists, *sizes.options], 60)  # fmt: skip

    yield from (training("train", *options[:3], "bf16") for options in TRAININGS)
    yield Task("inference", "networks", [
        steps, "inference", "--sizes", ",".join(map(str, sizes.inference)), "--repeats", str(sizes.repeats),
        *datalists[:2], *sizes.options], 90)  # fmt: skip
    yield Task("projector", "projector", [
        commands, "projector", "--size", str(sizes.projector),
        "--output", str(folder / "projector.csv")], 60)  # fmt: skip
    for part in ("distributed", "resume"):
        work = ["--work", str(folder / part)]
        yield Task(part, part, [commands, part, *datalists[:2], *work, *sizes.options], 90)
    yield from (training("precision", *options) for options in TRAININGS if options[3])


class Run:
    """A task's process, whose rows are kept as they are printed.

    Args:
        task: The task.
        number: Its number, for the name of its log.
        results: Where its rows go.
        factor: On its limit.
    """

    def __init__(self, task: Task, number: int, results: Results, factor: float) -> None:
        self.task, self.results, self.rows, self.read = task, results, 0, 0
        self.started, self.limit_s = time.monotonic(), task.limit_s * factor
        name = f"{number:02d}_{task.part}_{task.case}".replace(" ", "_").replace("^", "")
        self.log = results.folder / "logs" / f"{name}.txt"
        self.log.parent.mkdir(exist_ok=True)
        self.log.write_bytes(b"")
        self.process = CONTEXT.Process(target=_work, args=(task.command, str(self.log)))
        self.process.start()

    def finish(self, deadline: float) -> None:
        """Wait for its end, or kill it at its limit or all parts' deadline, and say what became of it."""
        until = max(min(self.started + self.limit_s, deadline), time.monotonic() + 1.0)
        while self.process.exitcode is None and time.monotonic() < until:
            self.process.join(0.2)
            self._take_rows()
        seconds, code = time.monotonic() - self.started, self.process.exitcode
        self.kill()
        last = self._take_rows()
        status = f"stopped after {seconds:.0f} s" if code is None else f"failed with {code}: {last}" if code else "ok"
        if status != "ok" or not self.rows:
            row = {"part": self.task.part, "case": self.task.case, "status": status, "seconds": round(seconds, 1)}
            self.results.add(row)

    def kill(self) -> None:
        """End it, and what it has started."""
        assert self.process.pid is not None  # it was started
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has ended, or not begun
            pass
        self.process.kill()
        self.process.join()

    def _take_rows(self) -> str:
        """Keep the rows that are new in the log; returns the last other line."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        for line in lines[self.read : -1]:
            row = _row(line)
            if row is not None:
                self.rows += 1
                self.results.add({"part": self.task.part, "case": self.task.case, "status": "ok"} | row)
        self.read = len(lines) - 1
        others = [line.strip() for line in lines if line.strip() and _row(line) is None]
        return others[-1][:200] if others else "no output"


def _work(command: Sequence[str], log: str) -> None:
    """What a task's process does: its script, with its output in its log."""
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)  # else a loader's workers would import everything again
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    script = str(HERE / command[0])
    sys.argv, sys.path = [script, *command[1:]], [str(HERE), str(REPOSITORY), *sys.path]
    os.chdir(REPOSITORY)
    runpy.run_path(script, run_name="__main__")


def _row(line: str) -> dict[str, Any] | None:
    """A row, if the line is one."""
    try:
        row = json.loads(line) if line.startswith("{") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) else None


if __name__ == "__main__":
    fire.Fire(gpu)
