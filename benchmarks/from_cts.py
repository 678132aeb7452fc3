"""How many cases a second training from CTs makes, beside how many a training step takes.

    python benchmarks/from_cts.py --cts FOLDER

It takes `bundles/common/from_cts.json` as it is: its transforms one after the other on the CTs of a folder, and its
rendering of two radiographs, whole and cube alone; then training steps of a bundle with its overlay small.json on what
came out. Loading is left out: a training does it once. It prints a line for each part, medians in ms a case, and the
share of a training step that warping and rendering add on this device where nothing runs beside it. On a GPU the clock
waits for it after each part.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser

from trct_monai.datasets import ct_cases, hold_out

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"


def from_cts(
    cts: str,
    bundle: str = "any_view",
    rounds: int = 5,
    batch_size: int = 4,
    device: str = "cpu",
    threads: int = 2,
    **options: Any,
) -> None:
    """Measure and print.

    Args:
        cts: Folders of CTs, separated by commas.
        bundle: Whose training step is compared.
        rounds: Batches that are measured; one before them is not.
        batch_size: Cases of a batch.
        device: Where all of it is done.
        threads: Threads of PyTorch.
        options: Further options of the configuration, such as --radiograph_size 256.
    """
    torch.set_num_threads(threads)
    parser = _parser(bundle, {**options, "cts": cts, "device": torch.device(device), "phantoms": 0})
    transforms = list(parser.get_parsed_content("train::preprocessing").transforms)
    first_random = next(i for i, one in enumerate(transforms) if type(one).__name__.startswith("Rand"))
    cases: list[Any] = hold_out(ct_cases(cts))[0]
    for transform in transforms[:first_random]:
        cases = [transform(case) for case in cases]
    render, network = parser.get_parsed_content("train::prepare_batch"), parser.get_parsed_content("network").train()
    loss, optimizer = parser.get_parsed_content("loss"), parser.get_parsed_content("optimizer")
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        _wait(device)
        start = time.perf_counter()
        result = function()
        _wait(device)
        times.setdefault(name, []).append(1000 * (time.perf_counter() - start) / batch_size)
        return result

    for number in range(rounds + 1):
        items = [cases[(number * batch_size + index) % len(cases)] for index in range(batch_size)]
        for transform in transforms[first_random:]:
            items = timed(type(transform).__name__, lambda t=transform, i=items: [t(item) for item in i])
        batch = {key: torch.stack([item[key] for item in items]) for key in ("patient", "label")}
        for render.whole_share in (1.0, 0.0):
            name = "rendering the whole CT" if render.whole_share else "rendering the cube"
            image, label, _, others = timed(name, lambda b=batch: render(b, torch.device(device), False))

        def step(image: Any = image, label: Any = label, others: Any = others) -> None:
            optimizer.zero_grad()
            loss(network(image, **others), label).backward()
            optimizer.step()

        timed("training step", step)
    medians = {name: median(values[1:]) for name, values in times.items()}
    made = sum(value for name, value in medians.items() if name not in ("training step", "rendering the whole CT"))
    for name, value in medians.items():
        print(f"{name:24s} {value:8.1f} ms a case")
    print(f"{1000 / made:.2f} cases a second made, {1000 / medians['training step']:.2f} trained ({bundle}, {device})")
    print(f"warping and rendering add {made / medians['training step']:.0%} to a step that waits for them")


def _parser(bundle: str, options: dict[str, Any]) -> ConfigParser:
    own = BUNDLES / bundle / "configs"
    files = [own / "train.json", own / "small.json", BUNDLES / "common" / "from_cts.json"]
    parser = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
    parser.update(options)
    return parser


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    fire.Fire(from_cts)
