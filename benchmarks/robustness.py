"""PSNR of a bundle that takes any views against the number of views, pose errors, noise and exposure.

    python benchmarks/robustness.py --bundle hybrid_cnn_vit --ckpt_path MODEL --datalist DATALIST --output OUT

Classical methods are evaluated for the same numbers of views. The datalist's cases have their views spread over 180
degrees, such as those of `phantoms --geometry circle-8`; N of V views are the ones nearest to an even spread from the
first. A pose error rotates each stated camera by that angle about a random axis through the isocentre; the radiographs
are the same. Noise is that of so many photons in a pixel without patient. Exposure is each change of
`trct_monai.transforms.RandRadiographd` alone, and all together with their own probability. It writes `views.csv`,
`robustness.csv` and a plot of each.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf, radians
from pathlib import Path
from typing import Any

import fire
import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose, LoadImaged
from torch import Tensor, nn
from tqdm import tqdm

from trct_monai.baselines import make_baseline
from trct_monai.figures import save_figure
from trct_monai.geometry import Camera, rigid_motion
from trct_monai.intensity import unit_to_hu
from trct_monai.io.datalist import load_datalist
from trct_monai.io.files import write_csv
from trct_monai.io.weights import load_frozen
from trct_monai.metrics.protocols import hu_protocol
from trct_monai.physics import add_quantum_noise
from trct_monai.transforms import CameraMatricesd, CTPreprocessingd, LoadRadiographsd, RandRadiographd

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
POSE_ERRORS_DEG = (0.0, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0)
PHOTONS = (inf, 1e5, 1e4, 1e3, 1e2)
CHANGES = {name: inspect.signature(RandRadiographd).parameters[name].default for name in (
    "gain", "gamma", "hardening", "scatter", "blur", "collimation", "window"
)}  # fmt: skip
EXPOSURES = ("none", *CHANGES, "all")
LoadedCase = Mapping[str, Any]
Reconstruct = Callable[[Tensor, Tensor, Sequence[Camera]], Tensor]


def robustness(
    bundle: str,
    ckpt_path: str,
    datalist: str,
    output: str,
    overlays: str = "small",
    numbers: str = "1,2,3,4,5,6,7,8",
    robustness_views: str = "2,8",
    baselines: str = "backprojection,total_variation",
    max_cases: int = 50,
    threads: int = 2,
) -> None:
    """Measure a bundle that takes any views, and draw the curves.

    Args:
        bundle: Name of the bundle's folder.
        ckpt_path: Its weights.
        datalist: A data set whose test cases have many views.
        output: Folder to write.
        overlays: Overlays of the bundle, separated by commas, without .json.
        numbers: Numbers of views.
        robustness_views: Numbers of views of the robustness curves; "none" for no curves.
        baselines: Baselines to compare with; "none" for none.
        max_cases: Largest number of test cases.
        threads: Threads on a CPU.
    """
    torch.set_num_threads(threads)
    parser = ConfigParser()
    parser.read_config(
        [str(BUNDLES / bundle / "configs" / f"{name}.json") for name in ("inference", *_listed(overlays))]
    )
    network = load_frozen(parser.get_parsed_content("network_def"), ckpt_path)
    numbers_of = {
        key: parser.get_parsed_content(key) for key in ("volume_size", "radiograph_size", "extent", "hu_window")
    }
    cases = load_datalist(datalist, "test")[:max_cases]
    loaded = list(tqdm(_load(cases, **numbers_of), total=len(cases), desc="load", unit="case"))
    size, extent, window = (numbers_of[key] for key in ("volume_size", "extent", "hu_window"))

    def learned(image: Tensor, matrices: Tensor, cameras: Sequence[Camera]) -> Tensor:
        return network(image[None], matrices=matrices[None])[0]

    def classical(name: str) -> Reconstruct:
        def reconstruct(image: Tensor, matrices: Tensor, cameras: Sequence[Camera]) -> Tensor:
            method: nn.Module = make_baseline(name, volume_size=size, geometry=list(cameras), extent=extent)
            return method(image[None])[0]

        return reconstruct

    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    methods = {bundle: learned, **{name: classical(name) for name in _listed(baselines)}}
    rows = []
    for name, method in methods.items():
        for number in (int(text) for text in _listed(numbers)):
            chosen = spread(number, len(loaded[0]["cameras"]))
            scores = _score(
                loaded, lambda case, chosen=chosen: _chosen(case, chosen), method, window, f"{name}, {number}"
            )
            rows.append({"method": name, "views": number, **scores})
            write_csv(folder / "views.csv", rows)
    _draw(folder / "views.png", rows, "method", "views", "number of views")

    rows = []
    for number in (int(text) for text in _listed(robustness_views)):
        chosen = spread(number, len(loaded[0]["cameras"]))
        for kind, disturb, values in (
            ("pose error (degrees)", misplaced, POSE_ERRORS_DEG),
            ("photons", noisy, PHOTONS),
            ("exposure", exposed, EXPOSURES),
        ):
            for value in values:
                scores = _score(
                    loaded,
                    lambda case, c=chosen, d=disturb, v=value: d(*_chosen(case, c), v, case["seed"]),
                    learned,
                    window,
                    f"{number} views, {kind} {value}",
                )
                rows.append({"views": number, "disturbance": kind, "value": value, **scores})
                write_csv(folder / "robustness.csv", rows)
    rows = [{**row, "views": f"{row['views']} views"} for row in rows]
    for kind, title in (
        ("pose error (degrees)", "error of each stated camera (degrees)"),
        ("photons", "photons a pixel"),
    ):
        chosen_rows = [row for row in rows if row["disturbance"] == kind and row["value"] != inf]
        if chosen_rows:
            _draw(folder / f"{kind.split()[0]}.png", chosen_rows, "views", "value", title)
    print(f"wrote {folder}: " + ", ".join(sorted(path.name for path in folder.iterdir())))


def spread(number: int, available: int) -> list[int]:
    """The indices of so many of the available views, spread evenly from the first.

    Raises:
        SystemExit: If there are not that many.
    """
    if not 1 <= number <= available:
        raise SystemExit(f"the data have {available} views, {number} were asked for")
    return [round(i * available / number) for i in range(number)]


def misplaced(image: Tensor, matrices: Tensor, cameras: Sequence[Camera], degrees: float, seed: int) -> Any:
    """The same radiographs with cameras that are off by an angle."""
    axis = torch.randn(len(matrices), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    rotation = torch.nn.functional.normalize(axis, dim=-1) * radians(degrees)
    return image, (matrices.double() @ rigid_motion(rotation, torch.zeros_like(rotation))).float(), cameras


def noisy(image: Tensor, matrices: Tensor, cameras: Sequence[Camera], photons: float, seed: int) -> Any:
    """Radiographs with quantum noise."""
    generator = torch.Generator().manual_seed(seed)
    return add_quantum_noise(image[None], photons, generator)[0], matrices, cameras


def exposed(image: Tensor, matrices: Tensor, cameras: Sequence[Camera], change: str, seed: int) -> Any:
    """Radiographs after one of `EXPOSURES`."""
    strengths: dict[str, Any] = {name: strength * (name == change) for name, strength in CHANGES.items()}
    transform = RandRadiographd(prob=1.0, photons=None, **strengths) if change != "all" else RandRadiographd()
    transform.set_random_state(seed)
    return transform({"image": image})["image"], matrices, cameras


def _load(
    cases: Sequence[LoadedCase], volume_size: int, radiograph_size: int, extent: float, hu_window: Any
) -> Iterator[LoadedCase]:
    chain = Compose(
        [
            LoadImaged("label", reader="NibabelReader", ensure_channel_first=True),
            CTPreprocessingd("label", volume_size, extent, hu_window),
            LoadRadiographsd("image", radiograph_size),
            CameraMatricesd(),
        ]
    )
    for seed, case in enumerate(cases):
        item = chain(dict(case))
        cameras = [Camera.from_dict(camera).resized(item["image"].shape[-2:]) for camera in case["cameras"]]
        truth = unit_to_hu(item["label"].as_subclass(Tensor)[0], hu_window).numpy()
        yield {"image": item["image"], "matrices": item["matrices"], "cameras": cameras, "truth": truth, "seed": seed}


def _chosen(case: LoadedCase, views: Sequence[int]) -> tuple[Tensor, Tensor, list[Camera]]:
    return case["image"][views], case["matrices"][views], [case["cameras"][view] for view in views]


@torch.no_grad()
def _score(
    cases: Sequence[LoadedCase],
    inputs_of: Callable[[LoadedCase], Any],
    method: Reconstruct,
    window: Sequence[float],
    what: str,
) -> dict[str, float]:
    protocol = hu_protocol(window)
    scores = []
    for case in tqdm(cases, desc=what, unit="case"):
        scores.append(protocol(unit_to_hu(method(*inputs_of(case))[0], window).numpy(), case["truth"]))
    return {key: float(np.mean([score[key] for score in scores])) for key in ("psnr_3d", "ssim", "mae")}


def _draw(path: Path, rows: Sequence[Mapping[str, Any]], group: str, along: str, title: str) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axis = figure.subplots()
    for name in dict.fromkeys(row[group] for row in rows):
        points = [(row[along], row["psnr_3d"]) for row in rows if row[group] == name]
        axis.plot(*zip(*points), marker="o", label=name)
    axis.set_xlabel(title)
    if max(row[along] for row in rows) > 100:
        axis.set_xscale("log")
    axis.set_ylabel("PSNR (dB), hu protocol")
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def _listed(text: Any) -> list[str]:
    """Names from a flag, which fire may have parsed as a tuple or a number."""
    parts = text if isinstance(text, tuple | list) else str(text).split(",")
    return [str(part).strip() for part in parts if str(part).strip() not in ("", "none", "None")]


if __name__ == "__main__":
    fire.Fire(robustness)
