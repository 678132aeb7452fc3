"""One table of every method and baseline on one data set, scored alike."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trct_monai.evaluation.columns import HEADLINE, ranking_column
from trct_monai.evaluation.entries import Entries, Target, named_folders
from trct_monai.evaluation.lesions import LesionLine, format_lesions, planted_options
from trct_monai.evaluation.mean_volume import fit_mean_volume
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.summary import values_by_case
from trct_monai.evaluation.table import STYLES, Line, format_lines
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.files import write_text
from trct_monai.io.locks import alone_in
from trct_monai.metrics.statistics import compare_pairs

SUFFIXES = {"csv": "csv", "markdown": "md", "text": "txt"}
"""Of a table's file, by its style."""


def leaderboard(
    *,
    datalist: str,
    output: str,
    methods: str | None = None,
    bundles: str | None = None,
    baselines: str = "all",
    section: str = "test",
    sort: str = HEADLINE,
    planted: str | None = None,
    planted_methods: str | None = None,
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

    With --planted all of them are run on a data set of `plant` too, and a second table tells what each shows of the
    lesions: OUTPUT/detectability.csv, .md and .txt; predictions and evaluations are in OUTPUT/planted.

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
        planted: Datalist that plant made of the same section.
        planted_methods: Folders of predictions of the planted cases as name=FOLDER, separated by commas, of those in
            --methods; one that is left out has dashes in the second table.
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
    entries = Entries.parse(methods, bundles, baselines)
    main = Target(options, folder, entries.to_read)
    lesions = _planted_target(planted, planted_methods, main, entries.names)
    targets = [main] if lesions is None else [main, lesions]
    for target in targets:
        target.check_given()

    with alone_in(folder):
        entries.predict(targets)
        mean_volume = fit_mean_volume(options, folder)
        evaluated = main.evaluate(entries.names, mean_volume, num_workers)
        summaries = {name: summary for name, (summary, _) in evaluated.items()}
        values = {name: values_by_case(rows, name, sort) for name, (_, rows) in evaluated.items()}
        patients = {case["case_id"]: case.get("patient_id", case["case_id"]) for case in options.cases()}
        lines = compare(summaries, values, patients, set(entries.to_fit), sort)
        tables = {"leaderboard": {kind: format_lines(lines, sort, kind) for kind in STYLES}}
        if lesions is not None:
            names = [name for name in entries.names if name not in entries.to_read or name in lesions.given]
            found = lesions.evaluate(names, mean_volume, num_workers)
            shown = [LesionLine(line, found.get(line["method"], (None,))[0]) for line in lines]
            tables["detectability"] = {kind: format_lesions(shown, kind) for kind in STYLES}
        for name, table in tables.items():
            for kind, suffix in SUFFIXES.items():
                write_text(folder / f"{name}.{suffix}", table[kind] + "\n")
    print("\n\n".join(table[style] for table in tables.values()))
    files = ", ".join(f"{name}.csv, .md, .txt" for name in tables)
    print(f"wrote {folder}: {files}, and an evaluation of each of {len(entries.names)} methods")


def _planted_target(
    planted: str | None, planted_methods: str | None, main: Target, names: Sequence[str]
) -> Target | None:
    """The planted data set, checked; None if there is none.

    Raises:
        ValueError: If it is not made of the main one's cases, or has predictions of a method that is not compared.
    """
    given = named_folders(planted_methods, "planted_methods")
    unknown = [name for name in given if name not in main.given]
    if planted is None and given:
        raise ValueError("--planted_methods are predictions of planted cases; give their datalist with --planted")
    if unknown:
        raise ValueError(f"planted_methods must be among methods, got {', '.join(unknown)}")
    if planted is None:
        return None
    if not given and all(name in main.given for name in names):
        raise ValueError("no method has predictions of the planted cases: give --planted_methods name=FOLDER")
    return Target(planted_options(planted, main.options), main.folder / "planted", given)


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
