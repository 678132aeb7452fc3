"""Score predicted phases against a datalist of pairs, beside the identity: the time average as it is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from monai.data import MetaTensor

from trct_monai import __version__
from trct_monai.datasets.phase_slices import load_phases
from trct_monai.evaluation.driver import score_cases
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import check_grid, check_scale, prediction_files
from trct_monai.evaluation.summary import format_estimate, mean_scores, values_by_case
from trct_monai.figures import phase_figure, save_figure
from trct_monai.io.datalist import PHASES
from trct_monai.io.files import write_csv, write_json
from trct_monai.io.nifti import read_volume
from trct_monai.io.provenance import Stamp, digest_file, make_stamp
from trct_monai.metrics import compare_pairs
from trct_monai.metrics.lpips import lpips_score
from trct_monai.metrics.motion import moving_region, phase_scores

IDENTITY = "identity"

PHASE_COLUMNS = {
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
"""Title and format of the columns of cases.csv, in the order of the table; `phase_scores` explains them."""

HARM_HU = 1.0
"""An error where nothing moves that is larger than the identity's by more than this is warned of."""

Job = tuple[dict[str, str], Path]
"""A pair, and its prediction."""


def evaluate_phases(
    predictions: str,
    options: EvaluationOptions,
    folder: Path,
    name: str,
    *,
    figures: int,
    num_workers: int,
    lpips: bool = False,
) -> None:
    """Score every pair, write cases.csv, summary.json and pictures, and print the table.

    Args:
        predictions: Folder with CASE_ID.nii.gz for each pair, on the grid of its CTs.
        options: Datalist of pairs, section and window.
        folder: Where the results go.
        name: What the predictions are called.
        figures: Number of pairs to draw.
        num_workers: Number of processes.
        lpips: Measure LPIPS too.

    Raises:
        FileNotFoundError: If a prediction is missing.
        ValueError: If one is on another grid, of which the first is named, or the package for LPIPS is missing.
    """
    if name == IDENTITY:
        raise ValueError(f"name must not be {IDENTITY!r}, which stands beside it in the table")
    cases = load_phases(options.datalist, options.section)
    files = prediction_files(predictions, cases)
    jobs = [(case["case_id"], (case, files[case["case_id"]])) for case in cases]
    measure = partial(_measure, hu_window=options.hu_window, lpips=lpips)
    stamp = partial(_stamp, hu_window=options.hu_window, lpips=lpips)
    rows = score_cases(jobs, measure, stamp, (name, IDENTITY), folder, num_workers)
    patients = {case["case_id"]: case["patient_id"] for case in cases}
    columns = [column for column in PHASE_COLUMNS if column in rows[0]]
    metrics = {
        method: {column: None if (mean := means[column]) is None else asdict(mean) for column in columns}
        for method, means in mean_scores(rows, patients).items()
    }
    tests = {}
    for column in columns:
        own, identity = (values_by_case(rows, method, column) for method in (name, IDENTITY))
        tests[column] = compare_pairs(own, identity, patients)[1]
    summary = {
        "tool": f"trct_monai {__version__}",
        "task": PHASES,
        "name": name,
        "predictions": str(Path(predictions).absolute()),
        "datalist": options.datalist,
        "section": options.section,
        "hu_window": options.hu_window,
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
        title, number = PHASE_COLUMNS[column]
        means = [summary["metrics"][method][column] for method in methods]
        cells = ["-" if mean is None else format_estimate(mean, number, summary["num_cases"]) for mean in means]
        p = summary["p_values_against_identity"][column]
        lines.append(f"| {title} | {' | '.join(cells)} | {'-' if p is None else f'{p:.2g}'} |")
    lines += [f"WARNING: {warning}" for warning in summary["warnings"]]
    return "\n".join(lines)


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


def _stamp(job: Job, *, hu_window: Sequence[float], lpips: bool) -> Stamp:
    case, path = job
    files = (("prediction", path), ("average", Path(case["image"])), ("phase", Path(case["label"])))
    options = {"hu_window": hu_window, "lpips": lpips, "software": __version__}  # scores may change with the software
    return make_stamp({name: digest_file(file) for name, file in files}, options)


def _measure(job: Job, *, hu_window: Sequence[float], lpips: bool) -> list[dict[str, float]]:
    """The scores of a prediction, and of the time average in its place."""
    prediction, phase, average = _load(*job)
    spacing = [float(side) for side in phase.pixdim]
    truth, identity = phase[0].numpy(), average[0].numpy()
    volumes = (prediction[0].numpy(), identity)
    # First what may not be installed: the other scores take longer.
    perceived = [{"lpips": lpips_score(volume, truth, hu_window)} if lpips else {} for volume in volumes]
    scores = [phase_scores(volume, truth, identity, hu_window, spacing) for volume in volumes]
    return [one | two for one, two in zip(scores, perceived)]


def _load(case: Mapping[str, str], path: Path) -> tuple[MetaTensor, MetaTensor, MetaTensor]:
    """Prediction, phase and time average in HU on one grid.

    Raises:
        ValueError: If the prediction is on another, or not in HU.
    """
    prediction, phase, average = (read_volume(file) for file in (path, case["label"], case["image"]))
    check_grid(prediction, phase, path)
    check_scale(prediction, phase, path)
    return prediction, phase, average


def _draw(case: Mapping[str, str], path: Path, name: str, folder: Path) -> None:
    prediction, phase, average = _load(case, path)
    moving = moving_region(average[0].numpy(), phase[0].numpy())
    index = [int(moving.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3)]
    figure = phase_figure(average[0], phase[0], prediction[0], index, title=f"{case['case_id']}: {name}")
    save_figure(figure, folder / f"{case['case_id']}.png")
