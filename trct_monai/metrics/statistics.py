"""How sure a mean over patients is, and whether one method beats another."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
NUM_RESAMPLES = 5000


@dataclass(frozen=True)
class Estimate:
    """A mean over cases with its bootstrap interval.

    Attributes:
        mean: Mean over cases.
        low: Lower end of the 95 % interval.
        high: Upper end.
        std: Standard deviation over cases.
        cases: Number of cases with a value.
    """

    mean: float
    low: float
    high: float
    std: float
    cases: int


def bootstrap_mean(values: Sequence[float], patients: Sequence[str], seed: int = 0) -> Estimate | None:
    """The mean over cases with a 95 % percentile bootstrap interval over patients (Efron and Tibshirani, 1993, ch. 13).

    Patients are drawn with replacement, each with all of its cases: cases of one patient are no independent evidence.
    Values that are not finite are left out.

    Args:
        values: One value for each case.
        patients: Whose case it is.
        seed: Seed of the draws.

    Returns:
        The estimate; None where no value is finite.
    """
    kept = [(value, patient) for value, patient in zip(values, patients, strict=True) if isfinite(value)]
    if not kept:
        return None
    numbers = np.array([value for value, _ in kept])
    _, whose = np.unique([patient for _, patient in kept], return_inverse=True)
    sums, counts = np.bincount(whose, numbers), np.bincount(whose)
    draws = np.random.default_rng(seed).integers(len(sums), size=(NUM_RESAMPLES, len(sums)))
    means = sums[draws].sum(axis=1) / counts[draws].sum(axis=1)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    return Estimate(float(numbers.mean()), float(low), float(high), spread, len(numbers))


def paired_test(a: Sequence[float], b: Sequence[float], patients: Sequence[str]) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test (Biometrics Bulletin 1(6), 1945) on the patients' differences.

    Args:
        a: A method's scores, one for each case.
        b: Another method's scores of the same cases.
        patients: Whose case it is; a patient's cases are averaged first.

    Returns:
        The p-value; 1 where the methods do not differ in any patient.
    """
    differences = np.array(a, dtype=float) - np.array(b, dtype=float)
    _, whose = np.unique(list(patients), return_inverse=True)
    by_patient = np.bincount(whose, differences) / np.bincount(whose)
    if not by_patient.any():
        return 1.0
    return float(stats.wilcoxon(by_patient).pvalue)


def skill_score(psnr: Sequence[float], reference_psnr: Sequence[float]) -> list[float]:
    """1 - MSE / MSE of a reference, case by case (Murphy, Monthly Weather Review 116, 1988).

    1 is perfect, 0 is no better than the reference, below 0 worse.

    Args:
        psnr: PSNR in dB of the method.
        reference_psnr: PSNR of the reference with the same peak, such as that of the mean volume.
    """
    return [1.0 - 10.0 ** ((r - p) / 10.0) for p, r in zip(psnr, reference_psnr, strict=True)]
