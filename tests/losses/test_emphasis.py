"""The loss that weighs some voxels more."""

import pytest
import torch
from torch import nn

from trct_monai.losses import DeepSupervisionLoss, EmphasisLoss, WeightedSumLoss


def test_without_emphasis_it_is_the_loss_itself() -> None:
    volume, truth = torch.rand(2, 1, 4, 4, 4), torch.rand(2, 1, 4, 4, 4)
    assert EmphasisLoss(nn.L1Loss(), 3.0)(volume, truth) == nn.L1Loss()(volume, truth)
    with_zeros = torch.cat([truth, torch.zeros_like(truth)], dim=1)
    assert EmphasisLoss(nn.L1Loss(), 3.0)(volume, with_zeros) == nn.L1Loss()(volume, truth)
    with_ones = torch.cat([truth, torch.ones_like(truth)], dim=1)
    assert EmphasisLoss(nn.L1Loss(), 0.0)(volume, with_ones) == nn.L1Loss()(volume, truth)


def test_an_emphasis_of_one_everywhere_adds_the_squared_error() -> None:
    volume, truth = torch.rand(2, 1, 4, 4, 4), torch.rand(2, 1, 4, 4, 4)
    target = torch.cat([truth, torch.ones_like(truth)], dim=1)
    expected = nn.L1Loss()(volume, truth) + 3 * nn.MSELoss()(volume, truth)
    torch.testing.assert_close(EmphasisLoss(nn.L1Loss(), 3.0)(volume, target), expected)


def test_a_voxel_gets_the_gradient_that_its_emphasis_says() -> None:
    volume, truth, emphasis = torch.rand(1, 1, 4, 4, 4, requires_grad=True), torch.zeros(1, 1, 4, 4, 4), torch.zeros(64)
    emphasis[7] = 2.0
    target = torch.cat([truth, emphasis.view_as(truth)], dim=1)
    plain = torch.autograd.grad(nn.MSELoss()(volume, truth), volume)[0].flatten()
    weighed = torch.autograd.grad(EmphasisLoss(nn.MSELoss(), 5.0)(volume, target), volume)[0].flatten()
    torch.testing.assert_close(weighed / plain, 1 + 5 * emphasis)


def test_the_finest_of_several_volumes_is_weighed() -> None:
    finest, coarse = torch.rand(1, 1, 8, 8, 8), torch.rand(1, 1, 4, 4, 4)
    loss = WeightedSumLoss({"deep": DeepSupervisionLoss(nn.L1Loss())}, {"deep": 1.0})
    truth, emphasis = torch.rand(1, 1, 16, 16, 16), torch.rand(1, 1, 16, 16, 16)
    mean = nn.functional.avg_pool3d
    expected = loss([finest, coarse], truth) + 2 * (mean(emphasis, 2) * (finest - mean(truth, 2)) ** 2).mean()
    result = EmphasisLoss(loss, 2.0)([finest, coarse], torch.cat([truth, emphasis], dim=1))
    torch.testing.assert_close(result, expected)


def test_a_volume_beside_its_spread_has_no_emphasis() -> None:
    with pytest.raises(ValueError, match="findings_weight must be 0 for a network that gives 2 channels"):
        EmphasisLoss(nn.L1Loss(), 1.0)(torch.rand(1, 2, 4, 4, 4), torch.rand(1, 2, 4, 4, 4))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="weight must be 0 or above, got -1"):
        EmphasisLoss(nn.L1Loss(), -1)
