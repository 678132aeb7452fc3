"""A folder of predicted CTs, whoever made them, and the truth of each case on the same grid."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from trct_monai.io.hounsfield import OFFSETS
from trct_monai.io.nifti import read_nifti, read_volume
from trct_monai.metrics.uncertainty import QUANTILES, quantiles_from_std
from trct_monai.preprocessing.cube import CTPreprocessing, resample_like

MIN_COVERED = 0.5
"""Share of its CT that a prediction on another grid must cover."""

PLACE_TOLERANCE = 1e-2
"""Two affines that differ by less than this, in mm, are one."""

MIN_LIKENESS = 0.6
"""Correlation from which on a prediction is of the CT, whatever its numbers are."""

SLOPES = (0.15, 3.0)
"""A prediction in HU rises with the CT by less or more than 1, as it is blurred or noisy, but within these."""

INTERVALS = ("quantiles", "std")
"""What files beside a prediction may hold: CASE_ID_quantiles.nii.gz or CASE_ID_std.nii.gz."""


def prediction_file(folder: str | os.PathLike[str], case_id: str) -> Path:
    """The one prediction of a case: CASE_ID.nii.gz in the folder, or the only NIfTI in a folder CASE_ID of it.

    Uncompressed files do as well; files of `INTERVALS` do not count.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If there are several.
    """
    folder = Path(folder)
    found = [path for path in (folder / f"{case_id}.nii.gz", folder / f"{case_id}.nii") if path.is_file()]
    for path in sorted((folder / case_id).glob("[!.]*.nii*")):
        if not path.name.split(".nii")[0].endswith(tuple(f"_{kind}" for kind in INTERVALS)):
            found.append(path)
    if not found:
        raise FileNotFoundError(f"no prediction of {case_id}: expected {folder / case_id}.nii.gz or {case_id}/*.nii.gz")
    if len(found) > 1:
        raise ValueError(f"case {case_id} has {len(found)} predictions, {', '.join(map(str, found))}; keep one of them")
    return found[0]


def prediction_files(folder: str | os.PathLike[str], cases: Sequence[Mapping[str, Any]]) -> dict[str, Path]:
    """The prediction of every case, by its id.

    Raises:
        FileNotFoundError: If one or more are missing: a mean over some of the cases can be compared with nothing.
        ValueError: If a case has several.
    """
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"{folder}: no such folder of predictions")
    files, missing = {}, []
    for case in cases:
        try:
            files[case["case_id"]] = prediction_file(folder, case["case_id"])
        except FileNotFoundError as error:
            missing.append(str(error))
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(cases)} predictions are missing; {missing[0]}")
    return files


def load_truth(case: Mapping[str, Any], size: int | None = None) -> MetaTensor:
    """The CT of a case in HU (1, X, X, X), not clipped.

    Args:
        case: A case of `load_datalist`.
        size: Voxels along each side, antialiased on the way down; those of the file if None.

    Raises:
        ValueError: If it is not a cube of equal voxels, which every probe needs.
    """
    truth = read_volume(case["label"])
    sides, steps = truth.shape[1:], truth.pixdim
    if len(set(sides)) != 1 or float(steps.max() - steps.min()) > 1e-3 * float(steps.max()):
        raise ValueError(
            f"{case['label']}: expected a cube of equal voxels, got {tuple(sides)} voxels of "
            f"{[round(float(step), 3) for step in steps]} mm; run prepare on the CTs"
        )
    if size in (None, truth.shape[-1]):
        return truth
    extent = float(truth.pixdim[0]) * truth.shape[1]
    return CTPreprocessing(int(size or 0), extent).cubes(truth, [int(size or 0)])[0]


def load_pair(
    case: Mapping[str, Any], path: str | os.PathLike[str], *, size: int | None = None, resample: bool = False
) -> tuple[MetaTensor, MetaTensor]:
    """Prediction and truth of a case in HU on the truth's grid, (1, X, X, X) both, neither clipped.

    Args:
        case: A case of `load_datalist`.
        path: The prediction.
        size: As in `load_truth`.
        resample: Resample a prediction of another shape, place or orientation to the truth's grid, and not refuse it.

    Raises:
        ValueError: If the prediction is on another grid and `resample` is false, is not in HU, or a file is not a CT.
    """
    truth, prediction = load_truth(case, size), read_volume(path)
    if resample and not _same_grid(prediction, truth):
        covered = _covered(prediction, truth)
        if covered < MIN_COVERED:
            raise ValueError(
                f"{path} covers {covered:.0%} of its CT, at least {MIN_COVERED:.0%} are needed to resample it; write "
                "predictions with the CT's affine"
            )
        prediction = resample_like(prediction, truth)
    check_grid(
        prediction,
        truth,
        path,
        ", score at another size of the cube with --size, or resample them with --resample true",
    )
    check_scale(prediction, truth, path)
    return prediction, truth


def check_scale(prediction: MetaTensor, truth: MetaTensor, path: str | os.PathLike[str]) -> None:
    """Refuse a prediction whose numbers are no HU.

    They are of [0, 1] or [-1, 1], or far nearer to the CT when 1000 or 1024 are taken off or added, or a multiple of it
    that no blur and no error explains.

    Args:
        prediction: CT (1, X, Y, Z), not constant.
        truth: CT in HU on the same grid.
        path: The prediction's file.

    Raises:
        ValueError: With one line that says what the numbers are.
    """
    volume, expected = prediction.as_tensor().float(), truth.as_tensor().float()
    low, high = float(volume.min()), float(volume.max())
    if low == high:
        return
    found = ""
    if low >= -1.01 and high <= 1.01:
        found = "[0, 1], or another window's numbers," if low >= -0.01 else "[-1, 1], or another window's numbers,"
    else:
        offsets = (0.0, *OFFSETS, *(-offset for offset in OFFSETS))
        errors = {offset: float((volume - offset - expected).abs().mean()) for offset in offsets}
        best = min(errors, key=lambda offset: errors[offset])
        if best and errors[best] < 0.5 * errors[0.0]:
            sign = "+" if best > 0 else "-"
            found = f"HU {sign} {abs(best):g} (mean error {errors[best]:.0f} HU without, {errors[0.0]:.0f} as they are)"
        else:
            x, y = expected.double().flatten(), volume.double().flatten()
            x, y = x - x.mean(), y - y.mean()
            slope = float((x * y).sum() / x.square().sum().clamp(min=1e-12))
            likeness = slope * float(x.norm() / y.norm().clamp(min=1e-12))
            if abs(likeness) > MIN_LIKENESS and not SLOPES[0] < slope < SLOPES[1]:
                found = f"{slope:.3g} times the CT's (correlation {likeness:.2f})"
    if found:
        raise ValueError(f"{path}: the numbers {low:g} to {high:g} are {found} and not HU; write predictions in HU")


def check_grid(prediction: MetaTensor, truth: MetaTensor, path: str | os.PathLike[str], otherwise: str = "") -> None:
    """Refuse a prediction of another shape, place or orientation than its CT.

    Args:
        prediction: CT (1, X, Y, Z) with its affine.
        truth: CT with its affine.
        path: The prediction's file.
        otherwise: What else the user can do, for the message.

    Raises:
        ValueError: If the grids differ.
    """
    if not _same_grid(prediction, truth):
        expected, got = (f"shape {tuple(v.shape[1:])} and affine {_affine_text(v)}" for v in (truth, prediction))
        raise ValueError(
            f"{path} is on another grid than its CT: expected {expected}, got {got}; "
            f"write predictions on the CT's grid{otherwise}"
        )


def _covered(prediction: MetaTensor, truth: MetaTensor) -> float:
    """Share of the CT's voxels that lie within a prediction."""
    sides = [torch.linspace(0, size - 1, min(size, 32), dtype=torch.float64) for size in truth.shape[1:]]
    grid = torch.stack([*torch.meshgrid(*sides, indexing="ij"), torch.ones([len(side) for side in sides])], dim=-1)
    matrix = torch.linalg.solve(prediction.affine.double(), truth.affine.double())
    places = (grid.double() @ matrix.T)[..., :3]
    size = torch.tensor(prediction.shape[1:])
    return float(((places > -0.51) & (places < size - 0.49)).all(dim=-1).double().mean())


def _same_grid(prediction: MetaTensor, truth: MetaTensor) -> bool:
    apart = float((prediction.affine.double() - truth.affine.double()).abs().max())
    return prediction.shape == truth.shape and apart <= PLACE_TOLERANCE


def _affine_text(volume: MetaTensor) -> str:
    return str([round(float(value), 2) for value in volume.affine[:3].flatten()])


def load_quantiles(path: str | os.PathLike[str], prediction: MetaTensor) -> np.ndarray | None:
    """A method's intervals, where it gives them, as the quantiles of `trct_monai.metrics.uncertainty` (X, Y, Z, 4).

    Beside the prediction stands either CASE_ID_quantiles.nii.gz, (X, Y, Z, 4) with the 5, 25, 75 and 95 % quantiles in
    HU, or CASE_ID_std.nii.gz with a standard deviation in HU, taken as that of a normal distribution.

    Args:
        path: The prediction's file.
        prediction: The prediction (1, X, Y, Z) in HU.

    Raises:
        ValueError: If they are on another grid than the prediction, or cannot be read.
    """
    found = interval_file(path)
    return None if found is None else _read_intervals(*found, prediction)


def interval_file(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The file with the intervals of a prediction and which of `INTERVALS` it holds; None if the method gives none."""
    stem = Path(path).name.removesuffix(".gz").removesuffix(".nii")
    for kind in INTERVALS:
        for file in (Path(path).with_name(f"{stem}_{kind}{suffix}") for suffix in (".nii.gz", ".nii")):
            if file.is_file():
                return file, kind
    return None


def _read_intervals(file: Path, kind: str, prediction: MetaTensor) -> np.ndarray:
    read = read_nifti(file)
    values, affine = read.values.astype(np.float32), read.affine
    if not np.isfinite(values).all():
        raise ValueError(f"{file}: the intervals hold values that are not finite (NaN or infinite)")
    shape = tuple(prediction.shape[1:])
    expected = (*shape, len(QUANTILES)) if kind == "quantiles" else shape
    if values.shape != expected or not np.allclose(affine, prediction.affine.numpy(), atol=PLACE_TOLERANCE):
        raise ValueError(f"{file}: expected {expected} numbers on the grid of the prediction, got {values.shape}")
    return values if kind == "quantiles" else quantiles_from_std(prediction[0].numpy(), values)
