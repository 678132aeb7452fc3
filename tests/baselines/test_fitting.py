"""Baselines by name: all fit, on lists and on MONAI's data sets, and come back from a file."""

from collections.abc import Sequence

import pytest
import torch
from monai.data import Dataset

from trct_monai.baselines import BASELINES, Identity, MeanVolume, TotalVariation, fit_baseline, make_baseline
from trct_monai.baselines.cases import TrainingCase
from trct_monai.geometry import DEFAULT_EXTENT, preset
from trct_monai.intensity import hu_to_attenuation, hu_to_unit
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project

SIZE = 16


@pytest.fixture(scope="module")
def cases() -> list[TrainingCase]:
    """Healthy phantoms of 16^3 voxels with two 32 x 32 radiographs."""
    hu = torch.stack([torch.from_numpy(thorax_phantom(seed, SIZE, findings=()).ct_hu) for seed in range(20)])[:, None]
    images = project(hu_to_attenuation(hu), preset("x2ct", 32), DEFAULT_EXTENT / SIZE)
    return [{"image": image, "label": label} for image, label in zip(images, hu_to_unit(hu))]


def mean_psnr(baseline: torch.nn.Module, cases: Sequence[TrainingCase]) -> float:
    errors = [(baseline(case["image"][None])[0] - case["label"]).square().mean() for case in cases]
    return float(-10 * torch.stack(errors).log10().mean())


@pytest.mark.parametrize("name", BASELINES)
def test_a_fitted_baseline_comes_back_from_its_state_dict(name: str, cases: list[TrainingCase]) -> None:
    fitted = fit_baseline(name, Dataset(cases[:8]), Dataset(cases[8:9]), volume_size=SIZE)
    fresh = make_baseline(name, SIZE).eval()
    fresh.load_state_dict(fitted.state_dict())
    image = cases[9]["image"][None]
    assert not fitted.training and torch.equal(fitted(image), fresh(image))


@pytest.mark.parametrize("name", ["nearest_neighbour", "ridge_pca"])
def test_learned_baselines_beat_the_mean_volume_on_unseen_phantoms(name: str, cases: list[TrainingCase]) -> None:
    training, validation, test = cases[:12], cases[12:15], cases[15:]
    mean = mean_psnr(fit_baseline("mean_volume", training, volume_size=SIZE), test)
    assert mean_psnr(fit_baseline(name, training, validation, volume_size=SIZE), test) > mean + 0.5


def test_the_chosen_weight_of_total_variation_is_kept(cases: list[TrainingCase]) -> None:
    baseline = TotalVariation(SIZE, num_iterations=5)
    grid = baseline.select(cases, weights=(0.1, 100.0), max_cases=2)
    assert grid[0][1] >= grid[1][1] and float(baseline.weight) == pytest.approx(grid[0][0])
    assert grid[0][1] == pytest.approx(mean_psnr(baseline, cases[:2]), abs=1e-4)
    assert baseline.select([]) == [] and float(baseline.weight) == pytest.approx(grid[0][0])


def test_the_mean_volume_takes_cases_or_volumes(cases: list[TrainingCase]) -> None:
    by_case = MeanVolume(SIZE).fit(cases).volume
    torch.testing.assert_close(by_case, MeanVolume(SIZE).fit(case["label"] for case in cases).volume)
    torch.testing.assert_close(by_case[0], torch.stack([case["label"] for case in cases]).mean(dim=0))
    with pytest.raises(ValueError, match="at least one training volume"):
        MeanVolume(SIZE).fit([])


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="baseline must be one of mean_volume, .*, got 'unet'"):
        make_baseline("unet")


def test_a_state_dict_of_another_volume_size_is_refused(cases: list[TrainingCase]) -> None:
    fitted = fit_baseline("ridge_pca", cases[:4], volume_size=SIZE)
    with pytest.raises(RuntimeError, match="size mismatch for components"):
        make_baseline("ridge_pca", 8).load_state_dict(fitted.state_dict())


def test_identity_returns_the_volume_and_refuses_radiographs() -> None:
    volume = torch.rand(2, 1, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Identity()(volume), volume)
    with pytest.raises(ValueError, match="must be a volume"):
        Identity()(torch.rand(1, 2, 3, 4, 5))
