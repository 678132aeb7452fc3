"""Score every case of a section, the mean volume beside it, and what only a cohort shows."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from trct_monai import __version__
from trct_monai.evaluation.columns import COLUMNS
from trct_monai.evaluation.driver import Row, digest_case, digest_radiographs, score_cases
from trct_monai.evaluation.mean_volume import MEAN_VOLUME
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import interval_file, load_pair, load_quantiles, prediction_files
from trct_monai.evaluation.scores import CaseRadiographs, Scores, headline_scores, score_case
from trct_monai.evaluation.summary import summarize
from trct_monai.intensity import hu_to_unit
from trct_monai.io.files import write_csv, write_json
from trct_monai.io.nifti import read_volume
from trct_monai.io.provenance import Stamp, digest_file, make_stamp
from trct_monai.metrics.conditioning import MIN_CASES, Conditioning, measure_conditioning
from trct_monai.metrics.detectability import Loaded, Observation, detectability, planted_pairs
from trct_monai.metrics.sharpness import LineSpread
from trct_monai.resampling import resample

FORMAT, FORMAT_VERSION = "trct-evaluation", 1

CONDITIONING_SIZE = 64
"""The conditioning probe compares volumes of at most this many voxels a side: patients differ in the large."""

Job = tuple[dict[str, Any], Path, dict[str, Any] | None]
"""A case, its prediction, and a case of another patient."""


def evaluate_predictions(
    predictions: str | Path,
    options: EvaluationOptions,
    folder: Path,
    name: str,
    mean_volume: Path | None,
    num_workers: int = 2,
) -> tuple[dict[str, Any], list[Row]]:
    """Score predictions, write cases.csv and summary.json, and return the summary and the rows.

    Args:
        predictions: Their folder.
        options: What to score, and how.
        folder: Where the results go.
        name: The method's name.
        mean_volume: File of `fit_mean_volume`.
        num_workers: Number of processes.

    Raises:
        FileNotFoundError: If a prediction is missing.
        ValueError: If a prediction cannot be compared with its CT; all of them are printed.
    """
    cases = options.cases()
    files = prediction_files(predictions, cases)
    patients = {case["case_id"]: _patient(case) for case in cases}
    jobs = [(c["case_id"], (c, files[c["case_id"]], _another_patient(cases, n))) for n, c in enumerate(cases)]
    measure = partial(_measure, options=options, mean_volume=mean_volume)
    stamp = partial(_stamp, options=options, mean_volume=mean_volume)
    rows = score_cases(jobs, measure, stamp, (name, MEAN_VOLUME), folder, num_workers)
    conditioning = _conditioning(cases, files, options)
    rows_of_spheres, sharpness = _lesions(cases, files, options)
    summary = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tool": f"trct_monai {__version__}",
        "name": name,
        "predictions": str(Path(predictions).absolute()),
        **asdict(options),
        "num_cases": len(cases),
        **summarize(rows, name, patients, conditioning),
        "detectability": rows_of_spheres,
        "sharpness": sharpness,
    }
    write_csv(folder / "cases.csv", rows)
    write_json(folder / "summary.json", summary)
    return summary, rows


def _stamp(job: Job, *, options: EvaluationOptions, mean_volume: Path | None) -> Stamp:
    case, path, other = job
    intervals = interval_file(path)
    inputs = {
        "case": digest_case(case),
        "prediction": digest_file(path),
        "intervals": intervals and [intervals[1], digest_file(intervals[0])],
        "another_patient": other and digest_radiographs(other),
        "mean_volume": mean_volume and digest_file(mean_volume),
    }
    settings = {"hu_window": options.hu_window, "size": options.size, "resample": options.resample}
    # Scores may change with the software, and those that were kept lack a column that is new.
    return make_stamp(inputs, {**settings, "columns": list(COLUMNS), "software": __version__})


def _measure(job: Job, *, options: EvaluationOptions, mean_volume: Path | None) -> tuple[Scores, Scores | None]:
    """The scores of a prediction, and the headline of the mean volume."""
    case, path, other = job
    prediction, truth = load_pair(case, path, size=options.size, resample=options.resample)
    mean = None if mean_volume is None else read_volume(mean_volume)
    if mean is not None and mean.shape != truth.shape:
        raise ValueError(f"{case['label']}: its size differs from the training volumes'; choose one size with --size")
    radiographs = CaseRadiographs.of(case)
    scores = score_case(
        prediction,
        truth,
        options.hu_window,
        mean_volume=mean,
        radiographs=radiographs,
        other=CaseRadiographs.of(other) if radiographs is not None else None,
        quantiles=load_quantiles(path, prediction),
    )
    return scores, None if mean is None else headline_scores(mean, truth, options.hu_window)


def _patient(case: Mapping[str, Any]) -> str:
    return str(case.get("patient_id", case["case_id"]))


def _another_patient(cases: Sequence[dict[str, Any]], number: int) -> dict[str, Any] | None:
    """The next case of another patient."""
    following = [*cases[number + 1 :], *cases[:number]]
    return next((case for case in following if _patient(case) != _patient(cases[number])), None)


def _lesions(
    cases: Sequence[dict[str, Any]], files: Mapping[str, Path], options: EvaluationOptions
) -> tuple[list[dict[str, float | None]], dict[str, Any] | None]:
    """Detectability of planted spheres, None for what is not finite, and the modulation transfer of the smallest."""
    observations, spread = [], LineSpread()
    known = {case["case_id"]: case for case in cases}
    for pair in planted_pairs(cases, partial(_load, files=files, cases=known, options=options)):
        observations.append(Observation.of(pair))
        spread.add(pair)
    rows = [
        {key: value if isfinite(value) else None for key, value in row.items()} for row in detectability(observations)
    ]
    return rows, spread.transfer()


def _load(
    case_id: str, files: Mapping[str, Path], cases: Mapping[str, dict[str, Any]], options: EvaluationOptions
) -> Loaded:
    """A case with its prediction."""
    path = files[case_id]
    prediction, truth = load_pair(cases[case_id], path, size=options.size, resample=options.resample)
    quantiles = load_quantiles(path, prediction)
    return Loaded(prediction[0].numpy(), truth[0].numpy(), float(truth.pixdim[0]), quantiles)


def _conditioning(
    cases: Sequence[dict[str, Any]], files: Mapping[str, Path], options: EvaluationOptions
) -> Conditioning | None:
    """The conditioning probe over one case of each patient; None for too few patients.

    Raises:
        ValueError: If the CTs have different sizes.
    """
    patients = {_patient(case): case for case in reversed(cases)}
    if len(patients) < MIN_CASES:
        return None
    pairs = []
    for case in tqdm(list(patients.values()), desc="conditioning", unit="case"):
        pair = load_pair(case, files[case["case_id"]], size=options.size, resample=options.resample)
        pairs.append([_reduced(volume, options.hu_window) for volume in pair])
    sizes = sorted({len(truth) for _, truth in pairs})
    if len(sizes) > 1:
        raise ValueError(f"{options.datalist}: its CTs have different sizes; choose one with --size")
    predictions, truths = (np.stack(volumes) for volumes in zip(*pairs))
    return measure_conditioning(predictions, truths)


def _reduced(volume_hu: MetaTensor, hu_window: Sequence[float]) -> np.ndarray:
    """Voxels in [0, 1] of the window, averaged to at most `CONDITIONING_SIZE` a side, in one row."""
    size = min(CONDITIONING_SIZE, volume_hu.shape[-1])
    unit, affine = hu_to_unit(volume_hu.as_subclass(Tensor)[0], hu_window), np.eye(4)
    coarse = np.diag([*(n / size for n in unit.shape), 1.0])
    coarse[:3, 3] = (np.diag(coarse)[:3] - 1) / 2
    return np.asarray(resample(unit, affine, (size,) * 3, coarse, 0.0).flatten())
