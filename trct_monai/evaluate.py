"""Score a folder of predicted CTs, whoever made them, beside the mean of the training volumes."""

import hashlib
import json
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
from trct_monai.baselines import MeanVolume
from trct_monai.data.batch import parse_numbers, run_cases
from trct_monai.data.cases import digest_file, write_nifti
from trct_monai.data.datalist import PHASES, load_datalist, read_datalist, write_atomically, write_csv
from trct_monai.data.predictions import load_ct, load_pair, load_quantiles, load_truth, prediction_file
from trct_monai.evaluate_phases import evaluate_phases
from trct_monai.figures import comparison_figure, save_figure
from trct_monai.intensity import HU_WINDOW, check_hu_window, hu_to_unit, unit_to_hu
from trct_monai.metrics import Conditioning, Estimate, bootstrap_mean, hu_protocol, measure_conditioning, skill_score
from trct_monai.metrics.conditioning import MIN_CASES
from trct_monai.metrics.detectability import detectability, observe
from trct_monai.metrics.reprojection import reproject
from trct_monai.scoring import Views, score_case
from trct_monai.transforms.resampling import resample

FORMAT = "trct-evaluation"
FORMAT_VERSION = 1
MEAN_VOLUME = "mean volume"
HEADLINE = "hu.psnr_3d"

CONDITIONING_SIZE = 64
"""The conditioning probe looks at volumes of at most this many voxels a side: patients differ in the large."""

Row = dict[str, Any]


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
            hu_window = parse_numbers(hu_window.replace(",", "/"), 2, "hu_window")
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


def evaluate(
    *,
    predictions: str,
    datalist: str,
    output: str,
    section: str = "test",
    hu_window: Sequence[float] | str = HU_WINDOW,
    name: str = "prediction",
    size: int | None = None,
    resample: bool = False,
    figures: int = 3,
    num_workers: int = 2,
    lpips: bool = False,
) -> None:
    """Score predicted CTs against a datalist by every protocol and probe, beside the mean volume.

    Writes OUTPUT/cases.csv (a line for each case), OUTPUT/summary.json (means with intervals, conditioning, warnings)
    and pictures of the first cases; docs/evaluation.md explains every column. What is scored is kept: the same command
    goes on where it was interrupted.

    Of a datalist of phase pairs it scores predicted phases where the patient moves and where not, beside the identity.

    Args:
        predictions: Folder with one NIfTI in HU for each case: CASE_ID.nii.gz, or a file in a folder CASE_ID.
        datalist: Datalist JSON with the truths; its training section gives the mean volume.
        output: Folder for the results.
        section: Section of the datalist to score.
        hu_window: Lowest and highest HU of the headline protocol, as low,high.
        name: What the predictions are called in the table.
        size: Voxels along each side of the cube at which everything is compared; the size of the CTs if not given.
        resample: Bring predictions that lie on another grid to the CT's, in place of refusing them.
        figures: Number of cases to draw: truth, prediction and difference in three planes, radiographs, reprojections.
        num_workers: Number of processes.
        lpips: Measure LPIPS of phases too; needs `pip install trct-monai[lpips]`.
    """
    options = Options.parse(datalist, section, hu_window, size, resample)
    if read_datalist(datalist).get("task") == PHASES:
        if size is not None or resample:
            raise ValueError("--size and --resample are for radiographs; phases are scored on the grid of their CTs")
        evaluate_phases(
            predictions, datalist, output, section=section, hu_window=options.hu_window, name=name, figures=figures,
            num_workers=num_workers, lpips=lpips,
        )  # fmt: skip
        return
    if lpips:
        raise ValueError("--lpips is for phases; protocols of radiographs to CT do not have it")
    if name == MEAN_VOLUME:
        raise ValueError(f"name must be another than {MEAN_VOLUME!r}, which stands beside it in the table")
    folder = Path(output)
    files = prediction_files(predictions, options)
    mean_volume = fit_mean_volume(options, folder)
    summary, rows = evaluate_predictions(predictions, options, folder, name, mean_volume, num_workers)
    for case in options.cases()[:figures]:
        _draw(case, files[case["case_id"]], options, name, rows, folder)
    print(format_summary(summary))
    print(f"wrote {folder}: cases.csv, summary.json, {min(figures, len(files))} figures")


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
    size = options.size or load_ct(cases[0]["label"]).shape[-1]
    inputs = digest([size, options.hu_window, [digest_of_voxels(case) for case in cases]])
    path, note = folder / "mean_volume.nii.gz", folder / "mean_volume.json"
    if path.is_file() and note.is_file() and json.loads(note.read_text(encoding="utf-8")).get("inputs") == inputs:
        return path
    place: MetaTensor = load_truth(cases[0], size)

    def volumes() -> Iterator[Tensor]:
        for case in tqdm(cases, desc=MEAN_VOLUME, unit="case"):
            yield hu_to_unit(load_truth(case, size).as_subclass(Tensor), options.hu_window)

    mean = unit_to_hu(MeanVolume(size).fit(volumes()).volume[0, 0], options.hu_window)
    folder.mkdir(parents=True, exist_ok=True)
    write_nifti(path, mean.numpy(), place.affine.numpy())
    write_atomically(note, json.dumps({"inputs": inputs, "cases": len(cases)}) + "\n")
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
        page = json.loads((kept / f"{case['case_id']}.json").read_text(encoding="utf-8"))
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
    write_csv(rows, folder / "cases.csv")
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    return summary, rows


def summarize(
    rows: Sequence[Row], name: str, patients: Mapping[str, str], conditioning: Conditioning | None
) -> dict[str, Any]:
    """Means with intervals of every column by method, the skill over the mean volume, and what must be warned of.

    Args:
        rows: Lines of cases.csv; None is no value.
        name: The method's name.
        patients: Whose case it is.
        conditioning: What the probe found, if there were patients enough.
    """
    metrics: dict[str, dict[str, Estimate]] = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        whose = [patients[row["case_id"]] for row in own]
        metrics[method] = {}
        for column in dict.fromkeys(key for row in own for key in row if key not in ("method", "case_id")):
            estimate = bootstrap_mean([_number(row.get(column)) for row in own], whose)
            if estimate is not None:
                metrics[method][column] = estimate
    psnr, reference = (
        {row["case_id"]: row[HEADLINE] for row in rows if row["method"] == method} for method in (name, MEAN_VOLUME)
    )
    skill = None
    if reference:
        skill = bootstrap_mean(skill_score([*psnr.values()], [reference[c] for c in psnr]), [patients[c] for c in psnr])
    return {
        "metrics": {m: {column: asdict(value) for column, value in found.items()} for m, found in metrics.items()},
        "skill": None if skill is None else asdict(skill),
        "conditioning": None if conditioning is None else asdict(conditioning),
        "flags": find_flags(metrics[name], skill, conditioning),
    }


def find_flags(
    metrics: Mapping[str, Estimate], skill: Estimate | None, conditioning: Conditioning | None
) -> list[dict[str, str]]:
    """What a mean score would hide, as pairs of ``name`` and ``reason``; none for a method that does its work."""
    flags = []

    def warn(name: str, reason: str) -> None:
        flags.append({"name": name, "reason": reason})

    if conditioning is not None and conditioning.ignores_input:
        warn(
            "ignores its input",
            f"its own truth ranks {conditioning.own_truth_rank:.1f} of {conditioning.num_cases} (chance "
            f"{conditioning.chance_rank:.1f}, p = {conditioning.p_value:.2g}), and another patient's radiographs cost "
            f"{conditioning.shuffled_psnr_drop:.2f} dB",
        )
    sides = {
        "left_right": "mirrored left to right",
        "back_front": "turned back to front",
        "down_up": "upside down",
    }
    for side, name in sides.items():
        estimate = metrics.get(f"orientation_{side}")
        if estimate is not None and estimate.mean < 0:
            warn(name, f"what differs between the sides correlates with the truth by {estimate.mean:.2f}, not by 1")
    contrast = metrics.get("contrast_ratio")
    if contrast is not None and contrast.mean < 0.5:
        warn("nearly uniform", f"its voxels vary {contrast.mean:.2f} times as much as those of the truth")
    if skill is not None and skill.high < 0:
        warn("worse than the mean volume", f"skill {skill.mean:.2f} [{skill.low:.2f}, {skill.high:.2f}]")
    own, other = metrics.get("reprojection"), metrics.get("reprojection_shuffled")
    if own is not None and other is not None and own.low > other.mean:
        warn(
            "contradicts its radiographs",
            f"its projections are {own.mean:.1%} off, and {other.mean:.1%} from another patient's radiographs",
        )
    return flags


COLUMNS = {HEADLINE: ("PSNR (dB)", ".2f"), "hu.ssim": ("SSIM", ".3f"), "hu.mae": ("MAE (HU)", ".1f")}
"""What the printed table shows: title and format of a column."""


def format_estimate(estimate: Mapping[str, float], number: str) -> str:
    """Mean and interval, such as ``28.28 [27.90, 28.65]``."""
    return f"{estimate['mean']:{number}} [{estimate['low']:{number}}, {estimate['high']:{number}}]"


def format_summary(summary: Mapping[str, Any]) -> str:
    """The headline as a Markdown table, best PSNR first, the probes in words, and the warnings."""
    metrics, name = summary["metrics"], summary["name"]
    lines = ["| method | cases | " + " | ".join(title for title, _ in COLUMNS.values()) + " |", "|---" * 5 + "|"]
    for method in sorted(metrics, key=lambda method: -metrics[method][HEADLINE]["mean"]):
        cells = [format_estimate(metrics[method][column], number) for column, (_, number) in COLUMNS.items()]
        lines.append(f"| {method} | {metrics[method][HEADLINE]['cases']} | {' | '.join(cells)} |")
    if summary["skill"] is not None:
        lines.append(f"skill over the mean volume: {format_estimate(summary['skill'], '.3f')}")
    own = metrics[name]
    for what in ("reprojection", "held_out_view"):
        if what in own:
            controls = [
                f"{key.removeprefix(what + '_').replace('_', ' ')} {own[key]['mean']:.1%}"
                for key in own
                if key.startswith(f"{what}_")
            ]
            lines.append(f"{what.replace('_', ' ')}: {own[what]['mean']:.1%} off ({', '.join(controls)})")
    probe = summary["conditioning"]
    if probe is not None:
        lines.append(
            f"conditioning: predictions of two patients correlate by {probe['prediction_correlation']:.3f} (truths "
            f"{probe['truth_correlation']:.3f}), vary {probe['variance_ratio']:.2f} times as much; own truth ranks "
            f"{probe['own_truth_rank']:.1f} of {probe['num_cases']}; shuffled radiographs cost "
            f"{probe['shuffled_psnr_drop']:.2f} dB"
        )
    else:
        lines.append(f"conditioning: not measured, it needs {MIN_CASES} patients or more")
    if summary["detectability"]:
        lines += ["", "| planted sphere (mm) | contrast (HU) | seen (AUC) | contrast recovered |", "|---|---|---|---|"]
    lines += [
        f"| {row['diameter_mm']:g} | {row['contrast_hu']:g} | {row['auc']:.2f} | {row['recovered_contrast']:.2f} |"
        for row in summary["detectability"]
    ]
    lines += [f"WARNING: {name} {flag['name']}: {flag['reason']}" for flag in summary["flags"]]
    return "\n".join(lines)


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
    inputs = digest(
        [
            [digest_file(file) for file in (path, *beside)],
            [asdict(options), __version__, digest_of_voxels(case), other and other["case_id"]],
            [digest_file(Path(image)) for image in case.get("image", [])],
            mean_volume and digest_file(mean_volume),
        ]
    )
    if target.is_file() and json.loads(target.read_text(encoding="utf-8")).get("inputs") == inputs:
        return ""
    try:
        prediction, truth = load_pair(case, path, size=options.size, resample=options.resample)
        quantiles = load_quantiles(path, prediction)
        views = Views(case) if _has_views(case) else None
        mean = None if mean_volume is None else load_ct(mean_volume)
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
    write_atomically(target, json.dumps(page) + "\n")
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


def _draw(case: dict[str, Any], path: Path, options: Options, name: str, rows: Sequence[Row], folder: Path) -> None:
    if not _has_views(case):
        return
    prediction, truth = load_pair(case, path, size=options.size, resample=options.resample)
    views, spacing = Views(case), float(truth.pixdim[0])
    row = next(row for row in rows if row["case_id"] == case["case_id"] and row["method"] == name)
    figure = comparison_figure(
        truth[0],
        prediction[0],
        views.radiographs,
        reproject(prediction.as_subclass(Tensor), views.cameras, spacing),
        view_names=[camera.name for camera in views.cameras],
        voxel_spacing=spacing,
        title=f"{case['case_id']}: {name}, {row[HEADLINE]:.1f} dB",
    )
    save_figure(figure, folder / f"{case['case_id']}.png")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def digest_of_voxels(case: Mapping[str, Any]) -> str:
    """Digest of a case's CT, from the datalist or its file."""
    return str(case.get("voxels") or digest_file(Path(case["label"])))


def digest(values: Any) -> str:
    """Digest of numbers and names, to know again what a result was made from."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
