"""What `gpu.py` measures in one process: the card, training steps and inference. Each result is a line of JSON.

    python benchmarks/gpu_steps.py train --bundle any_view --datalist DATALIST --precisions bf16,fp16 --steps 20

`--help` says what else there is.
"""

import gc
import json
import math
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fire
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigParser

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
GB = 2**30
WARM_UP = 2
PHASE_BUNDLE = "ct_phase_pix2pix"
"""The bundle that learns from pairs of CTs, not from radiographs."""


def card(miniature: bool = False) -> None:
    """Name, memory and ceilings of the card, and the versions of what runs on it."""
    packages = ("torch", "monai", "pytorch-ignite", "nibabel", "numpy", "diffdrr", "nanodrr")
    row: dict[str, Any] = {"case": "cpu", "python": platform.python_version()}
    row |= {name: found for name in packages if (found := _version(name))}
    if DEVICE.type == "cuda":
        properties = torch.cuda.get_device_properties(DEVICE)
        row |= {"case": properties.name, "memory_gb": round(properties.total_memory / GB, 1)}
        row |= {"cuda": torch.version.cuda, "capability": f"{properties.major}.{properties.minor}"}
    size = 256 if miniature else 8192
    a = torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16)
    b = torch.randn(size * size * (1 if miniature else 16), device=DEVICE)
    row["bf16_tflops"] = round(2 * size**3 / _seconds(lambda: a @ a) / 1e12, 1)
    row["copy_gb_per_s"] = round(2 * b.nbytes / _seconds(b.clone) / 1e9, 1)
    _print(row)


def train(
    bundle: str,
    datalist: str,
    phases: str = "",
    overlays: str = "",
    batch_size: int = 0,
    precisions: str = "bf16",
    steps: int = 20,
    miniature: bool = False,
) -> None:
    """Time a bundle's own trainer on rendered phantoms: its loader, losses, optimiser and handlers, without validation.

    Args:
        bundle: Name of the bundle's folder.
        datalist: Phantoms with radiographs.
        phases: Pairs of CTs, for the phase generator.
        overlays: Overlays of the bundle, separated by commas, without .json.
        batch_size: Cases of a step; 0 for the bundle's own.
        precisions: Of fp32, bf16, fp16, autotuned (bf16, cuDNN measures its algorithms and need not be deterministic)
            and compiled (bf16, the network through torch.compile), separated by commas.
        steps: Steps that are timed, after two that are not.
        miniature: With the sizes of the smoke overlay.
    """
    names = precisions.split(",") if isinstance(precisions, str) else list(precisions)
    changes = {"batch_size": batch_size} if batch_size else {}
    dataset: Any = None
    for precision in names:
        data = phases if bundle == PHASE_BUNDLE else datalist
        parser = configure(bundle, "train", overlays, miniature, datalist=data)
        parser.update(changes)
        batch = parser.config["batch_size"]
        row: dict[str, Any] = {"case": f"{_named(bundle, overlays)}, batch {batch}", "setting": precision}
        row |= {"volume": parser.config.get("volume_size", parser.config.get("slice_size"))}
        if DEVICE.type == "cpu" and precision == "fp16":
            _print(row | {"status": "left out: for a GPU"})
            continue
        try:
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # TensorBoard writes late
                _set_precision(parser, precision, miniature)
                prepare_steps(parser, folder, dataset, steps)
                dataset = parser.get_parsed_content("train::dataset")
                _print(row | timed_steps(parser, batch, steps, precision == "autotuned"))
        except (RuntimeError, ValueError) as error:  # the other precisions are still worth trying
            _print(row | {"status": f"failed: {_reason(error)}"})
        del parser
        _release()


def configure(bundle: str, config: str, overlays: str, miniature: bool, **changes: Any) -> ConfigParser:
    """A bundle's configuration, with its overlays and, in miniature, at the sizes of the smoke overlay."""
    folder = BUNDLES / bundle / "configs"
    names = [name for name in (overlays.split(",") if isinstance(overlays, str) else overlays) if name]
    files = [folder / f"{name}.json" for name in (config, *names)]
    if miniature:
        own = folder / "smoke.json"
        files += [folder / "small.json", own if own.is_file() else BUNDLES / "common" / "smoke.json"]
    parser = ConfigParser()
    parser.read_config([str(path) for path in files])
    parser.update({key: value for key, value in changes.items() if key in parser.config})
    if miniature:
        parser["num_workers"] = 1  # as much of the loader as at full size
        if parser.config.get("finer_channels"):  # with small.json they need a larger volume
            parser["volume_size"] = 32
    parser["bundle_root"] = str(BUNDLES / bundle)
    return parser


def prepare_steps(parser: ConfigParser, folder: str, dataset: Any, steps: int) -> None:
    """One epoch of as many steps as are timed, with every handler but validation, its files in a folder."""
    parser["output_dir"] = folder
    parser["ckpt_dir"] = folder
    parser["epochs"] = 1
    for key in ("adversarial_start", "decay_epochs"):
        if key in parser.config:
            parser[key] = 0
    parser["train"]["named_handlers"]["validation"] = False
    if dataset is not None:  # read once, for all precisions
        parser["train"]["dataset"] = dataset
    parser["train"]["dataloader"]["sampler"] = {
        "_target_": "torch.utils.data.RandomSampler", "data_source": "@train::dataset", "replacement": True,
        "num_samples": parser.config["batch_size"] * (steps + WARM_UP),
    }  # fmt: skip
    parser.get_parsed_content("initialize")


def timed_steps(parser: ConfigParser, batch: int, steps: int, autotuned: bool = False) -> dict[str, Any]:
    """Step time, what waits for data, and the peak of memory, of one run of the trainer."""
    trainer = parser.get_parsed_content("train::trainer")
    waits, times, losses = list[float](), list[float](), list[float]()
    clock = {"batch": 0.0, "step": 0.0, "end": 0.0}

    def start_batch() -> None:
        _synchronize()
        clock["batch"] = time.perf_counter()

    def start_step() -> None:
        clock["step"] = time.perf_counter()
        clock.setdefault("first", clock["step"])
        waits.append(clock["step"] - clock["batch"])

    def end_step(engine: Engine) -> None:
        _synchronize()
        clock["end"] = time.perf_counter()
        times.append(clock["end"] - clock["step"])
        output = engine.state.output
        losses.append((output[0] if isinstance(output, list) else output)["loss"].item())

    if autotuned:  # after EpochSeed, which asks for determinism
        trainer.add_event_handler(Events.EPOCH_STARTED, _autotune)
    trainer.add_event_handler(Events.GET_BATCH_STARTED, start_batch)
    trainer.add_event_handler(Events.GET_BATCH_COMPLETED, start_step)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, end_step)
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    trainer.run()
    ended = time.perf_counter()
    step, wait = statistics.median(times[WARM_UP:]), statistics.mean(waits[WARM_UP:])
    status = "ok" if all(math.isfinite(loss) for loss in losses) else "failed: the loss is not finite"
    network = parser.get_parsed_content("network_def")
    return {
        "status": status,
        "parameters_m": round(sum(p.numel() for p in network.parameters() if p.requires_grad) / 1e6, 2),
        "samples_per_s": round(batch / (step + wait), 3),
        "step_ms": round(1e3 * step, 1),
        "waits_for_data_percent": round(100 * wait / (step + wait), 1),
        "peak_memory_gb": _peak_gb(),
        "first_batch_s": round(clock["first"] - started, 1),
        "first_step_s": round(times[0], 1),
        "longest_later_step_s": round(max(times[1:]), 1),
        "after_the_last_s": round(ended - clock["end"], 1),
        "seconds": round(ended - started, 1),
    }


def _autotune() -> None:
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = False, True


INFERENCES = {
    # side: bundle, overlays after inference.json, changes
    64: [("any_view", "small", {}), ("any_view", "", {}), ("direct_regression", "", {}), ("two_stage", "stage1", {})],
    128: [("any_view", "small,finer", {}), ("trct_gan", "", {}), ("hybrid_cnn_vit", "", {})],
    256: [("any_view", "small,finer", {"times": 2}), ("two_stage", "", {})],
}
"""What is reconstructed at each size; the shipped weights where there are some at that size, else untrained ones."""


def inference(datalist: str, sizes: str = "64,128,256", repeats: int = 10, miniature: bool = False) -> None:
    """Time each network with its inferer on one case, radiographs and result on the device, without files.

    Args:
        datalist: Phantoms with radiographs.
        sizes: Voxels along each side of the result: keys of INFERENCES, separated by commas.
        repeats: Runs that are timed, after one that is not.
        miniature: With the sizes of the smoke overlay.
    """
    chosen = [int(size) for size in (sizes.split(",") if isinstance(sizes, str) else _tuple(sizes))]
    for size in chosen:
        for bundle, overlays, changes in INFERENCES[size]:
            for precision in ("fp32", "bf16"):
                row = {"case": f"{size}^3, {_named(bundle, overlays)}", "setting": precision}
                try:
                    parser = configure(bundle, "inference", overlays, miniature, datalist=datalist, max_cases=1)
                    parser.update(changes)
                    parser["load_pretrain"] = False
                    _set_precision(parser, precision, miniature)
                    _print(row | _timed_inference(parser, repeats))
                except (RuntimeError, ValueError) as error:
                    _print(row | {"status": f"failed: {_reason(error)}"})
                _release()


@torch.no_grad()
def _timed_inference(parser: ConfigParser, repeats: int) -> dict[str, Any]:
    evaluator = parser.get_parsed_content("evaluator")
    network, inferer = evaluator.network.eval(), evaluator.inferer
    batch = next(iter(parser.get_parsed_content("dataloader")))
    inputs, _, *rest = evaluator.prepare_batch(batch | {"label": batch["image"]}, DEVICE, False)
    args, kwargs = rest or ((), {})

    def run() -> torch.Tensor:
        with torch.autocast(DEVICE.type, enabled=bool(evaluator.amp), **evaluator.amp_kwargs):
            result: torch.Tensor = inferer(inputs, network, *args, **kwargs)
        return result

    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    result = run()
    status = "ok" if bool(result.isfinite().all()) else "failed: the result is not finite"
    seconds = _seconds(run, repeats)
    shape = "x".join(str(n) for n in result.shape[-3:])
    return {"status": status, "volume": shape, "ms": round(1e3 * seconds, 1), "peak_memory_gb": _peak_gb()}


def _set_precision(parser: ConfigParser, precision: str, miniature: bool) -> None:
    """fp32, bf16, fp16, or compiled: bf16 with the network through torch.compile."""
    kind = "float16" if precision == "fp16" else "bfloat16"
    parser["amp"] = precision != "fp32" and not miniature  # convolutions in bf16 have given NaN on some processors
    parser["amp_dtype"] = f"$torch.{kind}"
    if precision == "compiled":
        backend = "eager" if miniature else "inductor"
        parser["network"] = f"$torch.compile(@network_def.to(@device), backend='{backend}')"


def _seconds(run: Callable[[], Any], repeats: int = 10) -> float:
    """Median time of a run, after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        with _timed(times):
            run()
    return statistics.median(times[1:])


@contextmanager
def _timed(times: list[float]) -> Iterator[None]:
    _synchronize()
    start = time.perf_counter()
    yield
    _synchronize()
    times.append(time.perf_counter() - start)


def _synchronize() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def _peak_gb() -> float | str:
    return round(torch.cuda.max_memory_allocated() / GB, 2) if DEVICE.type == "cuda" else ""


def _release() -> None:
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if DEVICE.type == "cuda":
        torch.cuda.empty_cache()


def _named(bundle: str, overlays: str) -> str:
    return "+".join([bundle, *(name for name in overlays.split(",") if name)])


def _tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _reason(error: BaseException) -> str:
    """The first line of what an error came from: MONAI wraps what goes wrong in a component."""
    while error.__cause__ is not None:
        error = error.__cause__
    traceback.print_exception(error)
    return (f"{type(error).__name__}: {error}".splitlines() or ["?"])[0][:200]


def _print(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    fire.Fire({"card": card, "train": train, "inference": inference})
