"""Cameras from radiographs and their CTs: error, refusals and time of our registration beside ITK's.

    python benchmarks/registration.py --cts CTS --views 200 --output benchmarks/registration.csv

Views are drawn at random from 25 phantoms and from the CTs of a folder (`registration_views.py`): fields of 250 to
500 mm, pixels up to 1.25 times as high as wide or the reverse, the source from 700 mm to infinity, shifts of 40 mm,
turn, tilt and roll of 5 degrees, from the front or the back and from either side, stored in one of eight
orientations, 8 bits, gamma 0.5 to 2, up to 30 % of scatter, noise of 1,000 photons a pixel. Ours is told whether a
picture is frontal or lateral, and nothing else. ITK's example of 2-D/3-D registration (`registration_itk.py`) has
neither orientation nor pixel sizes nor the distance of the source among its unknowns: "ITK, told" gets all three from
the truth and starts untilted at the middle of the CT; "ITK, from our guess" starts from the first guess of our
search. It runs on every n-th view of the same ones. Some pictures are also given to our registration with the CT of
another patient. Errors are mean projection distances.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import itk
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from registration_itk import nominal, prepare, register_itk
from registration_views import AZIMUTHS, View, Volume, draw_all, error_mm, load, sources

from trct_monai.geometry import ORIENTATIONS, Camera, preset
from trct_monai.io.files import write_csv
from trct_monai.registration.camera import LEVELS, Pictures, register
from trct_monai.registration.poses import Beam
from trct_monai.registration.projections import CoarseCT
from trct_monai.registration.search import search

FAILED = 10.0
"""Error in mm of a failure."""

Row = dict[str, Any]
Seconds = tuple[float, float]
"""Of the clock, and of the processor in all threads: the second is what the first would be without other work."""


def registration(
    output: str, cts: str | None = None, views: int = 200, itk_every: int = 5, strangers: int = 20, threads: int = 2
) -> None:
    """Run it and write the table.

    Args:
        output: CSV of the table; NAME_views.csv beside it has a row for each view.
        cts: Folder of CTs.
        views: Number of views.
        itk_every: ITK runs on every n-th view.
        strangers: Number of pictures that are given with the CT of another patient.
        threads: Threads of PyTorch and ITK.
    """
    torch.set_num_threads(threads)
    itk.MultiThreaderBase.SetGlobalMaximumNumberOfThreads(threads)
    path, folder = Path(output), None if cts is None else Path(cts)
    rows: list[Row] = []
    plan = sources(folder, views)
    names = list(dict.fromkeys(plan))

    def add(*more: Row) -> None:
        rows.extend(more)
        for row in more:
            print(*row.values(), flush=True)
        write_csv(path.with_name(f"{path.stem}_views.csv"), rows)
        write_csv(path, _table(rows))

    for place, (volume, view) in enumerate(draw_all(folder, views)):
        add(_ours(volume, view))
        if place % itk_every == itk_every // 2:
            add(*_itk(volume, view))
        if place % max(1, views // max(1, strangers)) == 1:
            stranger = load(names[(names.index(plan[view.number]) + 1) % len(names)])
            add(_ours(stranger, view) | {"method": "ours, CT of another patient"})


def _ours(volume: Volume, view: View) -> Row:
    start = _clock()
    result = register(view.picture, volume.ct_hu[None], volume.spacing, _nominal(view))
    seconds = _since(start)
    error = error_mm(view, result.camera, result.orientation["transform"])
    return _row("ours", view, error, seconds) | {
        "estimate_mm": round(result.error_mm, 2),
        "correlation": result.orientation["correlation"],
        "refused": int(not result.is_sure()),
    }


def _itk(volume: Volume, view: View) -> list[Row]:
    image, rows = prepare(volume.ct_hu, volume.spacing), []
    true_side = _side(view.camera, _nominal(view))
    beams = (Beam.of(_nominal(view)), Beam.of(_nominal(view).opposite()))
    start = _clock()
    told = nominal(view.camera, true_side)
    rows.append(
        _timed("ITK, told", view, start, register_itk(image, view.picture, told, view.transform), view.transform)
    )
    start = _clock()
    coarse, size = LEVELS[0]
    ct = CoarseCT.of(volume.ct_hu, volume.spacing, coarse, beams[0])
    guess = search(ct, beams, Pictures.of(view.picture, None, size))[0]
    transform = list(ORIENTATIONS)[guess.orientation]
    camera = beams[guess.side].camera(guess.pose, view.camera.size)
    found = register_itk(image, view.picture, camera, transform)
    rows.append(_timed("ITK, from our guess", view, start, found, transform))
    return rows


def _timed(method: str, view: View, start: Seconds, camera: Camera, transform: str) -> Row:
    seconds = _since(start)
    return _row(method, view, error_mm(view, camera, transform), seconds)


def _row(method: str, view: View, error: float, seconds: Seconds) -> Row:
    return {
        "method": method, "number": view.number, "volume": view.volume, "view": view.view, "error_mm": round(error, 3),
        "seconds": round(seconds[0], 2), "cpu_seconds": round(seconds[1], 2),
    }  # fmt: skip


def _clock() -> Seconds:
    return time.perf_counter(), time.process_time()


def _since(start: Seconds) -> Seconds:
    now = _clock()
    return now[0] - start[0], now[1] - start[1]


def _nominal(view: View) -> Camera:
    return preset("parallel")[list(AZIMUTHS).index(view.view)]


def _side(camera: Camera, one: Camera) -> Camera:
    """The nominal camera or the opposite one, whichever looks the way of a camera."""
    return one if float(np.dot(camera.normal, one.normal)) > 0 else one.opposite()


def _table(rows: Sequence[Row]) -> list[Row]:
    table = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        groups = {
            "all": mine,
            "phantoms": [row for row in mine if row["volume"].startswith("phantom")],
            "CTs": [row for row in mine if not row["volume"].startswith("phantom")],
            "frontal": [row for row in mine if row["view"] == "pa"],
            "lateral": [row for row in mine if row["view"] == "lat"],
        }
        table += [{"method": method, "views of": name} | _summary(group) for name, group in groups.items() if group]
    return table


def _summary(rows: Sequence[Row]) -> Row:
    errors = np.array([row["error_mm"] for row in rows])
    refused = np.array([bool(row.get("refused", 0)) for row in rows])
    failed = errors > FAILED
    return {
        "count": len(rows),
        "median_mm": round(float(np.median(errors)), 2),
        "percentile_95_mm": round(float(np.quantile(errors, 0.95)), 2),
        "share_under_5_mm": round(float((errors < 5).mean()), 3),
        "refused": round(float(refused.mean()), 3),
        "failures_over_10_mm": int(failed.sum()),
        "silent_failures": int((failed & ~refused).sum()),
        "seconds_median": round(float(np.median([row["seconds"] for row in rows])), 1),
        "cpu_seconds_median": round(float(np.median([row["cpu_seconds"] for row in rows])), 1),
    }


if __name__ == "__main__":
    fire.Fire(registration)
