"""Score every case of a section, and the mean volume beside it; what is scored is kept."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from torch import Tensor
from tqdm import tqdm

from trct_monai import __version__
from trct_monai.arguments import parse_numbers
from trct_monai.baselines.mean_volume import MeanVolume
from trct_monai.datasets.driver import run_cases
from trct_monai.evaluation.predictions import load_pair, load_quantiles, load_truth, prediction_file
from trct_monai.evaluation.scores import Views, score_case
from trct_monai.evaluation.summary import MEAN_VOLUME, Row, summarize
from trct_monai.intensity import check_hu_window, hu_to_unit, unit_to_hu
from trct_monai.io.datalist import load_datalist, read_datalist
from trct_monai.io.files import read_json, write_csv, write_json
from trct_monai.io.nifti import read_volume, write_hu
from trct_monai.io.provenance import digest_file, digest_values
from trct_monai.metrics.conditioning import MIN_CASES, Conditioning, measure_conditioning
from trct_monai.metrics.detectability import detectability, observe
from trct_monai.metrics.protocols import hu_protocol
from trct_monai.resampling import resample

FORMAT = "trct-evaluation"


FORMAT_VERSION = 1


CONDITIONING_SIZE = 64
"""The conditioning probe looks at volumes of at most this many voxels a side: patients differ in the large."""


@dataclass(frozen=True)
class Options:
    """What an evaluation is made with; see `evaluate` for each."""

    datalist: str
    section: str
    hu_window: tuple[float, float]
    size: int | None
    resample: bool

    @classmethod
    def parse(
        cls, datalist: str, section: str, hu_window: Sequence[float] | str, size: int | None, resample: bool
    ) -> "Options":
        """From a command's flags.

        Raises:
            ValueError: If the window is none, or the size too small for SSIM's window.
        """
        if isinstance(hu_window, str):
            hu_window = parse_numbers(hu_window, 2, "hu_window", "-1000,500")
        if size is not None and size < 7:
            raise ValueError(f"size must be at least 7 voxels, the window of SSIM, got {size}")
        return cls(str(Path(datalist).absolute()), section, check_hu_window(hu_window), size, resample)

    def cases(self) -> list[dict[str, Any]]:
        """The cases that are scored.

        Raises:
            ValueError: If there is none.
        """
        cases = load_datalist(self.datalist, self.section)
        if not cases:
            raise ValueError(f"{self.datalist}: section {self.section!r} has no case to score")
        return cases


def prediction_files(predictions: str | Path, options: Options) -> dict[str, Path]:
    """The prediction of every case.

    Raises:
        FileNotFoundError: If one or more are missing: a mean over some of the cases can be compared with nothing.
        ValueError: If a case has several.
    """
    if not Path(predictions).is_dir():
        raise FileNotFoundError(f"{predictions}: no such folder of predictions")
    files, missing = {}, []
    for case in options.cases():
        try:
            files[case["case_id"]] = prediction_file(predictions, case["case_id"])
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(missing) + len(files)} predictions are missing; {missing[0]}")
    return files


def fit_mean_volume(options: Options, folder: Path) -> Path | None:
    """The mean of the training volumes as a NIfTI in HU, kept in a folder; None where the datalist has no such section.

    Args:
        options: Whose datalist, size and window.
        folder: Where the file is written.
    """
    page = read_datalist(options.datalist)
    cases = load_datalist(options.datalist, "training") if page.get("training") else []
    if not cases:
        return None
    size = options.size or read_volume(cases[0]["label"]).shape[-1]
    inputs = digest_values([size, options.hu_window, [digest_of_voxels(case) for case in cases]])
    path, note = folder / "mean_volume.nii.gz", folder / "mean_volume.json"
    if path.is_file() and note.is_file() and read_json(note).get("inputs") == inputs:
        return path
    place: MetaTensor = load_truth(cases[0], size)

    def volumes() -> Iterator[Tensor]:
        for case in tqdm(cases, desc=MEAN_VOLUME, unit="case"):
            yield hu_to_unit(load_truth(case, size).as_subclass(Tensor), options.hu_window)

    mean = unit_to_hu(MeanVolume(size).fit(volumes()).volume[0, 0], options.hu_window)
    folder.mkdir(parents=True, exist_ok=True)
    write_hu(path, mean.numpy(), place.affine.numpy())
    write_json(note, {"inputs": inputs, "cases": len(cases)})
    return path


def evaluate_predictions(
    predictions: str | Path,
    options: Options,
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
        ValueError: If a prediction cannot be compared with its CT; all of them are named.
    """
    cases, files = options.cases(), prediction_files(predictions, options)
    kept = folder / "scores"
    kept.mkdir(parents=True, exist_ok=True)
    jobs = [(case["case_id"], (case, _another_patient(cases, number))) for number, case in enumerate(cases)]
    work = partial(_score, files=files, options=options, mean_volume=mean_volume, kept=kept)
    refused = run_cases(work, jobs, num_workers=num_workers, description=name)
    if refused:
        raise ValueError(f"{len(refused)} of {len(cases)} predictions cannot be compared; {refused[0][1]}")
    rows: list[Row] = []
    for case in cases:
        page = read_json(kept / f"{case['case_id']}.json")
        for method, key in ((name, "scores"), (MEAN_VOLUME, "mean_volume")):
            if page[key]:
                rows.append({"method": method, "case_id": case["case_id"], **page[key]})
    conditioning = _conditioning(cases, files, options)
    observations = observe(cases, partial(_load, files=files, cases=cases, options=options))
    patients = {case["case_id"]: case.get("patient_id", case["case_id"]) for case in cases}
    summary = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "tool": f"trct_monai {__version__}",
        "name": name,
        "predictions": str(Path(predictions).absolute()),
        **asdict(options),
        "num_cases": len(cases),
        **summarize(rows, name, patients, conditioning),
        "detectability": [
            {key: value if isfinite(value) else None for key, value in row.items()}
            for row in detectability(observations)
        ],
    }
    write_csv(folder / "cases.csv", rows)
    write_json(folder / "summary.json", summary)
    return summary, rows


def _score(
    job: tuple[dict[str, Any], dict[str, Any] | None],
    *,
    files: Mapping[str, Path],
    options: Options,
    mean_volume: Path | None,
    kept: Path,
) -> str:
    """Score one case into its file; returns why it cannot be."""
    case, other = job
    path, target = files[case["case_id"]], kept / f"{case['case_id']}.json"
    beside = sorted(path.parent.glob(f"{path.name.split('.nii')[0]}_*.nii*"))
    inputs = digest_values(
        [
            [digest_file(file) for file in (path, *beside)],
            [asdict(options), __version__, digest_of_voxels(case), other and other["case_id"]],
            [digest_file(Path(image)) for image in case.get("image", [])],
            mean_volume and digest_file(mean_volume),
        ]
    )
    if target.is_file() and read_json(target).get("inputs") == inputs:
        return ""
    try:
        prediction, truth = load_pair(case, path, size=options.size, resample=options.resample)
        quantiles = load_quantiles(path, prediction)
        views = Views(case) if _has_views(case) else None
        mean = None if mean_volume is None else read_volume(mean_volume)
        if mean is not None and mean.shape != truth.shape:
            return f"{case['label']}: its size differs from the training volumes'; choose one size with --size"
        page: dict[str, Any] = {
            "inputs": inputs,
            "scores": score_case(
                prediction,
                truth,
                options.hu_window,
                mean_volume=mean,
                views=views,
                other=Views(other) if views is not None and other is not None and _has_views(other) else None,
                quantiles=quantiles,
            ),
            "mean_volume": None if mean is None else headline_scores(mean, truth, options.hu_window),
        }
    except (ValueError, OSError) as error:
        return str(error)
    for key in ("scores", "mean_volume"):
        page[key] = page[key] and {k: value if isfinite(value) else None for k, value in page[key].items()}
    write_json(target, page)
    return ""


def headline_scores(prediction: Tensor, truth: Tensor, hu_window: Sequence[float]) -> dict[str, float]:
    """The `hu` protocol alone, of volumes (1, X, Y, Z) in HU."""
    scores = hu_protocol(hu_window)(*(volume.as_subclass(Tensor)[0].numpy() for volume in (prediction, truth)))
    return {f"hu.{key}": value for key, value in scores.items()}


def _has_views(case: Mapping[str, Any]) -> bool:
    """Whether there are radiographs, and it is known how they were taken."""
    return bool(case.get("image")) and bool(case.get("cameras"))


def _another_patient(cases: Sequence[dict[str, Any]], number: int) -> dict[str, Any] | None:
    """The next case that is of another patient."""
    others = [*cases[number + 1 :], *cases[:number]]
    own = cases[number].get("patient_id", cases[number]["case_id"])
    return next((case for case in others if case.get("patient_id", case["case_id"]) != own), None)


def _load(
    case_id: str, files: Mapping[str, Path], cases: Sequence[dict[str, Any]], options: Options
) -> tuple[np.ndarray, np.ndarray, float]:
    """Prediction and truth in HU, and their voxel side in mm."""
    case = next(case for case in cases if case["case_id"] == case_id)
    prediction, truth = load_pair(case, files[case_id], size=options.size, resample=options.resample)
    return prediction[0].numpy(), truth[0].numpy(), float(truth.pixdim[0])


def _conditioning(cases: Sequence[dict[str, Any]], files: Mapping[str, Path], options: Options) -> Conditioning | None:
    """The conditioning probe over one case of each patient."""
    patients = {case.get("patient_id", case["case_id"]): case for case in reversed(cases)}
    if len(patients) < MIN_CASES:
        return None
    pairs = []
    for case in tqdm(list(patients.values()), desc="conditioning", unit="case"):
        pair = load_pair(case, files[case["case_id"]], size=options.size, resample=options.resample)
        pairs.append([_reduced(volume, options.hu_window) for volume in pair])
    predictions, truths = (np.stack(volumes) for volumes in zip(*pairs))
    return measure_conditioning(predictions, truths)


def _reduced(volume_hu: MetaTensor, hu_window: Sequence[float]) -> np.ndarray:
    """Voxels in [0, 1] of the window, averaged to at most `CONDITIONING_SIZE` a side, in one row."""
    size = min(CONDITIONING_SIZE, volume_hu.shape[-1])
    unit, place = hu_to_unit(volume_hu.as_subclass(Tensor)[0], hu_window), np.eye(4)
    coarse = np.diag([*(n / size for n in unit.shape), 1.0])
    coarse[:3, 3] = (np.diag(coarse)[:3] - 1) / 2
    return np.asarray(resample(unit, place, (size,) * 3, coarse, 0.0).flatten())


def digest_of_voxels(case: Mapping[str, Any]) -> str:
    """Digest of a case's CT, from the datalist or its file."""
    return str(case.get("voxels") or digest_file(Path(case["label"])))
