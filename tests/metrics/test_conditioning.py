"""Whether a method looks at its radiographs shows in its predictions."""

import numpy as np
import pytest

from trct_monai.metrics import measure_conditioning

COUNT, VOXELS = 12, 5000


@pytest.fixture(scope="module")
def truths() -> np.ndarray:
    """Patients who have much in common."""
    generator = np.random.default_rng(0)
    return (2.0 * generator.normal(size=VOXELS) + generator.normal(size=(COUNT, VOXELS))).astype(np.float32)


def test_the_truths_themselves_rank_first_and_lose_most_when_shuffled(truths: np.ndarray) -> None:
    found = measure_conditioning(truths, truths)
    assert found.prediction_correlation == pytest.approx(found.truth_correlation) == pytest.approx(0.8, abs=0.02)
    assert found.variance_ratio == pytest.approx(1.0)
    assert found.matching_rank == 1.0 and found.chance_rank == 6.5
    assert found.shuffled_psnr_drop > 90 and found.p_value < 1e-3 and not found.ignores_input


@pytest.mark.parametrize("noise", [0.0, 1e-6, 0.05, 0.5])
def test_the_mean_volume_with_a_little_noise_ignores_its_input(truths: np.ndarray, noise: float) -> None:
    generator = np.random.default_rng(1)
    found = measure_conditioning(truths.mean(axis=0) + noise * generator.normal(size=truths.shape), truths)
    assert found.ignores_input
    assert abs(found.shuffled_psnr_drop) < 0.1 and 3 < found.matching_rank < 10
    assert found.variance_ratio == pytest.approx(noise**2 * COUNT / (COUNT - 1), rel=0.3, abs=1e-6)


def test_a_faint_dependence_on_the_patient_does_not_ignore_the_input(truths: np.ndarray) -> None:
    faint = truths.mean(axis=0) + 0.3 * (truths - truths.mean(axis=0))
    found = measure_conditioning(faint, truths)
    assert not found.ignores_input and found.matching_rank == 1.0
    assert found.variance_ratio == pytest.approx(0.09, rel=1e-3)
    assert found.prediction_correlation > 0.95 > found.truth_correlation


def test_the_psnr_drop_of_shuffled_radiographs_is_that_of_a_loop_over_pairs(truths: np.ndarray) -> None:
    predictions = truths + 0.5 * np.random.default_rng(2).normal(size=truths.shape)
    drops = []
    for i in range(COUNT):
        errors = np.square(predictions - truths[i]).mean(axis=1)
        drops.append(np.mean([10 * np.log10(errors[j] / errors[i]) for j in range(COUNT) if j != i]))
    assert measure_conditioning(predictions, truths).shuffled_psnr_drop == pytest.approx(np.mean(drops), rel=1e-6)


def test_predictions_of_other_patients_ignore_their_input(truths: np.ndarray) -> None:
    found = measure_conditioning(np.roll(truths, 1, axis=0), truths)
    assert found.ignores_input and found.matching_rank > 1.5 and found.shuffled_psnr_drop < 0


def test_too_few_patients_are_refused(truths: np.ndarray) -> None:
    with pytest.raises(ValueError, match="N >= 5 patients"):
        measure_conditioning(truths[:4], truths[:4])
