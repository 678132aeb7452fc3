"""Contrast against size, by an observer who knows where to look."""

import math

import numpy as np
import pytest

from trct_monai.metrics.detectability import Observation, Sphere, detectability, observe

SHAPE, SPACING = (24, 26, 28), 5.0


@pytest.mark.parametrize("diameter", [6.0, 10.0, 20.0, 50.0])
@pytest.mark.parametrize("center", [(0.0, 0.0, 0.0), (2.5, 2.5, 2.5), (11.3, -7.1, 20.9)])
def test_a_sphere_has_its_volume_and_its_middle(center: tuple[float, float, float], diameter: float) -> None:
    share = Sphere(center, diameter, 100.0).share(SHAPE, SPACING)
    assert 0 <= share.min() and share.max() <= 1
    assert share.sum() * SPACING**3 == pytest.approx(math.pi / 6 * diameter**3, rel=0.02)
    axes = [(np.arange(n) - (n - 1) / 2) * SPACING for n in SHAPE]
    found = [(share.sum(axis=tuple({0, 1, 2} - {i})) * axes[i]).sum() / share.sum() for i in range(3)]
    assert found == pytest.approx(center, abs=0.5)


def test_a_sphere_smaller_than_a_voxel_keeps_its_volume() -> None:
    share = Sphere((2.5, 2.5, 2.5), 2.0, 100.0).share(SHAPE, SPACING)
    assert share.sum() * SPACING**3 == pytest.approx(math.pi / 6 * 2.0**3, rel=0.02)


def test_a_sphere_outside_the_volume_fills_no_voxel() -> None:
    assert Sphere((500.0, 0.0, 0.0), 20.0, 100.0).share(SHAPE, SPACING).sum() == 0


def test_the_response_is_the_contrast_whatever_the_background() -> None:
    sphere = Sphere((3.0, 2.0, -4.0), 30.0, 400.0)
    volume = -800.0 + sphere.contrast_hu * sphere.share(SHAPE, SPACING)
    assert sphere.response(np.full(SHAPE, -800.0), SPACING) == pytest.approx(0.0, abs=1e-9)
    assert 0.8 * 400 < sphere.response(volume, SPACING) < 400  # voxels on the rim are partly lung


def cases(count: int) -> list[dict]:
    result: list[dict] = []
    for number in range(count):
        result.append({"case_id": f"p{number}"})
        for contrast in (100.0, 400.0):
            planted = {"base": f"p{number}", "center_mm": [0, 5, 0], "diameter_mm": 30.0, "contrast_hu": contrast}
            result.append({"case_id": f"p{number}_c{contrast:g}", "planted": planted})
    return result


def run(share_of_contrast: float, noise: float) -> list[dict[str, float]]:
    """A method that shows a share of the contrast, in patients who differ by noise."""

    def load(case_id: str) -> tuple[np.ndarray, np.ndarray, float]:
        patient, _, contrast = case_id.partition("_c")
        generator = np.random.default_rng(int(patient[1:]))
        truth = -800.0 + noise * generator.normal(size=SHAPE)
        sphere = float(contrast or 0.0) * Sphere((0.0, 5.0, 0.0), 30.0, 1.0).share(SHAPE, SPACING)
        return truth + share_of_contrast * sphere, truth + sphere, SPACING

    return detectability(observe(cases(12), load))


def test_the_truth_has_the_whole_contrast_and_is_always_told_apart() -> None:
    for row in run(1.0, 5.0):
        assert row["auc"] == 1.0 and row["recovered_contrast"] == pytest.approx(1.0) and row["cases"] == 12


def test_a_reconstruction_without_contrast_is_at_chance() -> None:
    for row in run(0.0, 50.0):
        assert row["auc"] == row["paired"] == 0.5 and row["d_prime"] == 0.0 and row["recovered_contrast"] == 0.0


def test_more_contrast_has_a_higher_auc() -> None:
    faint, strong = run(0.3, 300.0)
    assert (faint["contrast_hu"], strong["contrast_hu"]) == (100.0, 400.0)
    assert faint["paired"] == strong["paired"] == 1.0  # patients differ by more than the sphere shows
    assert 0.5 < faint["auc"] < strong["auc"] and faint["d_prime"] < strong["d_prime"]
    assert faint["recovered_contrast"] == pytest.approx(0.3) == strong["recovered_contrast"]


def test_responses_without_variation_have_an_infinite_d_prime() -> None:
    one = Observation(Sphere((0.0, 0.0, 0.0), 10.0, 100.0), 80.0, 0.0, 90.0)
    (row,) = detectability([one, one])
    assert row["d_prime"] == math.inf and row["auc"] == 1.0
    assert detectability([]) == []


def test_a_planted_case_without_its_base_is_refused() -> None:
    with pytest.raises(ValueError, match="p0_c100 has a sphere planted in p0, which is missing"):
        observe(cases(1)[1:], lambda case_id: (np.zeros(SHAPE), np.zeros(SHAPE), SPACING))


def test_a_sphere_that_no_voxel_shows_is_refused() -> None:
    volume, sphere = np.zeros(SHAPE), Sphere((500.0, 0.0, 0.0), 20.0, 100.0)
    for one in (sphere, Sphere((0.0, 0.0, 0.0), 2000.0, 100.0)):
        with pytest.raises(ValueError, match="has nothing inside it, or around it"):
            one.response(volume, SPACING)
    with pytest.raises(ValueError, match="the truths do not show the spheres of 20 mm and 100 HU"):
        detectability([Observation(sphere, 1.0, 0.0, 0.0)])
