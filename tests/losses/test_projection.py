"""The projection loss: zero for equal projections, in the units of a voxel-wise L1."""

import pytest
import torch

from trct_monai.geometry import make_camera
from trct_monai.intensity import hu_to_unit
from trct_monai.losses import ProjectionLoss
from trct_monai.phantoms import thorax_phantom


def volumes(count: int = 2) -> torch.Tensor:
    return hu_to_unit(torch.stack([torch.from_numpy(thorax_phantom(seed, 16).ct_hu) for seed in range(count)]))[:, None]


def test_the_loss_is_zero_for_the_target_and_not_for_another_patient() -> None:
    loss, x = ProjectionLoss(size=16), volumes()
    assert loss(x, x) == 0.0
    assert loss(x, x.flip(0)) > 1e-3


def test_an_error_of_one_sign_costs_as_much_as_in_l1() -> None:
    loss = ProjectionLoss("parallel", size=16)
    x = torch.full((1, 1, 16, 16, 16), 0.4)
    assert float(loss(x + 0.1, x)) == pytest.approx(0.1, rel=2e-2)  # the window's floor lies below vacuum


def test_errors_that_cancel_along_every_ray_give_zero() -> None:
    loss = ProjectionLoss("parallel", size=16)
    x = torch.full((1, 1, 16, 16, 16), 0.5)
    error = torch.zeros_like(x)
    error[..., 4, 4, 8], error[..., 10, 10, 8] = 0.1, 0.1
    error[..., 4, 10, 8], error[..., 10, 4, 8] = -0.1, -0.1
    assert float(loss(x + error, x)) < 1e-6 < float(error.abs().mean())


def test_a_step_along_the_gradient_lowers_the_loss() -> None:
    loss, (x, y) = ProjectionLoss(size=16), volumes().split(1)
    x = x.clone().requires_grad_()
    before = loss(x, y)
    (gradient,) = torch.autograd.grad(before, x)
    assert torch.isfinite(gradient).all() and gradient.any()
    assert loss((x - 1e-2 * gradient / gradient.abs().max()).detach(), y) < before


def test_the_loss_is_computed_in_float32_under_autocast() -> None:
    loss, (x, y) = ProjectionLoss(size=16), volumes().split(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = loss(x.bfloat16(), y)
    assert half.dtype == torch.float32 and float(half) == pytest.approx(float(loss(x, y)), rel=0.1)


def test_given_cameras_replace_the_preset() -> None:
    camera = make_camera("a", 30.0, sod=541.0, sdd=949.0, detector_extent=(500.0, 500.0), size=(32, 32))
    x, y = volumes().split(1)
    own, preset = ProjectionLoss([camera], size=16), ProjectionLoss(size=16)
    assert own.cameras[0].size == (16, 16) and float(own(x, y)) != float(preset(x, y))
