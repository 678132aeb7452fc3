"""`report`: from an evaluation's folder to one HTML file."""

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tqdm import tqdm

from trct_monai.evaluation.cohort import FORMAT, FORMAT_VERSION
from trct_monai.evaluation.columns import HEADLINE
from trct_monai.evaluation.report.case import encode_case
from trct_monai.evaluation.report.lesions import choose_lesions, encode_lesion
from trct_monai.io.datalist import PHASES, load_datalist
from trct_monai.io.files import read_csv, read_json, write_text
from trct_monai.io.locks import alone_at

SCRIPTS = ("pictures.js", "tables.js", "viewer.js", "lesions.js")
"""The viewer, each part using the ones before it."""

NO_PLOTLY = "report needs plotly, the library that draws its pages: pip install 'trct_monai[report]'"


def report(
    *,
    evaluation: str,
    output: str | None = None,
    leaderboard: str | None = None,
    size: int = 64,
    max_cases: int | None = None,
    lesions: int = 4,
) -> None:
    """Write an evaluation as one HTML file that needs nothing else: no network, no server, no other file.

    Tables, warnings, the cases sorted by their error, and for each of them truth, prediction and difference in three
    planes to scroll through, with windows for lung, soft tissue and bone, the radiographs beside the prediction's
    projections, and histograms. The file lists its keys.

    Of a data set of planted spheres it also shows slices through some of them, with the sphere and without it, beside
    the radiographs; their place is marked when the reader asks for it.

    Args:
        evaluation: Folder that evaluate wrote.
        output: File to write; EVALUATION/report.html if not given.
        leaderboard: A leaderboard.csv to show as well.
        size: Most voxels along each side that are shown; finer volumes are averaged down.
        max_cases: Show only this many cases, the worst first.
        lesions: Number of planted spheres to show; the largest diameter and the middle contrast first.
    """
    if size < 1 or (max_cases is not None and max_cases < 1):
        raise ValueError(f"size and max_cases must be at least 1, got {size} and {max_cases}")
    if lesions < 0:
        raise ValueError(f"lesions must not be negative, got {lesions}")
    folder = Path(evaluation)
    summary, rows = read_evaluation(folder)
    target = folder / "report.html" if output is None else Path(output)
    plotly = _plotly()
    board = None if leaderboard is None else read_csv(leaderboard)
    cases = {case["case_id"]: case for case in load_datalist(summary["datalist"], summary["section"])}
    own = [row for row in rows if row["method"] == summary["name"]]
    own.sort(key=lambda row: float(row[HEADLINE] or "-inf"))
    unknown = [row["case_id"] for row in own if row["case_id"] not in cases]
    if unknown:
        raise ValueError(f"{summary['datalist']} has no case {unknown[0]} any more; run evaluate again")
    shown = own[:max_cases]
    with alone_at(target):
        encoded = []
        for row in tqdm(shown, desc="report", unit="case"):
            encoded.append(_embed(encode_case(cases[row["case_id"]], summary, size), "case"))
        spheres = choose_lesions(list(cases.values()), lesions)
        for case in tqdm(spheres, desc="lesions", unit="case", disable=not spheres):
            encoded.append(_embed(encode_lesion(case, cases[case["planted"]["base"]], summary, size), "lesion"))
        # Whoever gets the page needs no paths.
        names = {key: Path(summary[key]).name for key in ("predictions", "datalist")}
        head = {"summary": summary | names, "leaderboard": board, "num_cases": len(own), "headline": HEADLINE}
        head["cases"] = [{key: value for key, value in row.items() if key != "method"} for row in shown]
        parts = {
            "/*STYLE*/": _asset("viewer.css"),
            "<!--DATA-->": "\n".join([_embed(head, "evaluation"), *encoded]),
            "/*PLOTLY*/": plotly,
            "/*VIEWER*/": "\n".join(map(_asset, SCRIPTS)),
        }
        text = re.sub("|".join(map(re.escape, parts)), lambda mark: parts[mark[0]], _asset("page.html"))
        write_text(target, text)
    print(f"wrote {target} ({len(shown)} cases, {target.stat().st_size / 1e6:.1f} MB); open it in a browser")


def read_evaluation(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Summary and rows of the folder of an evaluation of CTs from radiographs.

    Raises:
        ValueError: If it is not one.
    """
    if not (folder / "summary.json").is_file() or not (folder / "cases.csv").is_file():
        raise ValueError(f"{folder} is no evaluation: expected summary.json and cases.csv; run evaluate first")
    summary = read_json(folder / "summary.json")
    if not isinstance(summary, dict):
        raise ValueError(f"{folder / 'summary.json'} is not the summary of an evaluation; run evaluate again")
    if summary.get("task") == PHASES:
        raise ValueError(
            f"{folder}: holds an evaluation of phases, and report shows CTs from radiographs only; "
            "its scores are in cases.csv and summary.json, and its pictures beside them"
        )
    if summary.get("format") != FORMAT or summary.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{folder}: expected {FORMAT} version {FORMAT_VERSION}; run evaluate again")
    if not Path(summary["predictions"]).is_dir():
        raise ValueError(
            f"{folder}: its predictions {summary['predictions']} are gone; bring them back or evaluate again"
        )
    rows = read_csv(folder / "cases.csv")
    if not rows or not {"method", "case_id", HEADLINE} <= rows[0].keys():
        raise ValueError(f"{folder / 'cases.csv'} has no scores; run evaluate again")
    return summary, rows


def _embed(content: Mapping[str, Any], kind: str) -> str:
    """JSON in a script element that no name of a case can end."""
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}">{text}</script>'


def _asset(name: str) -> str:
    return resources.files("trct_monai.evaluation.report").joinpath(name).read_text(encoding="utf-8")


def _plotly() -> str:
    """The library's JavaScript.

    Raises:
        ValueError: If plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ValueError(NO_PLOTLY) from error
    return str(get_plotlyjs()).replace("</script", "<\\/script")
