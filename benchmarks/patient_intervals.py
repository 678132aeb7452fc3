"""Intervals of any_view on patients that its network has not seen: fitted, calibrated and checked.

    python benchmarks/patient_intervals.py --folds OUT --cts FOLDER[,FOLDER...] --phantoms DATALIST --ckpt_path MODEL

A network's errors on warps of its own patients are smaller than those on strangers. So the spread is fitted to the
networks of `leave_one_patient_out.py --methods any_view`, whose output is `--folds`: each step takes one of them and
warps of the patient that it has not seen; every fourth step takes the network that ships, and phantoms. Half of both
have [findings](../docs/training.md#findings), so that an interval is wide where one may be missing. Then the
factors of the intervals are set on those patients, each through the network without it, and on some phantoms:
cross-conformal prediction (see `trct_monai.training.calibration.Deviations`). The intervals are written beside MODEL.

The table says what share of the body's voxels the intervals of the frontal and the lateral view hold, and how wide the
outer ones are in the mean: of each patient by factors from the others and the phantoms, of the phantoms by those that
are written. The spread has seen all of these patients, if only through networks that have not. **What counts is a check
on others**: `inference.json` with `intervals.json` on what `prepare` made of them, and `evaluate`.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import fire
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose
from torch import Tensor
from tqdm import tqdm, trange

from trct_monai.arguments import parse_names
from trct_monai.datasets import ct_cases
from trct_monai.intensity import BODY_HU, unit_to_hu
from trct_monai.io import load_datalist, load_frozen
from trct_monai.losses import LaplaceNLLLoss
from trct_monai.networks import IntervalNetwork
from trct_monai.training.calibration import Deviations
from trct_monai.training.intervals import save_intervals
from trct_monai.transforms import RandFindingsd, RenderViews

BUNDLES = Path(__file__).resolve().parents[1] / "bundles"
FILES = (
    "any_view/configs/train", "any_view/configs/small", "common/from_cts", "any_view/configs/from_patients",
    "common/findings", "any_view/configs/train_intervals",
)  # fmt: skip
PHANTOM_STEPS = 4
"""One of so many steps takes phantoms."""

Case = Mapping[str, Any]


def patient_intervals(
    folds: str,
    cts: str | Sequence[str],
    phantoms: str,
    ckpt_path: str,
    steps: int = 240,
    num_phantoms: int = 8,
    seed: int = 0,
    threads: int = 2,
    **options: Any,
) -> None:
    """Fit, calibrate, write ``intervals.pt`` beside the weights, and print the table.

    Args:
        folds: Output of `leave_one_patient_out.py`, with the networks of any_view.
        cts: Its folders of CTs.
        phantoms: Datalist of phantoms: its training section for the spread, its validation section for the factors.
        ckpt_path: Weights of the network that the intervals are for.
        steps: Of the fit.
        num_phantoms: Phantoms for the factors.
        seed: Of warps, views and phantoms.
        threads: Threads of this process.
        options: Further options of the networks' configuration, such as --batch_size 2.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    parser = ConfigParser(ConfigParser.load_config_files([str(BUNDLES / f"{file}.json") for file in FILES]))
    parser.update({"cts": cts, "phantom_datalist": phantoms, "device": torch.device("cpu"), "seed": seed, **options})
    network, channels = parser.get_parsed_content("network_def"), parser.get_parsed_content("interval_channels")
    found_cts = ct_cases(parse_names(cts))
    weights = {case["patient_id"]: Path(folds) / "any_view" / case["patient_id"] / "model.pt" for case in found_cts}
    if missing := sorted(patient for patient, path in weights.items() if not path.is_file()):
        print("no fold of", ", ".join(missing) + ": left out here")
    unseen = {
        patient: IntervalNetwork(load_frozen(deepcopy(network), path), channels)
        for patient, path in weights.items()
        if path.is_file()
    }
    if not unseen:
        raise ValueError(f"{folds}: no networks in any_view/PATIENT/model.pt; run leave_one_patient_out.py first")
    intervals = IntervalNetwork(load_frozen(network, ckpt_path), channels)
    for other in unseen.values():  # one spread for all
        other.entry, other.blocks, other.head = intervals.entry, intervals.blocks, intervals.head
        other.residual_power = intervals.residual_power
    transforms = parser.get_parsed_content("train::preprocessing").transforms
    first = next(index for index, one in enumerate(transforms) if type(one).__name__.startswith("Rand"))
    load, cut = Compose(parser.get_parsed_content("validate::preprocessing").transforms[:-1]), transforms[-1]
    prepare = Compose(transforms[:first])
    boxes = {case["patient_id"]: prepare(case) for case in tqdm(found_cts, desc="CTs", unit="CT")}
    cubes = {patient: cut({"patient": box["patient"]}) for patient, box in boxes.items()}
    _fit(intervals, unseen, boxes, _phantom_boxes(load, phantoms, "training"), parser, transforms[first:], steps, seed)

    keys = ("geometry", "radiograph_size", "extent", "hu_window")
    every = RenderViews(**{key: parser.get_parsed_content(key) for key in keys},
                        spacing=parser.get_parsed_content("patient_spacing"))  # fmt: skip
    usual = parser.get_parsed_content("usual_views")
    found: dict[str, Deviations] = {name: Deviations() for name in (*unseen, "phantoms")}
    for patient, other in tqdm(unseen.items(), desc="patients", unit="patient"):
        found[patient].add(other, [cubes[patient]], usual, prepare_batch=every)
    held = [cut(box) for box in _phantom_boxes(load, phantoms, "validation", num_phantoms)]
    found["phantoms"].add(intervals, held, usual, prepare_batch=every)
    print("| case | 50 % interval holds | 90 % interval holds | width of it |\n|---|---|---|---|")
    for patient, other in unseen.items():
        _pooled(one for name, one in found.items() if name != patient).set_factors(other)
        print(_row(patient, [_score(other, cubes[patient], every, usual)]))
    _pooled(found.values()).set_factors(intervals)
    print(_row(f"{len(held)} phantoms", [_score(intervals, case, every, usual) for case in held]))
    path = Path(ckpt_path).with_name("intervals.pt")
    save_intervals(intervals, path)
    print("wrote", path)


def _phantom_boxes(load: Compose, phantoms: str, section: str, number: int = 64) -> list[Case]:
    """Some phantoms of a datalist as CTs are loaded."""
    return [load({"patient": case["label"]}) for case in load_datalist(phantoms, section)[:number]]


def _fit(
    intervals: IntervalNetwork,
    unseen: Mapping[str, IntervalNetwork],
    boxes: Mapping[str, Case],
    phantoms: Sequence[Case],
    parser: ConfigParser,
    random_transforms: Sequence[Any],
    steps: int,
    seed: int,
) -> None:
    """Train the spread."""
    vary = Compose(list(random_transforms)).set_random_state(seed)
    findings = [one for one in random_transforms if isinstance(one, RandFindingsd)]
    vary_phantom = Compose([*findings, random_transforms[-1]])
    render, size = parser.get_parsed_content("train::prepare_batch"), parser.get_parsed_content("batch_size")
    trained = [p for p in intervals.parameters() if p.requires_grad]
    optimizer = torch.optim.RAdam(trained, lr=parser.get_parsed_content("interval_rate"))

    def draw(some: Sequence[Any]) -> Any:
        return some[int(torch.randint(len(some), ()))]

    progress = trange(steps, desc="intervals", unit="step")
    for step in progress:
        if step % PHANTOM_STEPS == 0:
            network, cases = intervals, [vary_phantom(draw(phantoms)) for _ in range(size)]
        else:
            patient = draw(list(unseen))
            network, cases = unseen[patient], [vary(boxes[patient]) for _ in range(size)]
        batch = {key: torch.stack([case[key].as_subclass(Tensor).float() for case in cases]) for key in cases[0]}
        image, label, _, more = render(batch, "cpu", False)
        loss = LaplaceNLLLoss()(network.train()(image, **more), label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        progress.set_postfix(loss=f"{loss.item():.2f}", power=f"{intervals.residual_power.item():.2f}")


def _pooled(parts: Any) -> Deviations:
    result = Deviations()
    for part in parts:
        result.take(part)
    return result


def _score(intervals: IntervalNetwork, case: Case, render: RenderViews, views: Sequence[int]) -> list[float]:
    """Shares of the body's voxels within the inner and the outer interval, and the width of the outer one in HU."""
    batch = {key: value[None].as_subclass(Tensor).float() for key, value in case.items() if isinstance(value, Tensor)}
    image, label, _, more = render(batch, "cpu", False)
    chosen, window = list(views), intervals.network.hu_window
    with torch.no_grad():
        known = {"matrices": more["matrices"][:, chosen], "exposed": more["exposed"][:, chosen]}
        _, lowest, low, high, highest = unit_to_hu(intervals.eval()(image[:, chosen], **known)[0], window)
    assert label is not None
    truth = unit_to_hu(label[0, 0], window)
    body = truth > BODY_HU
    held = [((a <= truth) & (truth <= b))[body].float().mean().item() for a, b in ((low, high), (lowest, highest))]
    return [*held, (highest - lowest)[body].mean().item()]


def _row(name: str, scores: Sequence[Sequence[float]]) -> str:
    half, most, width = torch.tensor(scores).mean(dim=0).tolist()
    return f"| {name} | {half:.1%} | {most:.1%} | {width:.0f} HU |"


if __name__ == "__main__":
    fire.Fire(patient_intervals)
