"""Speed, memory and accuracy of `trct_monai.projector` beside public projectors, all in one run.

    python benchmarks/projector.py --size 256 --rounds 5

One cone view (x2ct geometry) of a cube of 320 mm. Every method runs once in each round, so that all meet the same load
of the machine; medians are reported, and ratios to DiffDRR's trilinear renderer in the same run. "forward + adjoint" is
a projection and the gradient of the volume from a given image. Memory is what the process's peak grows by, in a fresh
process for each method, past the input volume and image; tables and result are included. The error is the relative L2
distance to closed-form integrals of ellipsoids and of Gaussian blobs. Peers that are not installed are listed as such:
`pip install -e .[benchmark]` gets those that pip has.
"""

import argparse
import csv
import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from projector_accuracy import adjoint_mismatch, closed_form, phantom, relative
from projector_methods import (
    BASE,
    CPU_METHODS,
    GPU_METHODS,
    METHODS,
    Ours,
    Plastimatch,
    camera,
    is_installed,
    prepare,
    seconds,
)


def peak_memory(name: str, size: int, detector: int, with_adjoint: bool) -> float:
    """Peak memory in MB past the input, in a process of its own; of plastimatch, of its whole process."""
    arguments = ["--size", str(size), "--detector", str(detector), "--measure", name]
    arguments += ["--with-adjoint"] if with_adjoint else []
    result = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1]))


def measure_memory(name: str, size: int, detector: int, with_adjoint: bool) -> float:
    volume, image = torch.rand(size, size, size), torch.rand(detector, detector)
    small = METHODS[name][1](32, 32)  # libraries load and warm up on something small
    for task in prepare(small, torch.rand(32, 32, 32), torch.rand(32, 32)):
        if task is not None:
            task()
    method = METHODS[name][1](size, detector)
    if isinstance(method, Plastimatch):
        method.forward(volume)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    task = prepare(method, volume, image)[with_adjoint]
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: the peak starts anew
    except OSError:
        pass
    baseline = status_mb("VmHWM")
    result = task()
    del result
    return status_mb("VmHWM") - baseline


def gpu_memory(task: Callable[[], Any]) -> float:
    """What the peak of a GPU's memory grows by, in MB; tables that are kept from earlier runs are not included."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    result = task()
    del result
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def status_mb(field: str) -> float:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return float(match[1]) / 1024 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(arguments: argparse.Namespace) -> None:
    size, detector = arguments.size, arguments.detector or arguments.size
    device = arguments.device
    able = GPU_METHODS if device != "cpu" else CPU_METHODS
    chosen = [name for name in METHODS if re.search(arguments.methods, name) and re.search(able, name)]
    available = [name for name in chosen if is_installed(METHODS[name][0])]
    generator = torch.Generator().manual_seed(0)
    volume, image = (
        torch.rand(size, size, size, generator=generator).to(device),
        torch.rand(detector, detector, generator=generator).to(device),
    )
    methods = {name: METHODS[name][1](size, detector) for name in available}
    if device != "cpu":
        methods = {name: method.to(device) for name, method in methods.items()}
    tasks = {name: prepare(method, volume, image) for name, method in methods.items()}

    times: dict[tuple[str, int], list[float]] = {}
    progress = tqdm(total=(arguments.rounds + 1) * sum(task is not None for pair in tasks.values() for task in pair))
    for round_number in range(arguments.rounds + 1):  # the first one warms up
        for name, pair in tasks.items():
            for which, task in enumerate(pair):
                if task is not None:
                    progress.set_description(name)
                    taken = seconds(task, methods[name])
                    if round_number:
                        times.setdefault((name, which), []).append(taken)
                    progress.update()
    progress.close()

    ours = Ours(size, camera(detector), "separable")
    phantoms = {profile: phantom(size, profile) for profile in ("ellipsoids", "smooth")}
    rows = []
    for name in tqdm(chosen, desc="accuracy and memory"):
        row: dict[str, Any] = {"method": name, "status": "measured" if name in methods else "not installed"}
        if name in methods:
            method, pair = methods[name], tasks[name]
            for which, kind in enumerate(("forward", "forward_adjoint")):
                if pair[which] is not None:
                    row[f"{kind}_ms"] = round(1000 * statistics.median(times[name, which]), 2)
                    if (BASE, which) in times:
                        base = statistics.median(times[BASE, which])
                        row[f"{kind}_ratio"] = round(base / statistics.median(times[name, which]), 2)
                    if not arguments.skip_memory:
                        own = device != "cpu"
                        peak = gpu_memory(pair[which]) if own else peak_memory(name, size, detector, bool(which))
                        row[f"{kind}_memory_mb"] = round(peak, 1)
            for profile, truth in phantoms.items():
                found = method.forward(truth.to(device)).cpu()
                row[f"error_{profile}"] = round(relative(found, closed_form(method.view, profile)), 6)
                if profile == "smooth" and method.view == ours.view:
                    row["difference_to_ours"] = f"{relative(found, ours.forward(truth)):.1e}"
            mismatch = adjoint_mismatch(method, volume, image)
            row["adjoint_mismatch"] = "" if mismatch is None else f"{mismatch:.1e}"
        row |= {"size": size, "detector": detector, "rounds": arguments.rounds, "threads": torch.get_num_threads()}
        row |= {"device": torch.cuda.get_device_name() if device != "cpu" else "cpu"}
        rows.append(row | {"torch": torch.__version__})

    fields = list(dict.fromkeys(key for row in rows for key in row))
    temporary = Path(f"{arguments.output}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, arguments.output)
    for row in rows:
        print(", ".join(f"{key} {row[key]}" for key in fields[:12] if row.get(key) not in (None, "")))
    print(f"wrote {arguments.output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels along each side of the volume")
    parser.add_argument("--detector", type=int, default=0, help="pixels along each side of the detector; 0: as --size")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=0, help="threads of every method; 0: what each takes by itself")
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for the methods that run on a GPU")
    parser.add_argument("--methods", default="", help="only methods whose name this regular expression matches")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".csv")), help="csv file to write")
    parser.add_argument("--skip-memory", action="store_true", help="leave the memory columns out")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--with-adjoint", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
        for library in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):  # read when loaded, and by children
            os.environ[library] = str(arguments.threads)
    if arguments.measure:
        detector = arguments.detector or arguments.size
        print(json.dumps(measure_memory(arguments.measure, arguments.size, detector, arguments.with_adjoint)))
    else:
        run(arguments)


if __name__ == "__main__":
    main()
