"""Nearest neighbour and linear regression: what they must recover exactly, and what they refuse."""

import pytest
import torch
from torch import Tensor

from trct_monai.baselines import NearestNeighbour, RidgePCA
from trct_monai.baselines.cases import TrainingCase

SIZE = 6


def linear_world(num_cases: int, seed: int, noise: float = 0.0) -> list[TrainingCase]:
    """Cases whose radiographs and volumes both depend linearly on three hidden numbers."""
    world = torch.Generator().manual_seed(0)
    shapes, shadows = torch.rand(3, SIZE**3, generator=world) - 0.5, torch.rand(3, 2 * 8 * 8, generator=world)
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.rand(num_cases, 3, generator=generator) - 0.5
    images = 2 + (hidden @ shadows).view(-1, 2, 8, 8)
    images += noise * torch.randn(images.shape, generator=generator)
    volumes = 0.5 + 0.5 * (hidden @ shapes).view(-1, 1, SIZE, SIZE, SIZE)
    return [{"image": image, "label": volume} for image, volume in zip(images, volumes)]


def stacked(cases: list[TrainingCase], key: str) -> Tensor:
    return torch.stack([case[key] for case in cases])


@pytest.mark.parametrize("num_cases", [12, 200])
def test_ridge_pca_recovers_a_linear_world(num_cases: int) -> None:
    baseline = RidgePCA(SIZE, num_components=3, ridge=1e-6, image_size=8).fit(linear_world(num_cases, seed=1))
    unseen = linear_world(5, seed=2)
    torch.testing.assert_close(baseline(stacked(unseen, "image")), stacked(unseen, "label"), atol=2e-3, rtol=0)


def test_ridge_pca_with_a_heavy_ridge_is_the_mean_volume() -> None:
    cases = linear_world(12, seed=1)
    baseline = RidgePCA(SIZE, ridge=1e6).fit(cases)
    mean = stacked(cases, "label").mean(dim=0, keepdim=True)
    torch.testing.assert_close(baseline(stacked(cases[:1], "image")), mean, atol=1e-3, rtol=0)


def test_the_grid_of_ridge_pca_tells_the_psnr_that_each_fit_has() -> None:
    training, validation = linear_world(20, seed=1, noise=0.3), linear_world(6, seed=2, noise=0.3)
    chosen = RidgePCA(SIZE, image_size=8)
    grid = chosen.select(training, validation, num_components=(1, 2, 3), ridges=(1e-3, 0.1))
    assert len(grid) == 6 and grid == sorted(grid, key=lambda candidate: -candidate.psnr)
    assert (chosen.num_components, chosen.ridge) == (grid[0].num_components, grid[0].ridge)
    for candidate in grid:
        fitted = RidgePCA(SIZE, num_components=candidate.num_components, ridge=candidate.ridge, image_size=8).fit(
            training
        )
        error = fitted(stacked(validation, "image")) - stacked(validation, "label")
        own = float(-10 * error.square().mean(dim=(1, 2, 3, 4)).log10().mean())
        assert own == pytest.approx(candidate.psnr, abs=0.02), candidate
    best = RidgePCA(SIZE, num_components=grid[0].num_components, ridge=grid[0].ridge, image_size=8).fit(training)
    image = stacked(validation, "image")
    assert torch.equal(best(image), chosen(image))


def test_more_components_than_the_rank_are_all_components() -> None:
    generator = torch.Generator().manual_seed(0)
    cases = [
        {**case, "label": torch.rand(1, SIZE, SIZE, SIZE, generator=generator)} for case in linear_world(20, seed=1)
    ]
    baseline = RidgePCA(SIZE, num_components=99).fit(cases)
    assert len(baseline.components) == 19  # 20 cases less their mean
    grid = baseline.select(cases, linear_world(2, seed=2), num_components=(9, 99, 100), ridges=(1.0,))
    assert sorted(candidate.num_components for candidate in grid) == [9, 19]


def test_nearest_neighbour_returns_a_training_case_to_its_own_radiographs() -> None:
    cases = linear_world(9, seed=1)
    baseline = NearestNeighbour(SIZE, image_size=8).fit(cases)
    nearly = stacked(cases, "image") + 1e-3
    torch.testing.assert_close(baseline(nearly), stacked(cases, "label"), atol=3e-4, rtol=0)  # kept as float16


def test_nearest_neighbour_does_not_care_for_the_number_of_pixels() -> None:
    cases = linear_world(9, seed=1)
    baseline, image = NearestNeighbour(SIZE, image_size=8).fit(cases), stacked(cases, "image")
    finer = image.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert torch.equal(baseline(image), baseline(finer))


@pytest.mark.parametrize("method", [NearestNeighbour, RidgePCA])
def test_learned_baselines_refuse_what_they_cannot_use(method: type[NearestNeighbour] | type[RidgePCA]) -> None:
    cases, name = linear_world(4, seed=1), method.__name__
    with pytest.raises(ValueError, match=f"{name} is not fitted; call fit"):
        method(SIZE)(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match=r"at least one, all of the same views; got none"):
        method(SIZE).fit([])
    with pytest.raises(ValueError, match=r"label \(1, 5, 5, 5\), got \(2, 8, 8\) and \(1, 6, 6, 6\)"):
        method(5).fit(cases)
    with pytest.raises(ValueError, match="all of the same views; got 1, 2"):
        method(SIZE).fit([{**cases[0], "image": cases[0]["image"][:1]}, cases[1]])
    with pytest.raises(ValueError, match="needs image and label, got one with image"):
        method(SIZE).fit([{"image": cases[0]["image"]}])
    with pytest.raises(ValueError, match=r"image must be \(B, 2, H, W\), got shape \(1, 3, 8, 8\)"):
        method(SIZE).fit(cases)(torch.zeros(1, 3, 8, 8))


def test_ridge_pca_refuses_cases_without_any_difference() -> None:
    case = linear_world(1, seed=1)
    with pytest.raises(ValueError, match="two different training volumes, got 3 alike"):
        RidgePCA(SIZE).fit(case * 3)
    with pytest.raises(ValueError, match="must be positive, got 0 and 0.001"):
        RidgePCA(SIZE, num_components=0)
