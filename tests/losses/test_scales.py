"""Losses over several scales, of edges and of frequencies, and the gradient norm of each term."""

import pytest
import torch
import torch.nn.functional as F

from trct_monai.losses import DeepSupervisionLoss, EdgeLoss, FrequencyLoss, PSNRLoss, WeightedSumLoss
from trct_monai.losses.edge import sobel


def volumes(seed: int = 0, size: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 1, size, size, size, generator=generator) for _ in range(2))  # type: ignore[return-value]


def test_deep_targets_are_averages() -> None:
    """The averaged target is a perfect coarse volume; MONAI's thinned-out one would not let it be."""
    _, target = volumes()
    perfect = [target, F.avg_pool3d(target, 2), F.avg_pool3d(target, 4)]
    assert DeepSupervisionLoss(torch.nn.L1Loss())(perfect, target) < 1e-6
    thinned = [target, target[..., ::2, ::2, ::2]]
    assert DeepSupervisionLoss(torch.nn.L1Loss())(thinned, target) > 0.1


def test_a_coarser_prediction_is_compared_on_its_own_grid() -> None:
    _, target = volumes()
    loss = WeightedSumLoss({"l1": torch.nn.L1Loss()}, {"l1": 1.0})
    assert loss(F.avg_pool3d(target, 2), target) < 1e-6


def test_only_deep_supervision_sees_the_coarse_scales() -> None:
    prediction, target = volumes()
    terms = {"l1": torch.nn.L1Loss(), "deep": DeepSupervisionLoss(torch.nn.L1Loss(), "same")}
    loss = WeightedSumLoss(terms, {"l1": 1.0, "deep": 1.0})
    coarse = F.avg_pool3d(prediction, 2)
    total = loss([prediction, coarse], target)
    l1 = (prediction - target).abs().mean()
    deep = l1 + (coarse - F.avg_pool3d(target, 2)).abs().mean()
    torch.testing.assert_close(total, l1 + deep)
    assert set(loss.terms) == {"l1", "deep"}


def test_gradient_norms_are_those_of_each_weighted_term() -> None:
    prediction, target = volumes()
    prediction.requires_grad_()
    loss = WeightedSumLoss({"l1": torch.nn.L1Loss(), "l2": torch.nn.MSELoss()}, {"l1": 2.0, "l2": 3.0})
    norms = loss.gradient_norms(prediction, target)
    n = target.numel()
    assert norms["l1"] == pytest.approx(2 / n**0.5)
    assert norms["l2"] == pytest.approx(3 * 2 / n * float((prediction - target).detach().norm()), rel=1e-5)
    assert prediction.grad is None


def test_gradient_norms_do_not_disturb_the_seed() -> None:
    class Drawn(torch.nn.Module):
        def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return (input - target)[:, :, torch.randperm(input.shape[2])[0]].abs().mean()

    loss = WeightedSumLoss({"drawn": Drawn()}, {"drawn": 1.0})
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    loss.gradient_norms(*volumes())
    assert torch.equal(torch.rand(3), expected)


def test_edges_of_a_ramp_are_its_slopes() -> None:
    x, y, z = torch.meshgrid(*(torch.arange(6.0),) * 3, indexing="ij")
    ramp = (2 * x - 3 * y + 0.5 * z)[None, None]
    for axis, slope in ((2, 2.0), (3, -3.0), (4, 0.5)):
        torch.testing.assert_close(sobel(ramp, axis), torch.full((1, 1, 4, 4, 4), slope))
    assert EdgeLoss()(ramp, torch.zeros_like(ramp)) == pytest.approx((2 + 3 + 0.5) / 3)
    assert EdgeLoss()(ramp + 7, ramp) < 1e-5


def test_in_decibels_each_case_has_the_same_weight() -> None:
    truth = torch.zeros(2, 1, 4, 4, 4)
    volume = torch.stack([torch.full((1, 4, 4, 4), 0.1), torch.full((1, 4, 4, 4), 0.01)]).requires_grad_()
    loss = PSNRLoss(floor=0.0)(volume, truth)
    assert loss.item() == pytest.approx(-(20 + 40) / 2)
    loss.backward()
    relative = (volume.grad * volume.detach()).flatten(1).sum(dim=1)  # what a relative change of each case changes
    torch.testing.assert_close(relative[0], relative[1])
    assert PSNRLoss()(truth, truth).item() == pytest.approx(-50)


def test_the_frequency_loss_of_a_wave_is_that_of_its_two_coefficients() -> None:
    x = torch.arange(8.0)
    wave = torch.cos(2 * torch.pi * x / 8)[None, None, :, None, None].expand(1, 1, 8, 8, 8)
    coefficients = torch.fft.rfftn(wave, dim=(2, 3, 4), norm="ortho").abs()
    assert int((coefficients > 1e-4).sum()) == 2
    loss = FrequencyLoss()(wave, torch.zeros_like(wave))
    assert loss == pytest.approx(float(coefficients.mean()), abs=2e-6)
    assert FrequencyLoss()(wave, wave) < 2e-6


def test_the_frequency_loss_stays_in_float32_and_has_finite_gradients() -> None:
    prediction, target = volumes()
    prediction[0] = target[0]
    prediction.requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = FrequencyLoss()(prediction.bfloat16(), target)
    assert loss.dtype == torch.float32
    FrequencyLoss()(prediction, target).backward()
    assert prediction.grad is not None and prediction.grad.isfinite().all()
