"""Back-projection and total variation: what they converge to, and what they refuse."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from trct_monai.baselines import Backprojection, TotalVariation
from trct_monai.baselines.backprojection import filtered_backprojection, mean_backprojection
from trct_monai.baselines.total_variation import gradient, gradient_adjoint, minimise
from trct_monai.geometry import Camera, make_camera, preset, voxel_centers
from trct_monai.intensity import MU_WATER, hu_to_unit, unit_to_attenuation
from trct_monai.projector import Projector, project

SIZE, SPACING = 24, 10.0
SHAPE = (SIZE, SIZE, SIZE)
EXTENT = SIZE * SPACING


def circle(num_views: int, degrees: float, *, parallel: bool, size: int = 48) -> list[Camera]:
    """Views spread evenly over an arc around the volume."""
    sod, sdd, extent = (None, None, 1.5 * EXTENT) if parallel else (800.0, 1200.0, 2.25 * EXTENT)
    angles = [degrees * i / num_views for i in range(num_views)]
    return [
        make_camera(f"{a:.1f}", a, sod=sod, sdd=sdd, detector_extent=(extent, extent), size=(size, size))
        for a in angles
    ]


def blob(center: Sequence[float] = (20.0, -30.0, 10.0), sigma: float = 35.0) -> Tensor:
    """A smooth lump of water, (1, 1, X, Y, Z) in 1/mm."""
    squared = (voxel_centers(SHAPE, SPACING) - torch.tensor(center)).square().sum(dim=-1)
    return (MU_WATER * torch.exp(-squared / (2 * sigma**2))).float()[None, None]


def relative_error(result: Tensor, truth: Tensor) -> float:
    return float((result - truth).norm() / truth.norm())


def test_filtered_backprojection_of_parallel_beams_converges_to_the_truth() -> None:
    truth, errors = blob(), []
    for num_views in (4, 12, 60):
        cameras = circle(num_views, 180, parallel=True)
        errors.append(
            relative_error(filtered_backprojection(project(truth, cameras, SPACING), cameras, SHAPE, SPACING), truth)
        )
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.03, errors


def test_filtered_backprojection_of_a_cone_converges_on_a_full_circle() -> None:
    truth, cameras = blob(), circle(90, 360, parallel=False)
    result = filtered_backprojection(project(truth, cameras, SPACING), cameras, SHAPE, SPACING)
    middle = slice(SIZE // 2 - 1, SIZE // 2 + 1)
    assert relative_error(result[..., middle], truth[..., middle]) < 0.04


def test_views_count_by_the_angle_that_they_stand_for() -> None:
    truth, cameras = blob(), circle(40, 180, parallel=True)
    doubled = [*cameras, *cameras[:10]]
    once, twice = (filtered_backprojection(project(truth, c, SPACING), c, SHAPE, SPACING) for c in (cameras, doubled))
    torch.testing.assert_close(once, twice, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("geometry", ["x2ct", "parallel", "circle-5"])
def test_mean_backprojection_returns_a_uniform_volume(geometry: str) -> None:
    truth, cameras = torch.full((1, 1, *SHAPE), MU_WATER), preset(geometry, 48)
    result = mean_backprojection(project(truth, cameras, 13.0), cameras, SHAPE, 13.0)
    center = slice(4, -4)
    torch.testing.assert_close(result[..., center, center, center], truth[..., center, center, center])


def test_air_is_air() -> None:
    for filtered in (False, True):
        air = Backprojection(8, filtered=filtered)(torch.zeros(1, 2, 16, 16))
        torch.testing.assert_close(air, hu_to_unit(torch.full_like(air, -1000.0)))


def test_gradient_adjoint_is_the_adjoint_of_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 1, 3, 4, 5, generator=generator, dtype=torch.float64)
    field = torch.randn(2, 3, 3, 4, 5, generator=generator, dtype=torch.float64)
    torch.testing.assert_close((gradient(x) * field).sum(), (x * gradient_adjoint(field)).sum())


def objective(volume: Tensor, image: Tensor, projector: Projector, weight: float) -> float:
    misfit = (projector(volume) * MU_WATER - image).square().mean() / 2
    return float(misfit + weight * gradient(volume).norm(dim=1).mean())


@pytest.mark.slow
def test_total_variation_reaches_the_least_value_of_its_objective() -> None:
    cameras, weight = circle(4, 180, parallel=False, size=16), 0.2
    truth = torch.zeros(1, 1, 8, 8, 8)
    truth[..., 2:6, 3:6, 2:7] = 1.0
    projector = Projector(cameras, (8, 8, 8), 30.0)
    image = projector(truth) * MU_WATER
    values = [
        objective(minimise(projector, image, 0 * truth, weight, n), image, projector, weight) for n in (0, 100, 1000)
    ]
    assert values[0] > values[1] >= values[2] > 0
    other = minimise(projector, image, torch.full_like(truth, 0.5), weight, 1000)
    assert objective(other, image, projector, weight) == pytest.approx(values[2], rel=1e-3)
    generator = torch.Generator().manual_seed(0)
    for scale in (1e-3, 1e-2, 0.1):  # no neighbour is better: the objective is convex, so no volume is
        neighbour = (other + scale * torch.randn(other.shape, generator=generator)).clamp(min=0)
        assert objective(neighbour, image, projector, weight) > values[2] * (1 - 1e-3)


def test_total_variation_beats_filtered_backprojection_on_blocks_seen_from_six_sides() -> None:
    truth = torch.full((1, 1, *SHAPE), 0.01)
    truth[..., 6:18, 5:19, 3:20] = 0.4
    truth[..., 8:12, 8:15, 6:16] = 0.1
    cameras = circle(6, 180, parallel=False, size=32)
    image = project(unit_to_attenuation(truth), cameras, SPACING)
    settings = {"geometry": cameras, "extent": EXTENT}
    total_variation = TotalVariation(SIZE, num_iterations=60, weight=0.3, **settings)(image)
    filtered = Backprojection(SIZE, filtered=True, **settings)(image)
    assert relative_error(total_variation, truth) < 0.5 * relative_error(filtered, truth)


def test_another_number_of_views_is_refused() -> None:
    image = torch.zeros(1, 3, 16, 16)
    for baseline in (Backprojection(8), TotalVariation(8), TotalVariation(8, geometry=preset("clinic"))):
        with pytest.raises(ValueError, match=r"image must be \(B, 2, H, W\) for this geometry, got shape \(1, 3, 16"):
            baseline(image)
    with pytest.raises(ValueError, match="must not be negative, got 10 and -1"):
        TotalVariation(8, num_iterations=10, weight=-1.0)
