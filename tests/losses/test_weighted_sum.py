"""The weighted sum of losses: least at the target, every term recorded, float32 under autocast."""

import pytest
import torch
from torch import nn

from trct_monai.losses import SSIMLoss, WeightedSumLoss


def volumes() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 1, 8, 8, 8, generator=generator), torch.rand(2, 1, 8, 8, 8, generator=generator)


def l1_and_ssim() -> WeightedSumLoss:
    ssim = SSIMLoss(win_size=7)
    return WeightedSumLoss({"l1": nn.L1Loss(), "ssim": ssim}, {"l1": 1.0, "ssim": 0.5})


def test_is_the_weighted_sum_of_its_unweighted_terms() -> None:
    loss, (x, y) = l1_and_ssim(), volumes()
    total = loss(x, y)
    torch.testing.assert_close(total, loss.terms["l1"] + 0.5 * loss.terms["ssim"])
    torch.testing.assert_close(loss.terms["l1"], (x - y).abs().mean())


def test_is_least_at_the_target_with_a_finite_gradient() -> None:
    loss, (x, y) = l1_and_ssim(), volumes()
    assert loss(y, y).abs() < 1e-5
    x.requires_grad_()
    value = loss(x, y)
    value.backward()
    assert value > 0 and torch.isfinite(x.grad).all() and x.grad.any()


def test_stays_in_float32_under_autocast() -> None:
    loss, (x, y) = l1_and_ssim(), volumes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(x.bfloat16(), y)
    assert value.dtype == torch.float32


def test_a_weight_of_zero_leaves_the_loss_out() -> None:
    loss = WeightedSumLoss({"l1": nn.L1Loss(), "l2": nn.MSELoss()}, {"l1": 1.0, "l2": 0.0})
    loss(*volumes())
    assert set(loss.terms) == {"l1"}


def test_names_and_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must have the same names"):
        WeightedSumLoss({"l1": nn.L1Loss()}, {"l2": 1.0})
    with pytest.raises(ValueError, match="weights must be 0 or above"):
        WeightedSumLoss({"l1": nn.L1Loss()}, {"l1": -1.0})
