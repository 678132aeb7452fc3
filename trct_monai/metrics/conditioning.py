"""Does a method look at its radiographs? Four numbers from its predictions of many patients.

A picture of the average patient scores well, whatever the radiographs show. Nothing of the method is needed but its
predictions: giving it another patient's radiographs is the same as taking the other patient's prediction.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

Array = np.ndarray

MIN_CASES = 5
NUMBERS_AT_ONCE = 2**24
NO_VARIATION = 1e-10
"""Share of a volume's energy below which its difference from the mean prediction is rounding."""


@dataclass(frozen=True)
class Conditioning:
    """What `measure_conditioning` gives.

    Attributes:
        num_cases: Number of patients.
        prediction_correlation: Mean Pearson correlation between the predictions of two patients; 1 = all equal.
        truth_correlation: The same between their truths: what it should be.
        variance_ratio: Variance over patients, summed over voxels, of the predictions over that of the truths.
        matching_rank: Mean rank of the matching CT among all truths, by the correlation with the prediction after
            each set's mean over patients is subtracted; 1 = the patient's own CT is always the most similar.
        chance_rank: The rank of a method that knows nothing, (N + 1) / 2.
        shuffled_psnr_drop: Mean drop of the PSNR in dB when radiographs are shuffled between patients.
        p_value: Probability that predictions and truths paired at random are as similar (permutation test).
    """

    num_cases: int
    prediction_correlation: float
    truth_correlation: float
    variance_ratio: float
    matching_rank: float
    chance_rank: float
    shuffled_psnr_drop: float
    p_value: float

    @property
    def ignores_input(self) -> bool:
        """Whether nothing shows that the predictions depend on the radiographs, neither rank nor PSNR."""
        return self.p_value > 0.01 or self.shuffled_psnr_drop < 0.1


def measure_conditioning(
    predictions: Float[Array, "N M"], truths: Float[Array, "N M"], num_permutations: int = 9999, seed: int = 0
) -> Conditioning:
    """Four numbers that show whether predictions depend on the patient.

    All of them follow from the scalar products between volumes, which are summed block by block.

    Args:
        predictions: One row of voxels for each patient.
        truths: The patients' truths, in the same order.
        num_permutations: Permutations of the test.
        seed: Seed of the test.

    Raises:
        ValueError: If the shapes differ or there are less than five patients: no permutation could be significant.
    """
    if predictions.shape != truths.shape or predictions.ndim != 2 or len(predictions) < MIN_CASES:
        raise ValueError(
            f"predictions and truths must be (N, M) with N >= {MIN_CASES} patients, "
            f"got {predictions.shape} and {truths.shape}"
        )
    count, num_voxels = predictions.shape
    products = np.zeros((2 * count, 2 * count))
    sums = np.zeros(2 * count)
    step = max(1, NUMBERS_AT_ONCE // (2 * count))
    for start in range(0, num_voxels, step):
        block = np.concatenate([volumes[:, start : start + step] for volumes in (predictions, truths)])
        block = block.astype(np.float64)
        products += block @ block.T
        sums += block.sum(axis=1)
    p, t = slice(0, count), slice(count, 2 * count)
    # Products of the volumes less their mean over patients: H G H, H = I - 1/N.
    center = np.eye(count) - 1.0 / count
    pp, pt, tt = (center @ products[rows, columns] @ center for rows, columns in ((p, p), (p, t), (t, t)))
    similarity = _cosines(pt, _energies(pp, products[p, p]), _energies(tt, products[t, t]))
    ranks = [count + 1 - stats.rankdata(row)[i] for i, row in enumerate(similarity)]
    squared_errors = np.diag(products[p, p])[:, None] + np.diag(products[t, t]) - 2 * products[p, t]
    return Conditioning(
        num_cases=count,
        prediction_correlation=_mean_correlation(products[p, p], sums[p], num_voxels),
        truth_correlation=_mean_correlation(products[t, t], sums[t], num_voxels),
        variance_ratio=float(np.trace(pp) / np.trace(tt)) if np.trace(tt) > 0 else 1.0,
        matching_rank=float(np.mean(ranks)),
        chance_rank=(count + 1) / 2,
        shuffled_psnr_drop=_shuffled_drop(squared_errors / num_voxels),
        p_value=_permutation_test(similarity, num_permutations, seed),
    )


def _energies(centered: Array, products: Array) -> Array:
    """Squared norms of the differences from the mean; 0 where these are rounding."""
    energies = np.diag(centered)
    return np.where(energies > NO_VARIATION * np.diag(products), energies, 0.0)


def _cosines(products: Array, a: Array, b: Array) -> Array:
    norms = np.sqrt(a[:, None] * b)
    cosines: Array = np.divide(products, norms, out=np.zeros_like(products), where=norms > 0)
    return cosines


def _mean_correlation(products: Array, sums: Array, num_voxels: int) -> float:
    """Mean Pearson correlation between two different rows."""
    covariances = products / num_voxels - np.outer(sums, sums) / num_voxels**2
    spreads = np.sqrt(np.diag(covariances).clip(min=0))
    norms = np.outer(spreads, spreads)
    correlations = np.divide(covariances, norms, out=np.ones_like(norms), where=norms > 0)
    return float(correlations[~np.eye(len(products), dtype=bool)].mean())


def _shuffled_drop(mse: Array) -> float:
    """Mean of PSNR(own) - PSNR(other's prediction) in dB over all pairs of patients; any peak cancels."""
    floor = max(float(mse.max()), 1e-30) * 1e-10  # a prediction without error: 100 dB above the worst
    decibels = -10.0 * np.log10(mse.clip(min=floor))  # row: prediction; column: truth
    count = len(mse)
    others = (decibels.sum(axis=0) - np.diag(decibels)) / (count - 1)
    return float(np.mean(np.diag(decibels) - others))


def _permutation_test(similarity: Array, num_permutations: int, seed: int) -> float:
    """How often predictions and truths paired at random are as similar on average as the true pairs."""
    generator = np.random.default_rng(seed)
    count = len(similarity)
    own = float(np.trace(similarity))
    orders = np.argsort(generator.random((num_permutations, count)), axis=1)
    totals = similarity[np.arange(count), orders].sum(axis=1)
    as_similar = int((totals >= own - 1e-12).sum())
    return (1 + as_similar) / (1 + num_permutations)
