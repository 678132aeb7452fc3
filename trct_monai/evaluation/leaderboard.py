"""One table of every method and baseline on one data set, scored alike."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite, nan
from pathlib import Path
from typing import Any

from trct_monai.baselines.fitting import BASELINES
from trct_monai.bundles.find import bundle_files
from trct_monai.evaluation.cohort import Options, evaluate_predictions, fit_mean_volume, prediction_files
from trct_monai.evaluation.methods import run_baseline, run_bundle
from trct_monai.evaluation.summary import COLUMNS, HEADLINE, format_estimate
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.files import write_text
from trct_monai.metrics.statistics import bootstrap_mean, paired_test

LOWER_IS_BETTER = ("mae", "lung_volume_error", "equivalent_blur", "reprojection", "held_out_view", "width")
"""Beginnings of the names of columns whose best value is the lowest; of every other it is the highest."""


STYLES = ("text", "markdown", "csv")


Line = dict[str, Any]


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
    OUTPUT/leaderboard.csv, .md and .txt, the predictions of what was run, and an evaluation of each method in
    OUTPUT/evaluations. What is there already is not run again.

    Args:
        datalist: Datalist JSON; baselines learn from its training section and are tuned on its validation section.
        output: Folder for the results.
        methods: Folders of predictions as name=FOLDER, separated by commas; whoever made them.
        bundles: Bundles to run, separated by commas: a name, as direct_regression, or a folder; with overlays, as
            direct_regression+small, whose weights lie in the bundle's models/small/ (models/, if there is no such
            folder).
        baselines: Baselines to run, separated by commas; all or none.
        section: Section to score.
        sort: Column of cases.csv by which the table is sorted and the methods are tested, such as x2ct.psnr_avg.
        size: Voxels along each side of the cube at which all are compared; the size of the CTs if not given.
        resample: Bring predictions that lie on another grid to the CT's, in place of refusing them.
        hu_window: Lowest and highest HU of the headline protocol, as low,high.
        style: What is printed: text, markdown or csv.
        num_workers: Number of processes that score.
    """
    options = Options.parse(datalist, section, hu_window, size, resample)
    folder = Path(output)
    if style not in STYLES:
        raise ValueError(f"style must be one of {', '.join(STYLES)}, got {style!r}")
    to_read = _named_folders(methods)
    to_run = dict(bundle_files(spec) for spec in _listed(bundles))
    to_fit = list(BASELINES) if baselines == "all" else [] if baselines == "none" else _listed(baselines)
    unknown = [name for name in to_fit if name not in BASELINES]
    names = [*to_fit, *to_run, *to_read]
    if unknown:
        raise ValueError(f"baselines must be all, none or out of {', '.join(BASELINES)}, got {', '.join(unknown)}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"a leaderboard needs methods with different names, got {', '.join(names) or 'none'}")
    for path in to_read.values():
        prediction_files(path, options)

    places = dict(to_read)
    for name in to_fit:
        places[name] = folder / "predictions" / name
        run_baseline(name, options, places[name])
    for name, (config, weights) in to_run.items():
        places[name] = folder / "predictions" / name
        run_bundle(name, config, weights, options, places[name])
    mean_volume = fit_mean_volume(options, folder)
    summaries: dict[str, Mapping[str, Any]] = {}
    values: dict[str, dict[str, float]] = {}
    for name in names:
        place = folder / "evaluations" / name
        summaries[name], rows = evaluate_predictions(places[name], options, place, name, mean_volume, num_workers)
        own = [row for row in rows if row["method"] == name]
        values[name] = {row["case_id"]: nan if row.get(sort) is None else row[sort] for row in own}
    patients = {case["case_id"]: case.get("patient_id", case["case_id"]) for case in options.cases()}
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

    Args:
        summaries: Summary of each method's evaluation.
        values: The sorted column of each method, by case.
        patients: Whose case it is.
        baselines: Which of the methods are baselines; the best of them is what the others are tested against.
        sort: The column that counts.

    Raises:
        ValueError: If a method has no such column.
    """
    for name, summary in summaries.items():
        if sort not in summary["metrics"][name]:
            known = ", ".join(summary["metrics"][name])
            raise ValueError(f"{name} has no value of {sort!r} to sort by; choose one of {known}")
    sign = -1.0 if sort.rpartition(".")[2].startswith(LOWER_IS_BETTER) else 1.0

    def merit(name: str) -> float:
        return sign * float(summaries[name]["metrics"][name][sort]["mean"])

    order = sorted(summaries, key=merit, reverse=True)
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
            both = [case for case in patients if isfinite(values[name][case] - values[best][case])]
            own, other = ([values[which][case] for case in both] for which in (name, best))
            whose = [patients[case] for case in both]
            difference = bootstrap_mean([a - b for a, b in zip(own, other)], whose)
            line["over_best_baseline"] = difference and asdict(difference)
            line["p_value"] = paired_test(own, other, whose)
        lines.append(line)
    return lines


def format_lines(lines: Sequence[Line], sort: str, style: str) -> str:
    """The table: ``text`` in aligned columns, ``markdown``, or ``csv`` with every column and the intervals' ends."""
    if style == "csv":
        return _as_csv(lines)
    shown = {sort: (sort, ".4g"), **COLUMNS} if sort not in COLUMNS else dict(COLUMNS)
    best = lines[0]["best_baseline"]
    titles = ["method", *(title for title, _ in shown.values()), "skill", "bone Dice", "reprojection"]
    titles += ["own truth's rank", "shuffling costs"]
    titles += [f"over {best} in {shown[sort][0]}", "p"] if best else []
    table = [[*titles, "warnings"]]
    for line in lines:
        metrics, probe = line["metrics"], line["conditioning"]
        cells = [line["method"] + (" (baseline)" if line["kind"] == "baseline" else "")]
        cells += [format_estimate(metrics[column], number) for column, (_, number) in shown.items()]
        cells.append(f"{line['skill']['mean']:.2f}" if line["skill"] else "")
        cells.append(f"{metrics['dice_bone']['mean']:.2f}")
        cells.append(f"{metrics['reprojection']['mean']:.1%}" if "reprojection" in metrics else "")
        cells.append(f"{probe['own_truth_rank']:.1f} of {probe['num_cases']}" if probe else "")
        cells.append(f"{probe['shuffled_psnr_drop']:.2f} dB" if probe else "")
        if best:
            difference, p = line["over_best_baseline"], line["p_value"]
            cells.append(format_estimate(difference, f"+{shown[sort][1]}") if difference else "")
            cells.append("" if p is None else "< .001" if p < 1e-3 else f"{p:.3f}")
        table.append([*cells, ", ".join(line["warnings"])])
    if style == "markdown":
        table.insert(1, ["---"] * len(table[0]))
        return "\n".join(f"| {' | '.join(row)} |" for row in table)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table)


def _listed(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _named_folders(methods: str | None) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for part in _listed(methods):
        name, equals, path = part.partition("=")
        if not (name and equals and path) or name in folders:
            raise ValueError(f"methods must be name=FOLDER with different names, separated by commas, got {methods!r}")
        folders[name] = Path(path)
    return folders


def _as_csv(lines: Sequence[Line]) -> str:
    columns = dict.fromkeys(column for line in lines for column in line["metrics"])
    table = []
    for line in lines:
        row = {"method": line["method"], "kind": line["kind"], "cases": line["cases"]}
        for column in columns:
            for end in ("mean", "low", "high"):
                row[column if end == "mean" else f"{column}.{end}"] = line["metrics"].get(column, {}).get(end)
        row["skill"] = line["skill"] and line["skill"]["mean"]
        row.update({key: value for key, value in (line["conditioning"] or {}).items() if key != "num_cases"})
        for end in ("mean", "low", "high"):
            row[f"over_best_baseline.{end}"] = line["over_best_baseline"] and line["over_best_baseline"][end]
        table.append({**row, "p_value_paired": line["p_value"], "warnings": "; ".join(line["warnings"])})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in table for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue().rstrip("\n")
