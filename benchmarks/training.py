"""Step time and peak memory of any bundle's training, at any size, on any device; or its memory without running it.

    python benchmarks/training.py --bundle trct_gan --overlays small --batch_size 4 --steps 10
    python benchmarks/training.py --bundle trct_gan --overlays low_memory --batch_size 4 --trace True

The bundle's own trainer takes real steps on random numbers, with the views of the bundle's `geometry` and its random
poses, `--geometry circle-8 --pose_rotation 2`; loading and handlers are left out. Every further flag is a key of the
bundle's configuration, such as `--volume_size 64`. With `--trace True` nothing is computed: a step runs on tensors
without data, and the bytes that would be alive are added up, forward, backward and optimiser. The projection loss,
whose rays need numbers, is left out there; it takes some tens of MB a volume at 128^3.
"""

import json
import resource
import statistics
import time
import weakref
from pathlib import Path
from typing import Any

import fire
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.data import Dataset

from trct_monai.geometry import preset, projection_matrices
from trct_monai.transforms import RandPosed

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
GB = 2**30


def training(
    bundle: str,
    overlays: str = "",
    steps: int = 10,
    trace: bool = False,
    threads: int = 2,
    **changes: Any,
) -> None:
    """Measure a bundle's training step and print one line of JSON.

    Args:
        bundle: Name of the bundle's folder.
        overlays: Overlays of the bundle, separated by commas, without .json.
        steps: Steps that are timed, after two that are not.
        trace: Add up memory on tensors without data in place of running.
        threads: Threads on a CPU.
        **changes: Numbers of the configuration, such as batch_size.
    """
    torch.set_num_threads(threads)
    parser = configure(bundle, [name for name in _listed(overlays) if name], changes)
    sizes = ("volume_size", "radiograph_size", "slice_size", "batch_size")
    numbers = {key: parser.config[key] for key in sizes if key in parser.config}
    result: dict[str, Any] = {"bundle": bundle, "overlays": overlays, **numbers, **changes}
    result.update(trace_memory(parser) if trace else measure(parser, steps))
    print(json.dumps(result))


class RandomCases(Dataset[dict[str, torch.Tensor]]):
    """Random numbers in place of radiographs and CTs, and the cameras of a preset.

    Args:
        number: Number of cases.
        volume_size: Voxels along each side of the label.
        radiograph_size: Rows and columns of the radiographs.
        geometry: Preset of the views.
        pose: Standard deviations of each view's rotation in degrees and translation in mm.
    """

    def __init__(
        self, number: int, volume_size: int, radiograph_size: int, geometry: str, pose: tuple[float, float]
    ) -> None:
        self.number, self.volume_size, self.radiograph_size = number, volume_size, radiograph_size
        self.matrices = projection_matrices(preset(geometry))
        self.pose = RandPosed("matrices", *pose, prob=1.0).set_random_state(0)

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        size = self.radiograph_size
        return {
            "image": 5 * torch.rand(len(self.matrices), size, size),
            "label": torch.rand(1, *[self.volume_size] * 3),
            **self.pose({"matrices": self.matrices}),
        }


class RandomSlices(Dataset[dict[str, torch.Tensor]]):
    """Random numbers in place of the slices of an average CT and of the middle one's phase.

    Args:
        number: Number of cases.
        num_slices: Slices of the image.
        slice_size: Rows and columns.
    """

    def __init__(self, number: int, num_slices: int, slice_size: int) -> None:
        self.number, self.num_slices, self.slice_size = number, num_slices, slice_size

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {key: torch.rand(n, *[self.slice_size] * 2) for key, n in (("image", self.num_slices), ("label", 1))}


def random_cases(config: dict[str, Any]) -> RandomCases | RandomSlices:
    """Two batches of what a bundle trains on: radiographs and volumes, or slices of CTs."""
    number = 2 * config["batch_size"]
    if "slice_size" in config:
        return RandomSlices(number, config["num_slices"], config["slice_size"])
    return RandomCases(
        number,
        config["volume_size"],
        config["radiograph_size"],
        config.get("geometry", "x2ct"),
        (config.get("pose_rotation", 0.0), config.get("pose_translation", 0.0)),
    )


def configure(bundle: str, overlays: list[str], changes: dict[str, Any]) -> ConfigParser:
    """The bundle's configuration with random cases and without handlers."""
    parser = ConfigParser()
    folder = BUNDLES / bundle / "configs"
    parser.read_config([str(folder / f"{name}.json") for name in ("train", *overlays)])
    unknown = [key for key in changes if key not in parser.config]
    if unknown:
        raise SystemExit(f"{bundle} has no {', '.join(unknown)}")
    parser.update(changes)
    parser["num_workers"] = 0
    parser["summary_writer"] = None
    parser["train"]["handlers"] = []
    parser["train"]["trainer"]["decollate"] = False
    parser["train"]["dataset"] = random_cases(parser.config)
    parser["adversarial_start"] = 0
    return parser


def measure(parser: ConfigParser, steps: int) -> dict[str, Any]:
    """Time of real steps, and the peak of the memory in use."""
    trainer = parser.get_parsed_content("train::trainer")
    device = trainer.state.device
    times: list[float] = []
    epochs = -(-(steps + 2) // 2)

    def now() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    trainer.add_event_handler(Events.ITERATION_STARTED, lambda _: times.append(-now()))
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: times.append(times.pop() + now()))
    trainer.state.max_epochs = epochs
    trainer.run()
    step = statistics.median(times[2:])
    memory = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _peak_resident()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    return {
        "device": name,
        "step_ms": round(1e3 * step, 1),
        "samples_per_s": round(parser.config["batch_size"] / step, 3),
        "peak_memory_gb": round(memory / GB, 3),
    }


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, as long as they are alive.

    Args:
        held: Bytes that are alive already.
    """

    def __init__(self, held: int) -> None:
        super().__init__()
        self.now = self.peak = held
        self.known: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._hold, result)
        return result

    def _hold(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.known:
            self.known.add(key)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._release, key, storage.nbytes())

    def _release(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def trace_memory(parser: ConfigParser) -> dict[str, Any]:
    """Peak memory of a step, on tensors without data."""
    if "slice_size" in parser.config:
        raise SystemExit("--trace takes bundles that make volumes from radiographs; run the step instead")
    if "projection_weight" in parser.config:
        parser["projection_weight"] = 0.0
    parser["device"] = "$torch.device('cpu')"
    parser["train"]["dataloader"] = None
    batch, size, pixels = (parser.config[key] for key in ("batch_size", "volume_size", "radiograph_size"))
    mode, held = FakeTensorMode(), 0
    networks = [name for name in ("network", "discriminator") if name in parser]
    for name in networks:
        parser[name] = f"@{name}_def"
    for name in networks:
        module = parser.get_parsed_content(name)
        held += sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers()))
        _without_data(module, mode)
    parser.get_parsed_content("loss")
    with mode, LiveBytes(held) as live:
        trainer = parser.get_parsed_content("train::trainer")
        cases = {"image": torch.rand(batch, 2, pixels, pixels), "label": torch.rand(batch, 1, size, size, size)}
        trainer.state.epoch, trainer.state.iteration, trainer.state.epoch_length = 1, 1, 1
        for _ in range(2):  # the optimiser's state comes into being in the first step
            trainer._iteration(trainer, cases)
    amp = bool(parser.get_parsed_content("amp"))
    return {
        "device": "traced",
        "amp": amp,
        "weights_gb": round(held / GB, 3),
        "peak_memory_gb": round(live.peak / GB, 3),
    }


def _without_data(module: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Put tensors without data in the place of a module's parameters and buffers."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                fake = mode.from_tensor(parameter.detach())
                part._parameters[name] = torch.nn.Parameter(fake, parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = mode.from_tensor(buffer)


def _peak_resident() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _listed(text: str | tuple[str, ...]) -> list[str]:
    return text.split(",") if isinstance(text, str) else list(text)


if __name__ == "__main__":
    fire.Fire(training)
