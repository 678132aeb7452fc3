"""The linear start: exact where its model is true, neutral before it is fitted, and more certain with every view."""

import pytest
import torch

from trct_monai.geometry import Camera, preset
from trct_monai.intensity import HU_WINDOW, unit_to_attenuation
from trct_monai.networks.linear_start import LinearStart
from trct_monai.networks.normal_equation import solve
from trct_monai.projector import project
from trct_monai.resampling import resize_radiographs

SIZE, EXTENT, PIXELS = 8, 320.0, 16
CAMERAS = [list(preset("circle-4", PIXELS))]
ALL = torch.ones(1, 4, dtype=torch.bool)


def volumes(number: int = 6) -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(number, 1, SIZE, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def fitted(num_modes: int = 5, noise: float = 1e-3, exposure: tuple[float, float] = (0.0, 0.0)) -> LinearStart:
    start = LinearStart(num_modes, size=SIZE, image_size=PIXELS, extent=EXTENT, noise=noise, exposure=exposure)
    start.fit(volumes())
    return start


def radiographs(volume: torch.Tensor) -> torch.Tensor:
    return project(unit_to_attenuation(volume, HU_WINDOW), CAMERAS[0], EXTENT / SIZE)


def solved(
    start: LinearStart, image: torch.Tensor, cameras: list[Camera] = CAMERAS[0]
) -> tuple[torch.Tensor, torch.Tensor]:
    """What is added to the mean and to the radiographs of one case with all its views."""
    return start(image, [start.project(cameras)], torch.ones(1, len(cameras), dtype=torch.bool))[:2]


def test_modes_have_the_covariance_of_the_training_volumes() -> None:
    start, training = fitted(), volumes().flatten(1)
    modes = start.modes.flatten(1)
    torch.testing.assert_close(modes.T @ modes, torch.cov(training.T, correction=0), atol=1e-5, rtol=1e-4)


def test_a_volume_of_the_model_is_found_from_its_radiographs() -> None:
    start, truth = fitted(), volumes()[2:3]
    added, correction = solved(start, radiographs(truth))
    torch.testing.assert_close(start.mean + added, truth, atol=1e-3, rtol=0)
    assert not correction.any()


def test_gain_and_hardening_are_found_with_the_volume_and_taken_off() -> None:
    start, truth = fitted(exposure=(0.1, 0.1)), volumes()[2:3]
    right = radiographs(truth)
    wrong = right.clone()
    wrong[:, 1] *= 1.08
    wrong[:, 2] = right[:, 2] * (1 - 0.07 * right[:, 2] / right[:, 2].max())
    added, correction = solved(start, wrong)
    torch.testing.assert_close(start.mean + added, truth, atol=2e-2, rtol=0)
    assert (wrong + correction - right).square().mean() < 0.02 * (wrong - right).square().mean()
    without = solved(fitted(), wrong)[0]
    assert (start.mean + added - truth).square().mean() < 0.1 * (start.mean + without - truth).square().mean()


def test_a_faint_radiograph_is_no_more_likely_than_a_strong_one() -> None:
    """The gain that is found is linear in what the mean leaves: of the radiograph itself, a lower one always pays."""
    start = fitted(noise=0.4, exposure=(0.1, 0.0))
    generator = torch.Generator().manual_seed(1)
    coarse = 0.4 * torch.rand(1, 1, 2, 2, 2, generator=generator) - 0.2
    stranger = torch.nn.functional.interpolate(coarse, size=(SIZE,) * 3)
    gains = []
    for sign in (1, -1):
        image = radiographs(start.mean + sign * stranger)
        correction = solved(start, image)[1]
        gains.append((correction.flatten(2).sum(dim=2) / image.flatten(2).sum(dim=2))[0])
    assert gains[0].abs().max() > 0.02
    torch.testing.assert_close(gains[0], -gains[1], atol=0.004, rtol=0)


def test_a_known_exposure_is_believed() -> None:
    start, truth = fitted(noise=0.05, exposure=(0.1, 0.1)), volumes()[2:3]
    image, known = radiographs(truth), torch.tensor([[True, False, True, True]])
    off = image.clone()
    off[:, 1] *= 1.08
    one = start(off, [start.project(CAMERAS[0])], ALL, known)
    assert not one.correction[known].any() and one.correction[~known].abs().max() > 0.05
    sure = start(image, [start.project(CAMERAS[0])], ALL, ALL)
    without = fitted(noise=0.05)(image, [start.project(CAMERAS[0])], ALL)
    torch.testing.assert_close(sure.added, without.added, atol=1e-5, rtol=1e-4)
    deviations = [start.standard_deviation(image, [start.project(CAMERAS[0])], ALL, e).mean() for e in (ALL, None)]
    assert deviations[0] < deviations[1]


def test_the_evidence_is_the_density_of_the_radiographs() -> None:
    start, image = fitted(noise=0.3, exposure=(0.1, 0.05)), radiographs(volumes()[:2])
    projections = start.project(CAMERAS[0])
    equations = list(start._equations(image, [projections] * 2, ALL.expand(2, -1), ALL.expand(2, -1)))
    inside = start._unsaturated(image)
    for case in range(2):
        h = projections.modes[0, :, inside[case]].double()
        covariance = h.T @ h + 0.3**2 * torch.eye(h.shape[1], dtype=torch.float64)
        normal = torch.distributions.MultivariateNormal(projections.mean[0, inside[case]].double(), covariance)
        expected = normal.log_prob(image[case][inside[case]].double())
        torch.testing.assert_close(equations[case][0].evidence.double(), expected, atol=0.1, rtol=1e-4)


def test_each_case_follows_the_model_that_explains_its_radiographs() -> None:
    other = 0.2 + 0.1 * volumes(12)[6:].flip(-1)
    start = LinearStart(
        5, num_models=3, size=SIZE, image_size=PIXELS, extent=EXTENT, noise=(0.01, 0.02, 0.1), exposure=(0.0, 0.0)
    )
    image = radiographs(torch.stack([volumes()[2], other[3]]))
    projections = [start.project(CAMERAS[0])] * 2
    assert start(image, projections, ALL.expand(2, -1)).weights.tolist() == [[1, 0, 0]] * 2  # before any is fitted
    start.fit(volumes())
    start.fit(other, model=1)
    assert start.fitted.tolist() == [True, True, False]
    projections = [start.project(CAMERAS[0])] * 2
    found = start(image, projections, ALL.expand(2, -1))
    torch.testing.assert_close(found.weights, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    truth = torch.stack([volumes()[2], other[3]]) - start.mean[:2]
    torch.testing.assert_close(found.added, truth, atol=5e-3, rtol=0)
    alone = fitted(noise=0.01)
    one = [alone.project(CAMERAS[0])]
    spread = start.standard_deviation(image, projections, ALL.expand(2, -1))
    torch.testing.assert_close(spread[:1], alone.standard_deviation(image[:1], one, ALL), atol=1e-4, rtol=1e-3)
    scale = [(0.5, 0.1), (2.0, -0.2), (1.0, 0.0), (3.0, 0.3)]
    gain, offset = torch.tensor(scale).T[:, :, None, None]
    for case in range(2):
        gains = torch.tensor(start.calibrate((image[case] - offset) / gain, projections[0], [False] * 4))
        torch.testing.assert_close(gains, torch.tensor(scale), atol=0.05, rtol=0.05)


def test_what_lies_under_a_shutter_does_not_count() -> None:
    start, image = fitted(noise=0.5, exposure=(0.1, 0.1)), radiographs(volumes()[2:3])
    shut = image.clone()
    shut[:, 0, :3] = shut[:, 0].max()  # as radiographs have it: all that a shutter covers is the largest value
    darker = shut.clone()
    darker[:, 0, :3] = darker[:, 0].max() + 3.0
    torch.testing.assert_close(solved(start, shut)[0], solved(start, image)[0], atol=0.05, rtol=0)
    torch.testing.assert_close(solved(start, darker)[0], solved(start, shut)[0], atol=0.02, rtol=0)


def test_a_missing_view_is_as_if_it_had_not_been_taken() -> None:
    start, image = fitted(noise=0.5), radiographs(volumes()[:1])
    gone = ALL.clone()
    gone[0, 1] = False
    without = solved(start, image[:, [0, 2, 3]], [CAMERAS[0][i] for i in (0, 2, 3)])[0]
    torch.testing.assert_close(start(image, [start.project(CAMERAS[0])], gone)[0], without, atol=1e-5, rtol=1e-4)
    assert not start(image, [start.project(CAMERAS[0])], torch.zeros_like(ALL))[0].any()


@pytest.mark.parametrize("size", [PIXELS * 3 // 2, PIXELS + 5, 3 * PIXELS - 1])
def test_radiographs_of_any_size_are_averaged_over_disjoint_areas(size: int) -> None:
    """Pooling windows that overlap would blur a radiograph whose size is no multiple of the model's."""
    start, fine = fitted(), [camera.resized((size, size)) for camera in CAMERAS[0]]
    ramp = torch.linspace(0.5, 2.5, size).expand(1, 4, size, size)
    expected = resize_radiographs(ramp, PIXELS)
    torch.testing.assert_close(expected.mean(), ramp.mean())
    torch.testing.assert_close(solved(start, ramp, fine)[0], solved(start, expected)[0], atol=1e-4, rtol=1e-4)


def test_every_view_leaves_less_open_and_none_leaves_all() -> None:
    start, image = fitted(noise=5.0), radiographs(volumes()[:1])
    spreads = [
        start.standard_deviation(image, [start.project(CAMERAS[0])], torch.arange(4)[None] < number)
        for number in range(5)
    ]
    prior = start.modes.square().sum(dim=0, keepdim=True).sqrt()
    torch.testing.assert_close(spreads[0], prior, atol=1e-5, rtol=1e-4)
    assert all(bool((more < less + 1e-6).all()) for less, more in zip(spreads, spreads[1:]))
    assert spreads[4].mean() < 0.9 * spreads[1].mean()


@pytest.mark.parametrize("known", [[False] * 4, [True, False, True, False]], ids=["none", "some"])
def test_gain_and_offset_of_pictures_are_found_with_the_volume(known: list[bool]) -> None:
    start, line_integrals = fitted(), radiographs(volumes()[2:3])[0]
    scale = [(1.0, 0.0) if sure else (0.5 + view, 0.3 * view - 0.2) for view, sure in enumerate(known)]
    pictures = torch.stack([(image - offset) / gain for image, (gain, offset) in zip(line_integrals, scale)])
    cut = pictures[1].quantile(0.95)
    pictures[1] = pictures[1].clamp(max=cut)
    found = start.calibrate(pictures, start.project(CAMERAS[0]), known)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(scale), atol=0.02, rtol=0.02)


def test_before_it_is_fitted_and_beyond_the_rank_it_adds_nothing() -> None:
    start = LinearStart(8, size=SIZE, image_size=PIXELS, extent=EXTENT)
    image = radiographs(volumes()[:1])
    assert not solved(start, image)[0].any()
    start.fit(volumes(3))
    assert start.modes[:2].flatten(1).any(dim=1).all() and not start.modes[2:].any()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="num_modes and noise must be positive, .* 1 models .*, got 0 and 0.2"):
        LinearStart(0, extent=EXTENT)
    with pytest.raises(ValueError, match=r"one noise for all of 2 models or one for each, got 64 and \(0.1,\)"):
        LinearStart(num_models=2, noise=(0.1,), extent=EXTENT)
    with pytest.raises(ValueError, match="num_models must be positive, got 0"):
        LinearStart(num_models=0, extent=EXTENT)
    with pytest.raises(ValueError, match=r"exposure must be two numbers that are not negative, got \(0.1, -1.0\)"):
        LinearStart(extent=EXTENT, exposure=(0.1, -1.0))


def test_the_solution_by_elimination_is_that_of_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX has no solver."""
    half = torch.randn(7, 9, generator=torch.Generator().manual_seed(0))
    matrix, right = half @ half.T + 0.1 * torch.eye(7), half[:, 0]
    expected = solve(matrix, right)
    torch.testing.assert_close(expected[1], torch.logdet(matrix))
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    torch.testing.assert_close(solve(matrix, right), expected, atol=1e-4, rtol=1e-4)
