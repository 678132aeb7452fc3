"""Structural similarity as a loss."""

import monai.losses
import pytest
import torch
import torch.nn.functional as F

from trct_monai.losses import SSIMLoss


def volumes(noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(2, 1, 4, 4, 4, generator=generator), size=(12, 14, 16), mode="trilinear")
    return smooth, smooth + noise * torch.randn(smooth.shape, generator=generator)


@pytest.mark.parametrize("noise", [0.3, 0.03])
@pytest.mark.parametrize("win_size", [3, 7])
def test_it_is_monais_with_a_uniform_window(win_size: int, noise: float) -> None:
    target, prediction = volumes(noise)
    gradients = []
    for loss in (SSIMLoss(win_size), monai.losses.SSIMLoss(3, win_size=win_size, kernel_type="uniform")):
        leaf = prediction.clone().requires_grad_()
        value = loss(leaf, target)
        gradients.append(torch.cat([value.detach()[None], *torch.autograd.grad(value, leaf)[0].flatten().split(1)]))
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


def test_volumes_in_half_precision_are_compared_in_float32() -> None:
    target, prediction = (volume.bfloat16() for volume in volumes(0.02))
    expected = SSIMLoss()(prediction.float(), target.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = SSIMLoss()(prediction, target)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


def test_volumes_smaller_than_the_window_are_refused() -> None:
    with pytest.raises(ValueError, match="7 voxels a side"):
        SSIMLoss()(torch.rand(1, 1, 6, 8, 8), torch.rand(1, 1, 6, 8, 8))
