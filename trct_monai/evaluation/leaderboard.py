"""One table of every method and baseline on one data set, scored alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_names
from trct_monai.baselines.fitting import BASELINES
from trct_monai.bundles.find import bundle_files
from trct_monai.bundles.overlays import check_overlays
from trct_monai.evaluation.cohort import evaluate_predictions
from trct_monai.evaluation.columns import HEADLINE, ranking_column
from trct_monai.evaluation.mean_volume import check_name, fit_mean_volume
from trct_monai.evaluation.methods import run_baseline, run_bundle
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import prediction_files
from trct_monai.evaluation.summary import values_by_case
from trct_monai.evaluation.table import STYLES, Line, format_lines
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.files import write_text
from trct_monai.io.locks import alone_in
from trct_monai.metrics.statistics import compare_pairs


def leaderboard(
    *,
    datalist: str,
    output: str,
    methods: str | None = None,
    bundles: str | None = None,
    baselines: str = "all",
    section: str = "test",
    sort: str = HEADLINE,
    size: int | None = None,
    resample: bool = False,
    hu_window: Sequence[float] | str = HU_WINDOW,
    style: str = "text",
    num_workers: int = 2,
) -> None:
    """Run or read every method and baseline on one datalist, and print one table, best first.

    Each method has its mean with a 95 % bootstrap interval over patients, its difference from the best baseline with
    the p-value of a paired test, and warnings where it ignores its input, is mirrored or nearly uniform. Writes
    OUTPUT/leaderboard.csv, .md and .txt, the predictions of baselines and bundles, and an evaluation of each method in
    OUTPUT/evaluations. Predictions and scores that are complete are not made again.

    Args:
        datalist: Datalist JSON; baselines learn from its training section and are tuned on its validation section.
        output: Folder for the results.
        methods: Folders of predictions as name=FOLDER, separated by commas; whoever made them.
        bundles: Bundles to run, separated by commas: a name, as direct_regression, or a folder; with overlays, as
            direct_regression+small, whose weights are in the bundle's models/small/ (models/, if there is no such
            folder).
        baselines: Baselines to run, separated by commas; all or none.
        section: Section to score.
        sort: Column of cases.csv by which methods are ranked and tested, such as x2ct.psnr_avg; docs/evaluation.md says
            which value of each is the best.
        size: Voxels along each side of the cube at which all are compared; the size of the CTs if not given.
        resample: Resample predictions on another grid to the CT's, in place of refusing them.
        hu_window: Lowest and highest HU of the headline protocol, as low,high.
        style: What is printed: text, markdown or csv.
        num_workers: Number of processes that score.
    """
    options = EvaluationOptions.parse(datalist, section, hu_window, size, resample)
    folder = Path(output)
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    ranking_column(sort)
    to_read = _named_folders(methods)
    to_run = dict(bundle_files(spec) for spec in parse_names(bundles))
    for config, _ in to_run.values():
        check_overlays(config)
    to_fit = list(BASELINES) if baselines == "all" else [] if baselines == "none" else parse_names(baselines)
    unknown = [name for name in to_fit if name not in BASELINES]
    names = [*to_fit, *to_run, *to_read]
    if unknown:
        raise ValueError(f"baselines must be all, none or out of {', '.join(BASELINES)}, got {', '.join(unknown)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a leaderboard needs methods with different names, got {', '.join(names) or 'none'}")
    for name in names:
        check_name(name)
    cases = options.cases()
    for path in to_read.values():
        prediction_files(path, cases)

    with alone_in(folder):
        folders = dict(to_read)
        for name in to_fit:
            folders[name] = folder / "predictions" / name
            run_baseline(name, options, folders[name])
        for name, (config, weights) in to_run.items():
            folders[name] = folder / "predictions" / name
            run_bundle(name, config, weights, options, folders[name])
        mean_volume = fit_mean_volume(options, folder)
        summaries: dict[str, Mapping[str, Any]] = {}
        values: dict[str, dict[str, float]] = {}
        for name in names:
            evaluation = folder / "evaluations" / name
            summaries[name], rows = evaluate_predictions(
                folders[name], options, evaluation, name, mean_volume, num_workers
            )
            values[name] = values_by_case(rows, name, sort)
        patients = {case["case_id"]: case.get("patient_id", case["case_id"]) for case in cases}
        lines = compare(summaries, values, patients, set(to_fit), sort)
        for suffix, kind in (("csv", "csv"), ("md", "markdown"), ("txt", "text")):
            write_text(folder / f"leaderboard.{suffix}", format_lines(lines, sort, kind) + "\n")
    print(format_lines(lines, sort, style))
    print(f"wrote {folder}: leaderboard.csv, .md, .txt, and an evaluation of each of {len(names)} methods")


def compare(
    summaries: Mapping[str, Mapping[str, Any]],
    values: Mapping[str, Mapping[str, float]],
    patients: Mapping[str, str],
    baselines: set[str],
    sort: str,
) -> list[Line]:
    """The lines of a leaderboard, best first.

    Methods are ranked by the mean of a column, and each is compared with the best baseline, case by case. Where the
    best value of the column is a number, as 0.9 for the coverage of a 90 % interval, distances from it are ranked and
    compared.

    Args:
        summaries: Summary of each method's evaluation.
        values: The values of each method in that column, by case; NaN where one is not defined.
        patients: The patient of each case.
        baselines: Which of the methods are baselines.
        sort: The column.

    Raises:
        ValueError: If there is no such column, or a method has no value of it.
    """
    column = ranking_column(sort)
    for name, summary in summaries.items():
        if sort not in summary["metrics"][name]:
            known = ", ".join(summary["metrics"][name])
            raise ValueError(f"{name} has no value of {sort!r} to sort by; choose one of {known}")
    order = sorted(summaries, key=lambda name: column.loss(summaries[name]["metrics"][name][sort]["mean"]))
    best = next((name for name in order if name in baselines), None)
    lines = []
    for name in order:
        summary = summaries[name]
        line: Line = {
            "method": name,
            "kind": "baseline" if name in baselines else "method",
            "cases": summary["num_cases"],
            "metrics": summary["metrics"][name],
            "skill": summary["skill"],
            "conditioning": summary["conditioning"],
            "warnings": [flag["name"] for flag in summary["flags"]],
            "over_best_baseline": None,
            "p_value": None,
            "best_baseline": best,
        }
        if best is not None and name != best:
            own, other = (
                {case: column.comparable(value) for case, value in values[method].items()} for method in (name, best)
            )
            difference, line["p_value"] = compare_pairs(own, other, patients)
            line["over_best_baseline"] = difference and asdict(difference)
        lines.append(line)
    return lines


def _named_folders(methods: str | None) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for part in parse_names(methods):
        name, equals, path = part.partition("=")
        if not (name and equals and path) or name in folders:
            raise ValueError(f"methods must be name=FOLDER with different names, separated by commas, got {methods!r}")
        folders[name] = Path(path)
    return folders
