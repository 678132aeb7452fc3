"""The lines of a leaderboard as text, Markdown or CSV."""

from collections.abc import Sequence
from typing import Any

from trct_monai.evaluation.columns import COLUMNS
from trct_monai.evaluation.summary import PRINTED, format_estimate
from trct_monai.io.files import format_csv

STYLES = ("text", "markdown", "csv")

Line = dict[str, Any]
"""A method: its name and kind, means by column, conditioning, warnings, difference from the best baseline."""


def format_lines(lines: Sequence[Line], sort: str, style: str) -> str:
    """The table: ``text`` in aligned columns, ``markdown``, or ``csv`` with every column and the intervals' ends.

    Args:
        lines: What `compare` gives.
        sort: The column by which they are ranked.
        style: One of `STYLES`.
    """
    if style == "csv":
        return _as_csv(lines)
    return format_cells(_cells(lines, sort), style)


def format_cells(table: Sequence[Sequence[str]], style: str) -> str:
    """Rows of cells, the titles first, as ``text`` in aligned columns or as ``markdown``."""
    if style == "markdown":
        rows = [table[0], ["---"] * len(table[0]), *table[1:]]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in table)


def title_of(line: Line) -> str:
    """What a method is called in a table."""
    return str(line["method"]) + (" (baseline)" if line["kind"] == "baseline" else "")


def _cells(lines: Sequence[Line], sort: str) -> list[list[str]]:
    """Titles, and a row of cells for each line."""
    shown = PRINTED if sort in PRINTED else (sort, *PRINTED)
    number, best = COLUMNS[sort].number, lines[0]["best_baseline"]
    titles = ["method", *(COLUMNS[column].title or column for column in shown), "skill", "bone Dice", "reprojection"]
    titles += ["rank of the matching CT", "PSNR drop when radiographs are shuffled"]
    if best:
        titles += [_difference_title(best, sort), "p"]
    table = [[*titles, "warnings"]]
    for line in lines:
        metrics, probe, num_cases = line["metrics"], line["conditioning"], line["cases"]
        cells = [title_of(line)]
        cells += [format_estimate(metrics[column], COLUMNS[column].number, num_cases) for column in shown]
        cells.append(f"{line['skill']['mean']:.2f}" if line["skill"] else "")
        cells.append(f"{metrics['dice_bone']['mean']:.2f}")
        cells.append(f"{metrics['reprojection']['mean']:.1%}" if "reprojection" in metrics else "")
        cells.append(f"{probe['matching_rank']:.1f} of {probe['num_cases']}" if probe else "")
        cells.append(f"{probe['shuffled_psnr_drop']:.2f} dB" if probe else "")
        if best:
            difference, p = line["over_best_baseline"], line["p_value"]
            cells.append(format_estimate(difference, f"+{number}", num_cases) if difference else "")
            cells.append("" if p is None else "< .001" if p < 1e-3 else f"{p:.3f}")
        table.append([*cells, ", ".join(line["warnings"])])
    return table


def _difference_title(best: str, sort: str) -> str:
    column = COLUMNS[sort]
    if column.best in ("highest", "lowest"):
        return f"over {best} in {column.title or sort}"
    return f"over {best} in the distance of {sort} from {column.best:g}"


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
        for end in ("mean", "low", "high", "cases"):
            row[f"over_best_baseline.{end}"] = line["over_best_baseline"] and line["over_best_baseline"][end]
        table.append({**row, "p_value_paired": line["p_value"], "warnings": "; ".join(line["warnings"])})
    return format_csv(table).rstrip("\n")
