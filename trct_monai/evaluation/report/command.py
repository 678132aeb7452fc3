"""`report`: from an evaluation's folder to one HTML file."""

import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from trct_monai.evaluation.cohort import FORMAT, FORMAT_VERSION
from trct_monai.evaluation.predictions import load_pair, prediction_file
from trct_monai.evaluation.report.codec import encode
from trct_monai.evaluation.scores import Views
from trct_monai.evaluation.summary import HEADLINE
from trct_monai.geometry import Camera, voxel_to_world
from trct_monai.intensity import AIR_HU, fit_gain_offset
from trct_monai.io.datalist import load_datalist
from trct_monai.io.files import read_csv, read_json, write_text
from trct_monai.projector import project_hu
from trct_monai.resampling import resample, resize_radiographs

HU_STEP = 4.0
"""Fine enough that a soft-tissue window of 400 HU does not show steps."""

MAX_PIXELS = 128
NO_PLOTLY = "report needs plotly, the library that draws its pages: pip install 'trct_monai[report]'"


def report(
    *,
    evaluation: str,
    output: str | None = None,
    leaderboard: str | None = None,
    size: int = 64,
    max_cases: int | None = None,
) -> None:
    """Write an evaluation as one HTML file that needs nothing else: no network, no server, no other file.

    Tables, warnings, the cases sorted by their error, and for each of them truth, prediction and difference in three
    planes to scroll through, with windows for lung, soft tissue and bone, the radiographs beside the prediction's
    projections, and histograms. The page itself says which keys it knows.

    Args:
        evaluation: Folder that evaluate wrote.
        output: File to write; EVALUATION/report.html if not given.
        leaderboard: A leaderboard.csv to show as well.
        size: Most voxels along each side that are shown; finer volumes are averaged down.
        max_cases: Show only this many cases, the worst first.
    """
    if size < 1 or (max_cases is not None and max_cases < 1):
        raise ValueError(f"size and max_cases must be at least 1, got {size} and {max_cases}")
    folder = Path(evaluation)
    summary, rows = read_evaluation(folder)
    target = folder / "report.html" if output is None else Path(output)
    plotly = _plotly()
    board = None if leaderboard is None else _read_table(Path(leaderboard))
    found = {case["case_id"]: case for case in load_datalist(summary["datalist"], summary["section"])}
    name = summary["name"]
    own = sorted((row for row in rows if row["method"] == name), key=lambda row: float(row[HEADLINE] or "-inf"))
    unknown = [row["case_id"] for row in own if row["case_id"] not in found]
    if unknown:
        raise ValueError(f"{summary['datalist']} has no case {unknown[0]} any more; run evaluate again")
    pages = []
    for row in tqdm(own[:max_cases], desc="report", unit="case"):
        pages.append(_embed(_case_page(found[row["case_id"]], summary, size), "case"))
    head = {"summary": summary, "leaderboard": board, "num_cases": len(own), "headline": HEADLINE}
    head["cases"] = [{key: value for key, value in row.items() if key != "method"} for row in own[:max_cases]]
    parts = {
        "/*STYLE*/": _asset("viewer.css"),
        "<!--DATA-->": "\n".join([_embed(head, "evaluation"), *pages]),
        "/*PLOTLY*/": plotly,
        "/*VIEWER*/": _asset("viewer.js"),
    }
    text = re.sub("|".join(map(re.escape, parts)), lambda mark: parts[mark[0]], _asset("page.html"))
    target.parent.mkdir(parents=True, exist_ok=True)
    write_text(target, text)
    print(f"wrote {target} ({len(pages)} cases, {target.stat().st_size / 1e6:.1f} MB); open it in a browser")


def read_evaluation(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Summary and lines of an evaluation's folder.

    Raises:
        ValueError: If it is none.
    """
    if not (folder / "summary.json").is_file() or not (folder / "cases.csv").is_file():
        raise ValueError(f"{folder} is no evaluation: expected summary.json and cases.csv; run evaluate first")
    summary: dict[str, Any] = read_json(folder / "summary.json")
    if summary.get("format") != FORMAT or summary.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{folder}: expected {FORMAT} version {FORMAT_VERSION}; run evaluate again")
    if not Path(summary["predictions"]).is_dir():
        raise ValueError(
            f"{folder}: its predictions {summary['predictions']} are gone; bring them back or evaluate again"
        )
    return summary, _read_table(folder / "cases.csv")


def _case_page(case: dict[str, Any], summary: Mapping[str, Any], size: int) -> dict[str, Any]:
    """All that the viewer shows of a case."""
    path = prediction_file(summary["predictions"], case["case_id"])
    prediction, truth = load_pair(case, path, size=summary["size"], resample=summary["resample"])
    low, high = summary["hu_window"]
    spacing = float(truth.pixdim[0])
    page: dict[str, Any] = {"case_id": case["case_id"], "views": [], "fitted": False, "stored_spacing": spacing}
    if case.get("image"):
        views = Views(case)
        shadows = project_hu(prediction.as_subclass(Tensor).clamp(low, high), views.cameras, spacing)
        page["fitted"] = views.fit
        for camera, real, shadow in zip(views.cameras, views.radiographs, shadows):
            pictures = {"radiograph": real, "reprojection": _scaled(shadow, real) if views.fit else shadow}
            encoded = {name: _picture(image) for name, image in pictures.items()}
            page["views"].append({"name": camera.name, "sides": _sides(camera), **encoded})
    shown = (_at_most(volume, size) for volume in (truth, prediction))
    page["truth"], page["prediction"] = (encode(volume.numpy(), low, high, HU_STEP) for volume in shown)
    page["spacing"] = spacing * truth.shape[-1] / page["truth"]["shape"][-1]
    return page


def _sides(camera: Camera) -> list[str]:
    """Letters of a radiograph's left, right, upper and lower edge; none where the view is oblique."""
    letters = []
    for axis in (camera.column_axis, camera.row_axis):
        nearest = max(range(3), key=lambda k: abs(axis[k]))
        ends = ["LPI"[nearest], "RAS"[nearest]] if abs(axis[nearest]) > 0.9 else ["", ""]
        letters.append(ends if axis[nearest] > 0 else ends[::-1])
    (left, right), (top, bottom) = letters
    return [left, right, top, bottom]


def _scaled(image: Tensor, like: Tensor) -> Tensor:
    """A projection with the gain and offset that bring it nearest to a radiograph on a scale of its own."""
    gain, offset = fit_gain_offset(image, like)
    return gain * image + offset


def _at_most(volume: MetaTensor, size: int) -> Tensor:
    """The cube (X, X, X) averaged down to at most so many voxels a side."""
    cube: Tensor = volume.as_subclass(Tensor)[0]
    if cube.shape[-1] <= size:
        return cube
    place, coarse = (voxel_to_world((n,) * 3, cube.shape[-1] / n).numpy() for n in (cube.shape[-1], size))
    return resample(cube, place, (size,) * 3, coarse, AIR_HU)


def _picture(image: Tensor) -> dict[str, Any]:
    """A radiograph in 256 steps, of at most `MAX_PIXELS` a side."""
    rows, columns = (min(n, MAX_PIXELS) for n in image.shape)
    image = resize_radiographs(image, (rows, columns))
    low, high = float(image.min()), float(image.max())
    return encode(image.numpy(), low, high, max(high - low, 1e-6) / 255)


def _embed(page: Mapping[str, Any], kind: str) -> str:
    """JSON in a script element that no name of a case can end."""
    text = json.dumps(page, allow_nan=False).replace("<", "\\u003c")
    return f'<script type="application/json" class="{kind}">{text}</script>'


def _read_table(path: Path) -> list[dict[str, str]]:
    return read_csv(path)


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
