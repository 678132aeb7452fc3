"""The modulation transfer of beads, against Gaussians whose transfer is known."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from trct_monai.metrics.detectability import PlantedPair
from trct_monai.metrics.sharpness import DIRECTIONS, LineSpread
from trct_monai.metrics.sphere import Sphere

SHAPE, SPACING = (56, 52, 48), 2.5


def pair(change: Any, diameter: float = 5.0, spacing: float = SPACING, center: float = 11.25) -> PlantedPair:
    """A bead that a method shows so changed, in a volume of zeros."""
    sphere = Sphere((center, -center, center), diameter, 1000.0)
    truth, added = np.zeros(SHAPE), 1000.0 * sphere.share(SHAPE, spacing)
    return PlantedPair("a", "b", sphere, (), change(added), truth, added, truth, spacing, truth < -500)


def transfer(*pairs: PlantedPair) -> dict[str, Any]:
    spread = LineSpread()
    for one in pairs:
        spread.add(one)
    found = spread.transfer()
    assert found is not None
    return found


def test_a_gaussian_has_its_modulation_transfer_in_each_direction() -> None:
    sigmas = (4.0, 6.0, 9.0)  # mm
    found = transfer(
        pair(lambda added: ndimage.gaussian_filter(added, [sigma / SPACING for sigma in sigmas], truncate=6))
    )
    for name, sigma in zip(DIRECTIONS, sigmas):
        expected = 10 * math.sqrt(2 * math.log(2)) / (2 * math.pi * sigma)  # lp/cm
        assert found["mtf50_lp_cm"][name] == pytest.approx(expected, rel=0.05), name
        assert found["modulation"][name][0] == pytest.approx(1.0, abs=0.05)
    assert found["frequencies_lp_cm"][-1] == found["limit_lp_cm"] == pytest.approx(10 / (2 * SPACING))


def test_a_perfect_reconstruction_is_sharper_than_can_be_measured() -> None:
    found = transfer(pair(lambda added: added))
    assert all(np.allclose(found["modulation"][name], 1.0) for name in DIRECTIONS)
    assert set(found["mtf50_lp_cm"].values()) == {None}


def test_lost_contrast_lowers_the_modulation_and_not_the_sharpness() -> None:
    blur = [4.0 / SPACING] * 3
    whole, part = (transfer(pair(lambda a: share * ndimage.gaussian_filter(a, blur))) for share in (1.0, 0.3))  # noqa: B023
    assert part["mtf50_lp_cm"]["down_up"] == pytest.approx(whole["mtf50_lp_cm"]["down_up"], rel=1e-3)
    assert part["modulation"]["down_up"][0] == pytest.approx(0.3 * whole["modulation"]["down_up"][0], rel=1e-2)


@pytest.mark.parametrize("share", [0.0, 0.01, -0.5])
def test_what_hardly_comes_back_or_comes_back_dark_is_neither_sharp_nor_blurred(share: float) -> None:
    assert set(transfer(pair(lambda added: share * added))["mtf50_lp_cm"].values()) == {None}


def test_patients_are_averaged_before_the_magnitude() -> None:
    """Beads that are shown 10 mm to the one side and to the other are a blurred mean, though each of them is sharp."""
    shift = round(10 / SPACING)
    found = transfer(*(pair(lambda added: np.roll(added, n, axis=0)) for n in (-shift, shift)))  # noqa: B023
    assert found["cases"] == 2 and found["mtf50_lp_cm"]["left_right"] < 0.2
    assert found["mtf50_lp_cm"]["back_front"] is found["mtf50_lp_cm"]["down_up"] is None


def test_the_smallest_beads_count_alone() -> None:
    small, large = pair(lambda added: added), pair(lambda added: 0 * added, diameter=15.0)
    for order in ((small, large), (large, small)):
        found = transfer(*order)
        assert (found["diameter_mm"], found["cases"]) == (5.0, 1) and found["modulation"]["down_up"][0] == 1.0
    assert LineSpread().transfer() is None


def test_frequencies_at_which_a_large_bead_has_no_signal_are_left_out() -> None:
    found = transfer(pair(lambda added: added, diameter=20.0))
    assert found["limit_lp_cm"] < 10 * 1.43 / 20  # a sphere's first zero


def test_a_bead_at_the_border_is_taken_as_far_as_the_volume_goes() -> None:
    assert transfer(pair(lambda added: added, center=58.75))["modulation"]["left_right"][0] == pytest.approx(1.0)


def test_voxels_of_two_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="a has voxels of 5 mm, others of 2.5 mm; choose one size with --size"):
        transfer(pair(lambda added: added), pair(lambda added: added, spacing=5.0))
