"""Score a folder of predicted CTs, whoever made them, beside the mean of the training volumes."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage
from torch import Tensor
from tqdm import tqdm

from trct_monai.baselines import MeanVolume
from trct_monai.data.batch import parse_numbers
from trct_monai.data.datalist import load_datalist, write_atomically
from trct_monai.figures import comparison_figure, save_figure
from trct_monai.geometry import Camera
from trct_monai.intensity import HU_WINDOW, check_hu_window, hu_to_attenuation, unit_to_hu
from trct_monai.metrics import hu_protocol
from trct_monai.projector import project
from trct_monai.transforms import CTPreprocessing, LoadRadiographsd

METRICS = ("psnr", "ssim", "mae")
UNITS = {"psnr": "dB", "ssim": "", "mae": "HU"}


def evaluate(
    *,
    predictions: str,
    datalist: str,
    output: str,
    section: str = "test",
    hu_window: Sequence[float] | str = HU_WINDOW,
    name: str = "prediction",
    figures: int = 3,
) -> None:
    """Score predicted CTs against a datalist and print a table with the mean-volume baseline beside it.

    Writes OUTPUT/cases.csv (one line for each method and case), OUTPUT/summary.json and pictures of the first cases.
    Whole-volume PSNR, SSIM (7 x 7 x 7) and MAE in HU of the window, both volumes clipped to it.

    Args:
        predictions: Folder with one NIfTI in HU for each case: CASE_ID.nii.gz, or a file in a folder CASE_ID.
        datalist: Datalist JSON with the truths; its `training` section gives the mean volume.
        output: Folder for the results.
        section: Section of the datalist to score.
        hu_window: Lowest and highest HU, as low,high.
        name: What the predictions are called in the table.
        figures: Number of cases to draw: truth, prediction and difference in three planes, radiographs, reprojections.
    """
    if isinstance(hu_window, str):
        hu_window = parse_numbers(hu_window.replace(",", "/"), 2, "hu_window")
    hu_window = check_hu_window(hu_window)
    cases = load_datalist(datalist, section)
    if not cases:
        raise ValueError(f"{datalist}: section {section!r} has no case to score")
    files = {case["case_id"]: _prediction_file(Path(predictions), case["case_id"]) for case in cases}
    baseline: MeanVolume | None = None
    rows: list[dict[str, Any]] = []
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    for case in tqdm(cases, desc="evaluate", unit="case"):
        prediction = _load_hu(files[case["case_id"]])
        truth = _truth_like(case, prediction, files[case["case_id"]], hu_window)
        if baseline is None:
            baseline = MeanVolume(truth.shape[-1]).fit(_training_volumes(datalist, truth.shape[-1], hu_window))
        mean_hu = unit_to_hu(baseline.volume[0], hu_window)
        for method, volume in ((name, prediction), ("mean volume", mean_hu)):
            rows.append({"method": method, "case_id": case["case_id"], **score(volume, truth, hu_window)})
        if len(rows) <= 2 * figures:
            _draw(case, prediction, truth, f"{case['case_id']}: {name}, {rows[-2]['psnr']:.1f} dB", folder)
    summary = summarize(rows)
    _write_csv(rows, folder / "cases.csv")
    page = {"hu_window": hu_window, "methods": summary}
    write_atomically(folder / "summary.json", json.dumps(page, indent=2) + "\n")
    print(format_table(summary))
    print(f"wrote {folder}: cases.csv ({len(cases)} cases), summary.json, {min(figures, len(cases))} figures")


def score(prediction_hu: Tensor, truth_hu: Tensor, hu_window: Sequence[float] = HU_WINDOW) -> dict[str, float]:
    """PSNR (dB), SSIM and MAE (HU) of one volume (1, X, Y, Z) in HU, by the `hu` protocol."""
    scores = hu_protocol(hu_window)(*(volume[0].detach().cpu().numpy() for volume in (prediction_hu, truth_hu)))
    return {"psnr": scores["psnr_3d"], "ssim": scores["ssim"], "mae": scores["mae"]}


def summarize(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean and standard deviation over cases of every metric, by method."""
    methods = dict.fromkeys(row["method"] for row in rows)
    summary: dict[str, dict[str, float]] = {}
    for method in methods:
        own = [row for row in rows if row["method"] == method]
        summary[method] = {"cases": len(own)}
        for metric in METRICS:
            values = [row[metric] for row in own]
            summary[method][metric] = mean(values)
            summary[method][f"{metric}_std"] = stdev(values) if len(values) > 1 else 0.0
    return summary


def format_table(summary: dict[str, dict[str, float]]) -> str:
    """The summary as a Markdown table, best PSNR first."""
    lines = ["| method | cases | PSNR (dB) | SSIM | MAE (HU) |", "|---|---|---|---|---|"]
    for method, values in sorted(summary.items(), key=lambda item: -item[1]["psnr"]):
        lines.append(
            f"| {method} | {values['cases']:.0f} | {values['psnr']:.2f} ± {values['psnr_std']:.2f} "
            f"| {values['ssim']:.3f} ± {values['ssim_std']:.3f} | {values['mae']:.1f} ± {values['mae_std']:.1f} |"
        )
    return "\n".join(lines)


def _draw(case: dict[str, Any], prediction: MetaTensor, truth: Tensor, title: str, folder: Path) -> None:
    radiographs = LoadRadiographsd()({key: case[key] for key in case if key != "label"})["image"]
    size = (radiographs.shape[-2], radiographs.shape[-1])
    cameras = [Camera.from_dict(camera).resized(size) for camera in case["cameras"]]
    spacing = float(prediction.pixdim[0])
    reprojections = project(hu_to_attenuation(prediction.as_tensor())[None], cameras, spacing)[0]
    figure = comparison_figure(
        truth[0],
        prediction[0],
        radiographs,
        reprojections,
        view_names=[camera.name for camera in cameras],
        voxel_spacing=spacing,
        title=title,
    )
    save_figure(figure, folder / f"{case['case_id']}.png")


def _prediction_file(folder: Path, case_id: str) -> Path:
    found = sorted({*folder.glob(f"{case_id}.nii*"), *(folder / case_id).glob("*.nii*")})
    if len(found) != 1:
        what = "none" if not found else ", ".join(str(path) for path in found)
        raise ValueError(f"expected one file {folder / case_id}.nii.gz or in {folder / case_id}/, found {what}")
    return found[0]


def _load_hu(path: Path) -> MetaTensor:
    volume: MetaTensor = LoadImage(reader="NibabelReader", ensure_channel_first=True)(path)
    if volume.ndim != 4 or len(set(volume.shape[1:])) != 1 or not bool(torch.isfinite(volume).all()):
        raise ValueError(f"{path} must be a finite cube (X, X, X) in HU, got shape {tuple(volume.shape[1:])}")
    return volume


def _truth_like(case: dict[str, Any], prediction: MetaTensor, path: Path, hu_window: Sequence[float]) -> Tensor:
    """The case's CT in HU on the prediction's grid; another place, size or orientation is refused."""
    label: MetaTensor = LoadImage(reader="NibabelReader", ensure_channel_first=True)(case["label"])
    truth: MetaTensor = _protocol(label, prediction.shape[-1], hu_window)(label)
    if not torch.allclose(truth.affine.double(), prediction.affine.double(), atol=1e-2):
        raise ValueError(
            f"{path} lies elsewhere than its CT: expected the affine {_row(truth.affine)}, got "
            f"{_row(prediction.affine)}; write predictions with the CT's affine"
        )
    return unit_to_hu(truth, hu_window)


def _protocol(label: MetaTensor, size: int, hu_window: Sequence[float]) -> CTPreprocessing:
    """The protocol that brings a prepared CT, a cube already, to another size."""
    return CTPreprocessing(size, float(label.pixdim[0]) * label.shape[1], hu_window)


def _row(affine: Tensor) -> str:
    return str([round(value, 2) for value in affine[:3].flatten().tolist()])


def _training_volumes(datalist: str, size: int, hu_window: Sequence[float]) -> Iterator[Tensor]:
    for case in tqdm(load_datalist(datalist, "training"), desc="mean volume", unit="case"):
        label: MetaTensor = LoadImage(reader="NibabelReader", ensure_channel_first=True)(case["label"])
        yield _protocol(label, size, hu_window)(label)


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    partial = path.with_suffix(".partial")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=["method", "case_id", *METRICS])
        writer.writeheader()
        writer.writerows(rows)
    partial.replace(path)
