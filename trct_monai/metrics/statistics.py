"""How certain a mean over patients is, and whether one method is better than another."""

from collections.abc import Mapping, Sequence
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
    Values that are not finite are left out; the estimate's ``cases`` tells how many remain.

    Args:
        values: One value for each case.
        patients: The patient of each case.
        seed: Seed of the draws.

    Returns:
        The estimate; None where no value is finite.
    """
    kept = [(value, patient) for value, patient in zip(values, patients, strict=True) if isfinite(value)]
    if not kept:
        return None
    numbers = np.array([value for value, _ in kept])
    _, group = np.unique([patient for _, patient in kept], return_inverse=True)
    sums, counts = np.bincount(group, numbers), np.bincount(group)
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
        patients: The patient of each case; a patient's cases are averaged first.

    Returns:
        The p-value; 1 where the methods do not differ in any patient.

    Raises:
        ValueError: If a score is not finite: `compare_pairs` leaves such cases out, and tells how many remain.
    """
    differences = np.array(a, dtype=float) - np.array(b, dtype=float)
    if not np.isfinite(differences).all():
        raise ValueError("a paired test needs finite scores of both methods for every case")
    _, group = np.unique(list(patients), return_inverse=True)
    by_patient = np.bincount(group, differences) / np.bincount(group)
    if not by_patient.any():
        return 1.0
    return float(stats.wilcoxon(by_patient).pvalue)


def compare_pairs(
    a: Mapping[str, float], b: Mapping[str, float], patients: Mapping[str, str]
) -> tuple[Estimate | None, float | None]:
    """The mean difference a - b over the cases that both methods have a value of, and its `paired_test`.

    Args:
        a: A method's scores by case; NaN where a case has none.
        b: Another method's scores.
        patients: The patient of each case.

    Returns:
        The difference, its ``cases`` telling how many were compared, or None where none can be; and the p-value, or
        None for fewer than two patients.
    """
    shared = [case for case in patients if isfinite(a[case]) and isfinite(b[case])]
    own, other = ([scores[case] for case in shared] for scores in (a, b))
    group = [patients[case] for case in shared]
    difference = bootstrap_mean([x - y for x, y in zip(own, other)], group)
    return difference, paired_test(own, other, group) if len(set(group)) > 1 else None


def skill_score(psnr: Sequence[float], reference_psnr: Sequence[float]) -> list[float]:
    """1 - MSE / MSE of a reference, case by case (Murphy, Monthly Weather Review 116, 1988).

    1 is perfect, 0 is no better than the reference, below 0 worse.

    Args:
        psnr: PSNR in dB of the method.
        reference_psnr: PSNR of the reference with the same peak, such as that of the mean volume.
    """
    return [1.0 - 10.0 ** ((r - p) / 10.0) for p, r in zip(psnr, reference_psnr, strict=True)]
