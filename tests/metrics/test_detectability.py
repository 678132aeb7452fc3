"""Contrast against size, by an observer who knows where to look."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from trct_monai.geometry import Camera, preset
from trct_monai.metrics.anatomy import find_lungs
from trct_monai.metrics.detectability import Observation, PlantedPair, detectability, observe
from trct_monai.metrics.false_contrast import PLACES, other_places
from trct_monai.metrics.sphere import SHELL, Sphere

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


THORAX, LESION = (48, 44, 40), Sphere((52.5, 2.5, 2.5), 20.0, 500.0)
CAMERAS = tuple(preset("x2ct", 32))


def thorax() -> np.ndarray:
    """Two lungs in a body of water, in voxels of 5 mm."""
    hu = np.full(THORAX, -1000.0)
    hu[2:-2, 2:-2] = 0.0
    hu[5:21, 6:-6, 4:-4] = hu[27:43, 6:-6, 4:-4] = -800.0
    return hu


def look(change: Callable[[np.ndarray], np.ndarray], cameras: tuple[Camera, ...] = CAMERAS) -> dict[str, float]:
    """What is measured of a method that shows the lesion's difference volume so changed."""
    truth, added = thorax(), LESION.contrast_hu * LESION.share(THORAX, SPACING)
    pair = PlantedPair(
        "a",
        "b",
        LESION,
        cameras,
        truth + change(added),
        truth,
        truth + added,
        truth,
        SPACING,
        find_lungs(truth, SPACING),
    )
    (row,) = detectability([Observation.of(pair)])
    return row


def smear(added: np.ndarray) -> np.ndarray:
    """The lesion spread along the rays of both views, which run nearly along y and along x."""
    return sum(np.broadcast_to(added.mean(axis=axis, keepdims=True), added.shape) for axis in (0, 1))


def test_a_perfect_reconstruction_shows_the_lesion_and_nothing_else() -> None:
    row = look(lambda added: added)
    assert row["recovered_contrast"] == pytest.approx(1.0) and row["false_contrast"] == 0.0
    assert row["place_error_mm"] == pytest.approx(0.0, abs=1e-9) and row["size_ratio"] == 1.0
    assert row["located_cases"] == row["false_contrast_cases"] == row["cases"] == 1


def test_half_the_contrast_is_half_the_contrast_in_the_right_place() -> None:
    row = look(lambda added: 0.5 * added)
    assert row["recovered_contrast"] == pytest.approx(0.5) and row["size_ratio"] == 1.0
    assert row["place_error_mm"] == pytest.approx(0.0, abs=1e-9)


def test_a_blurred_lesion_has_less_contrast_and_is_larger() -> None:
    row = look(lambda added: ndimage.gaussian_filter(added, 2.0))
    assert 0.05 < row["recovered_contrast"] < 0.7 and row["size_ratio"] > 1.1
    assert row["place_error_mm"] < 0.1 and row["false_contrast"] < 0.01


def test_a_lesion_beside_its_place_has_that_place_error() -> None:
    for axis in range(3):
        row = look(lambda added: np.roll(added, 2, axis))  # noqa: B023
        assert row["place_error_mm"] == pytest.approx(10.0) and row["size_ratio"] == pytest.approx(1.0)
    assert look(lambda added: np.roll(added, 12, 2))["located_cases"] == 0  # 60 mm away is another place


def test_a_lesion_smeared_along_the_rays_is_false_contrast() -> None:
    smeared = look(smear)
    assert smeared["false_contrast"] > 0.01
    assert smeared["false_contrast"] > 2 * look(smear, cameras=())["false_contrast"]  # which looks anywhere


def test_a_method_that_ignores_the_lesion_shows_nothing_anywhere() -> None:
    row = look(lambda added: 0 * added)
    assert row["recovered_contrast"] == row["false_contrast"] == 0.0 and row["auc"] == 0.5
    assert row["located_cases"] == 0 and math.isnan(row["place_error_mm"]) and math.isnan(row["size_ratio"])


def test_a_sphere_that_the_datalist_has_wrong_is_refused_in_one_line() -> None:
    truth = thorax()
    planted = {"base": "b", "center_mm": [400.0, 0.0, 0.0], "diameter_mm": 20.0, "contrast_hu": 500.0}
    with pytest.raises(ValueError, match=r"a sphere of 20 mm at \(400.0, 0.0, 0.0\) mm has nothing inside it"):
        observe([{"case_id": "b"}, {"case_id": "a", "planted": planted}], lambda case_id: (truth, truth, SPACING))
    del planted["diameter_mm"], planted["base"]
    with pytest.raises(ValueError, match="a: its planted sphere lacks base, diameter_mm; plant the data set again"):
        observe([{"case_id": "b"}, {"case_id": "a", "planted": planted}], lambda case_id: (truth, truth, SPACING))


def test_the_interval_is_asked_for_the_voxels_of_the_lesion() -> None:
    truth, added = thorax(), LESION.contrast_hu * LESION.share(THORAX, SPACING)
    pair = PlantedPair(
        "a", "b", LESION, CAMERAS, truth, truth, truth + added, truth, SPACING, find_lungs(truth, SPACING)
    )
    assert math.isnan(detectability([Observation.of(pair)])[0]["coverage_90"])  # of a method without intervals
    half = truth[..., None] + np.array([-100.0, -50.0, 50.0, 200.0])
    half[: THORAX[0] // 2] = 0.0  # where the lesion is not
    assert Observation.of(replace(pair, quantiles=half)).coverage_90 == 0.0
    half[..., -1] += 300.0  # the contrast of a voxel that the sphere fills
    assert Observation.of(replace(pair, quantiles=half)).coverage_90 == 1.0


def test_other_places_are_in_the_lungs_away_from_the_sphere_and_half_of_them_on_its_rays() -> None:
    lungs = thorax() == -800.0
    places = other_places(lungs, SPACING, LESION, CAMERAS, "case")
    assert len(places) == PLACES and places == other_places(lungs, SPACING, LESION, CAMERAS, "case")
    assert places != other_places(lungs, SPACING, LESION, CAMERAS, "another case")
    on_ray = 0
    for place in places:
        index = np.array(place.center_mm) / SPACING + (np.array(THORAX) - 1) / 2
        assert lungs[tuple(index.astype(int))] and np.allclose(index, index.astype(int))
        assert math.dist(place.center_mm, LESION.center_mm) >= SHELL * LESION.diameter_mm
        rays = [np.subtract(LESION.center_mm, camera.source) for camera in CAMERAS]
        offset = np.subtract(place.center_mm, LESION.center_mm)
        on_ray += min(np.linalg.norm(np.cross(offset, ray)) / np.linalg.norm(ray) for ray in rays) <= SPACING
    assert on_ray >= PLACES // 2


def test_without_lungs_there_is_no_false_contrast_to_measure() -> None:
    assert other_places(np.zeros(THORAX, bool), SPACING, LESION, CAMERAS, "case") == []
    assert all(row["false_contrast_cases"] == 0 and math.isnan(row["false_contrast"]) for row in run(1.0, 0.0))
