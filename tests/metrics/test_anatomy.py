"""What an error costs in anatomy."""

import math

import numpy as np
import pytest
from scipy import ndimage

from trct_monai.metrics.anatomy import (
    contrast_ratio,
    dice_by_threshold,
    dice_vessels,
    equivalent_blur,
    find_lungs,
    lung_hull,
    lung_volume_ml,
    mae_by_tissue,
    orientation,
)
from trct_monai.phantoms import thorax_phantom

SPACING = 10.0


@pytest.fixture(scope="module")
def thorax() -> np.ndarray:
    return np.asarray(thorax_phantom(3, 32, 320.0).ct_hu, dtype=np.float32).clip(-1024, 1476)


def box_patient(shape: tuple[int, int, int] = (20, 20, 20)) -> np.ndarray:
    """Air around a body of water with one lung of 6 x 6 x 10 voxels that the scan cuts at the top."""
    hu = np.full(shape, -1000.0)
    hu[2:-2, 2:-2] = 0.0
    hu[5:11, 5:11, -10:] = -800.0
    return hu


def test_lungs_are_enclosed_air_and_may_be_cut_by_the_scan() -> None:
    hu = box_patient()
    assert np.array_equal(find_lungs(hu, SPACING), hu == -800.0)
    assert lung_volume_ml(hu, SPACING) == pytest.approx(6 * 6 * 10 * SPACING**3 / 1000)
    hu[14, 14, 10] = -800.0  # a pocket of 1 ml is no lung
    assert lung_volume_ml(hu, SPACING) == pytest.approx(360.0)
    assert lung_volume_ml(np.zeros((8, 8, 8)), SPACING) == 0.0


def test_lungs_of_a_phantom_have_a_human_volume(thorax: np.ndarray) -> None:
    assert 1500 < lung_volume_ml(thorax, SPACING) < 9000


def test_the_error_of_a_tissue_is_measured_where_the_truth_has_it() -> None:
    truth = box_patient()
    truth[3, 3, :4] = 700.0
    prediction = truth + np.where(
        truth == -800.0, 10.0, np.where(truth == 700.0, 30.0, np.where(truth == 0.0, 20.0, 0))
    )
    assert mae_by_tissue(prediction, truth, SPACING) == pytest.approx({"lung": 10.0, "soft_tissue": 20.0, "bone": 30.0})
    assert math.isnan(mae_by_tissue(prediction, np.zeros_like(truth), SPACING)["bone"])


def test_dice_of_half_the_bone_is_two_thirds() -> None:
    truth, prediction = np.zeros((8, 8, 8)), np.zeros((8, 8, 8))
    truth[:4], prediction[:2] = 500.0, 500.0
    assert dice_by_threshold(prediction, truth) == pytest.approx({"air": 1.0, "soft_tissue": 0.8, "bone": 2 / 3})
    assert dice_by_threshold(truth - 2000, truth)["air"] == 0.0


@pytest.mark.parametrize("sigma_mm", [10.0, 15.0, 25.0])
def test_equivalent_blur_finds_the_sigma_of_a_gaussian(thorax: np.ndarray, sigma_mm: float) -> None:
    blurred = ndimage.gaussian_filter(thorax.astype(np.float64), sigma_mm / SPACING, mode="reflect", truncate=8)
    # A Gaussian that is sampled at its voxels is not the continuous one, the less the narrower it is.
    assert equivalent_blur(blurred, thorax, SPACING) == pytest.approx(sigma_mm, rel=0.05)


def test_equivalent_blur_grows_with_the_error_and_ends_at_the_volume(thorax: np.ndarray) -> None:
    noise = np.random.default_rng(0).normal(size=thorax.shape)
    blurs = [equivalent_blur(thorax + scale * noise, thorax, SPACING) for scale in (0, 10, 50, 200)]
    assert blurs[0] == 0.0 and blurs == sorted(blurs)
    assert equivalent_blur(thorax + 5000, thorax, SPACING) == 320.0


def test_the_orientation_of_a_mirrored_patient_is_minus_one_along_that_axis(thorax: np.ndarray) -> None:
    assert orientation(thorax, thorax) == pytest.approx({"left_right": 1.0, "back_front": 1.0, "down_up": 1.0})
    for axis, name in enumerate(("left_right", "back_front", "down_up")):
        found = orientation(np.flip(thorax, axis), thorax)
        assert found.pop(name) == pytest.approx(-1.0)
        assert min(found.values()) > 0
    assert orientation(np.zeros_like(thorax), thorax)["left_right"] == 0.0
    assert orientation(thorax, np.zeros_like(thorax))["left_right"] == 1.0


def test_a_uniform_volume_has_no_contrast(thorax: np.ndarray) -> None:
    assert contrast_ratio(np.full_like(thorax, thorax.mean()), thorax) == pytest.approx(0.0, abs=1e-3)
    assert contrast_ratio(thorax, thorax) == 1.0 and contrast_ratio(0 * thorax, 0 * thorax) == 1.0


def vessel_patient() -> np.ndarray:
    """A lung of 12 x 12 x 12 voxels in water, with a vessel of one voxel along z and a lesion of 2 x 2 x 2."""
    hu = np.full((24, 24, 24), -1000.0)
    hu[2:-2, 2:-2] = 0.0
    hu[6:18, 6:18, 6:18] = -800.0
    hu[11, 11, 7:17] = 40.0
    hu[14:16, 14:16, 10:12] = 100.0
    return hu


def test_vessels_are_what_is_dense_in_the_hull_of_the_lungs() -> None:
    truth = vessel_patient()
    hull = lung_hull(truth, SPACING)
    assert hull[6:18, 6:18, 6:18].all() and hull.sum() == 12**3  # vessel and lesion, and nothing of the chest wall
    assert dice_vessels(truth, truth, SPACING) == 1.0
    without = np.where((truth == 40.0), -800.0, truth)
    assert dice_vessels(without, truth, SPACING) == pytest.approx(2 * 8 / (8 + 18))
    assert dice_vessels(np.full_like(truth, -800.0), truth, SPACING) == 0.0
    assert dice_vessels(np.where(hull, truth, 3000.0), truth, SPACING) == 1.0  # outside of the hull nothing counts


def test_without_vessels_or_lungs_there_is_no_overlap() -> None:
    assert math.isnan(dice_vessels(box_patient(), box_patient(), SPACING))
    assert math.isnan(dice_vessels(np.zeros((8, 8, 8)), np.zeros((8, 8, 8)), SPACING))
    assert not lung_hull(np.zeros((8, 8, 8)), SPACING).any()


def test_the_hull_of_a_phantom_holds_its_vessels_and_little_else(thorax: np.ndarray) -> None:
    lungs, hull = find_lungs(thorax, SPACING), lung_hull(thorax, SPACING)
    assert (hull | ~lungs).all() and 0 < (hull & ~lungs).sum() < 0.25 * lungs.sum()
