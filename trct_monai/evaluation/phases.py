"""Score predicted phases against a datalist of pairs, beside the identity: the time average as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor

from trct_monai import __version__
from trct_monai.datasets.driver import run_cases
from trct_monai.datasets.phase_slices import load_phases
from trct_monai.evaluation.predictions import PLACE_TOLERANCE, prediction_file
from trct_monai.evaluation.summary import number_or_nan
from trct_monai.figures import phase_figure, save_figure
from trct_monai.io.files import read_json, write_csv, write_json
from trct_monai.io.nifti import read_volume
from trct_monai.io.provenance import digest_file
from trct_monai.metrics import Estimate, bootstrap_mean, paired_test
from trct_monai.metrics.lpips import lpips_score
from trct_monai.metrics.motion import moving_region, phase_scores

IDENTITY = "identity"

COLUMNS = {
    "mae_moving": ("MAE where it moves (HU)", ".1f"),
    "ssim_moving": ("SSIM where it moves", ".3f"),
    "mae_still": ("MAE elsewhere (HU)", ".1f"),
    "ssim_still": ("SSIM elsewhere", ".3f"),
    "psnr": ("PSNR (dB)", ".2f"),
    "diaphragm_mm": ("diaphragm (mm)", ".2f"),
    "heart_mm": ("heart and other lung borders (mm)", ".2f"),
    "flicker": ("flicker (HU)", ".2f"),
    "lpips": ("LPIPS", ".4f"),
}
"""Columns of the table: title and format; `phase_scores` says what they are."""

HARM_HU = 1.0
"""A larger error than the identity's, by more than this, where nothing moves is warned of."""


def evaluate_phases(
    predictions: str,
    datalist: str,
    output: str,
    *,
    section: str,
    hu_window: Sequence[float],
    name: str,
    figures: int,
    num_workers: int,
    lpips: bool = False,
) -> None:
    """Score every pair, write cases.csv, summary.json and pictures, and print the table.

    Args:
        predictions: Folder with CASE_ID.nii.gz for each pair, on the grid of its CTs.
        datalist: Datalist of pairs.
        output: Folder for the results.
        section: Section to score.
        hu_window: Lowest and highest HU.
        name: What the predictions are called.
        figures: Number of pairs to draw.
        num_workers: Number of processes.
        lpips: Measure LPIPS too.

    Raises:
        FileNotFoundError: If a prediction is missing.
        ValueError: If one lies on another grid, of which the first is named, or the package for LPIPS is missing.
    """
    if name == IDENTITY:
        raise ValueError(f"name must be another than {IDENTITY!r}, which stands beside it in the table")
    cases, folder = load_phases(datalist, section), Path(output)
    files = {case["case_id"]: prediction_file(predictions, case["case_id"]) for case in cases}
    kept = folder / "scores"
    kept.mkdir(parents=True, exist_ok=True)
    work = partial(_score, files=files, hu_window=tuple(hu_window), kept=kept, lpips=lpips)
    refused = run_cases(work, [(case["case_id"], case) for case in cases], num_workers=num_workers, description=name)
    if refused:
        raise ValueError(f"{len(refused)} of {len(cases)} predictions cannot be compared; {refused[0][1]}")
    rows: list[dict[str, Any]] = []
    for case in cases:
        page = read_json(kept / f"{case['case_id']}.json")
        rows += [{"method": m, "case_id": case["case_id"], **page[k]} for m, k in ((name, "scores"), (IDENTITY,) * 2)]
    patients = [case["patient_id"] for case in cases]
    metrics: dict[str, dict[str, Any]] = {}
    columns = [column for column in COLUMNS if column in rows[0]]
    for method in (name, IDENTITY):
        own = [row for row in rows if row["method"] == method]
        estimates = {c: bootstrap_mean([number_or_nan(row[c]) for row in own], patients) for c in columns}
        metrics[method] = {c: None if estimate is None else asdict(estimate) for c, estimate in estimates.items()}
    tests = {column: _p_value(rows, name, column, patients) for column in columns}
    summary = {
        "tool": f"trct_monai {__version__}",
        "task": "phases",
        "name": name,
        "predictions": str(Path(predictions).absolute()),
        "datalist": str(Path(datalist).absolute()),
        "section": section,
        "hu_window": list(hu_window),
        "num_cases": len(cases),
        "metrics": metrics,
        "p_values_against_identity": tests,
        "warnings": _warnings(metrics, name),
    }
    write_csv(folder / "cases.csv", rows)
    write_json(folder / "summary.json", summary)
    for case in cases[:figures]:
        _draw(case, files[case["case_id"]], name, folder)
    print(format_phases(summary))
    print(f"wrote {folder}: cases.csv, summary.json, {min(figures, len(cases))} figures")


def format_phases(summary: Mapping[str, Any]) -> str:
    """The scores as a Markdown table, a column for each method, and the warnings."""
    methods = list(summary["metrics"])
    lines = [f"| | {' | '.join(methods)} | p |", "|---" * (len(methods) + 2) + "|"]
    for column in summary["metrics"][methods[0]]:
        title, number = COLUMNS[column]
        cells = []
        for method in methods:
            values = summary["metrics"][method][column]
            estimate = None if values is None else Estimate(**values)
            cells.append("-" if estimate is None else _interval(estimate, number))
        p = summary["p_values_against_identity"][column]
        lines.append(f"| {title} | {' | '.join(cells)} | {'-' if p is None else f'{p:.2g}'} |")
    lines += [f"WARNING: {warning}" for warning in summary["warnings"]]
    return "\n".join(lines)


def _interval(estimate: Estimate, number: str) -> str:
    mean, low, high = (format(value, number) for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} ({low} to {high})"


def _warnings(metrics: Mapping[str, Any], name: str) -> list[str]:
    own, identity = metrics[name], metrics[IDENTITY]
    lines = []
    if own["mae_moving"] and own["mae_moving"]["mean"] >= identity["mae_moving"]["mean"]:
        lines.append(f"{name} is no better than the identity where it moves")
    if own["mae_still"] and own["mae_still"]["mean"] > identity["mae_still"]["mean"] + HARM_HU:
        lines.append(
            f"{name} does harm where nothing moves: {own['mae_still']['mean']:.1f} HU, "
            f"the identity {identity['mae_still']['mean']:.1f}"
        )
    return lines


def _p_value(rows: Sequence[Mapping[str, Any]], name: str, column: str, patients: Sequence[str]) -> float | None:
    pairs = [[number_or_nan(row[column]) for row in rows if row["method"] == method] for method in (name, IDENTITY)]
    if not all(isfinite(value) for values in pairs for value in values) or len(set(patients)) < 2:
        return None
    p = paired_test(pairs[0], pairs[1], patients)
    return p if isfinite(p) else None


def _score(
    case: dict[str, str], *, files: Mapping[str, Path], hu_window: Sequence[float], kept: Path, lpips: bool
) -> str:
    """Score one pair into its file; returns why it cannot be."""
    path, target = files[case["case_id"]], kept / f"{case['case_id']}.json"
    inputs = [digest_file(Path(file)) for file in (path, case["image"], case["label"])] + [
        list(hu_window),
        __version__,
        lpips,
    ]
    if target.is_file() and read_json(target).get("inputs") == inputs:
        return ""
    try:
        prediction, phase, average = _load(case, path)
        shown = (prediction, average) if lpips else ()
        perceived = [lpips_score(ct[0].numpy(), phase[0].numpy(), hu_window) for ct in shown]
    except (ValueError, OSError) as error:
        return str(error)
    spacing = [float(side) for side in phase.pixdim]
    truth, before = phase[0].numpy(), average[0].numpy()
    page: dict[str, Any] = {"inputs": inputs}
    for number, (key, volume) in enumerate((("scores", prediction[0].numpy()), (IDENTITY, before))):
        scores = phase_scores(volume, truth, before, hu_window, spacing)
        if perceived:
            scores["lpips"] = perceived[number]
        page[key] = {column: value if isfinite(value) else None for column, value in scores.items()}
    write_json(target, page)
    return ""


def _load(case: Mapping[str, str], path: Path) -> tuple[MetaTensor, MetaTensor, MetaTensor]:
    """Prediction, phase and time average in HU on one grid.

    Raises:
        ValueError: If the prediction lies elsewhere.
    """
    prediction, phase, average = (read_volume(file) for file in (path, case["label"], case["image"]))
    apart = np.abs((prediction.affine - phase.affine).numpy()).max()
    if prediction.shape != phase.shape or apart > PLACE_TOLERANCE:
        raise ValueError(
            f"{path} lies on another grid than {case['label']}: expected shape {tuple(phase.shape[1:])}, "
            f"got {tuple(prediction.shape[1:])}, affines differ by up to {apart:.3g}"
        )
    return prediction, phase, average


def _draw(case: Mapping[str, str], path: Path, name: str, folder: Path) -> None:
    prediction, phase, average = _load(case, path)
    moving = moving_region(average[0].numpy(), phase[0].numpy())
    where = [int(moving.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)]
    figure = phase_figure(average[0], phase[0], prediction[0], where, title=f"{case['case_id']}: {name}")
    save_figure(figure, folder / f"{case['case_id']}.png")
