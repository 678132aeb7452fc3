"""Laws of projection and back-projection, over presets, tilted and free cameras, and unlike voxels."""

import inspect
import pickle

import pytest
import torch
from monai.data import MetaTensor

from tests.projector.setups import SETUPS, SHAPE, SIZE, SPACING, devices, random, setups, view
from trct_monai.geometry import preset, voxel_to_world
from trct_monai.projector import Projector, backproject, project


@devices
@setups
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-13), (torch.float32, 1e-8)])
def test_backproject_is_adjoint_of_project(cameras, volume_kwargs, dtype, tolerance, device):
    x = random(2, 1, *SHAPE, dtype=dtype).to(device)
    y = random(2, len(cameras), *SIZE, dtype=dtype, seed=1).to(device)
    ax = project(x, cameras, **volume_kwargs)
    aty = backproject(y, cameras, SHAPE, **volume_kwargs)
    assert ax.dtype == aty.dtype == dtype
    left, right = (ax.double() * y.double()).sum(), (x.double() * aty.double()).sum()
    assert abs(left - right) <= tolerance * ax.double().norm() * y.double().norm()


def test_adjoint_mismatch_of_a_real_size_in_float32_is_below_1e_9():
    cameras = preset("x2ct", (256, 256))
    x = random(1, 1, 128, 128, 128, dtype=torch.float32)
    y = random(1, 2, 256, 256, dtype=torch.float32, seed=1)
    ax, aty = project(x, cameras, 2.5), backproject(y, cameras, (128, 128, 128), 2.5)
    mismatch = (ax.double() * y.double()).sum() - (x.double() * aty.double()).sum()
    assert abs(mismatch) <= 1e-9 * ax.double().norm() * y.double().norm()


@devices
@setups
def test_fast_path_agrees_with_reference_on_values_and_gradients(cameras, volume_kwargs, device):
    x = random(2, 1, *SHAPE).to(device).requires_grad_()
    y = random(2, len(cameras), *SIZE, seed=1).to(device)
    fast, plain = (project(x, cameras, method=method, **volume_kwargs) for method in ("auto", "reference"))
    torch.testing.assert_close(fast, plain)
    torch.testing.assert_close(torch.autograd.grad((fast * y).sum(), x), torch.autograd.grad((plain * y).sum(), x))
    torch.testing.assert_close(
        backproject(y, cameras, SHAPE, method="auto", **volume_kwargs),
        backproject(y, cameras, SHAPE, method="reference", **volume_kwargs),
    )


def test_slab_and_separable_are_one_method_along_the_axes():
    x = random(1, 1, *SHAPE)
    cameras = preset("x2ct", SIZE)
    torch.testing.assert_close(
        project(x, cameras, SPACING, method="slab"), project(x, cameras, SPACING, method="separable")
    )


@devices
def test_gradients_and_second_gradients_are_right(device):
    cameras = (view(20.0, size=(2, 3)), view(40.0, 15.0, size=(2, 3)))
    x = random(1, 1, 3, 2, 3).to(device).requires_grad_()
    y = random(1, 2, 2, 3, seed=1).to(device).requires_grad_()
    options = {"fast_mode": True, "nondet_tol": 0.0 if device == "cpu" else 1e-12}  # a GPU adds in any order
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda v: project(v, cameras, 80.0), x, **options)
        assert check(lambda r: backproject(r, cameras, (3, 2, 3), 80.0), y, **options)


def test_double_backward_through_a_nonlinear_loss():
    x = random(1, 1, *SHAPE).requires_grad_()
    (slope,) = torch.autograd.grad((project(x, preset("x2ct", SIZE), SPACING) ** 2).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    ones = torch.ones_like(x)
    expected = 2 * backproject(project(ones, preset("x2ct", SIZE), SPACING), preset("x2ct", SIZE), SHAPE, SPACING)
    torch.testing.assert_close(curvature, expected)


@setups
def test_projection_is_linear(cameras, volume_kwargs):
    a, b = random(1, 1, *SHAPE), random(1, 1, *SHAPE, seed=1)
    combined = project(2 * a - 3 * b, cameras, **volume_kwargs)
    separate = 2 * project(a, cameras, **volume_kwargs) - 3 * project(b, cameras, **volume_kwargs)
    torch.testing.assert_close(combined, separate)


def test_views_in_another_order_give_the_images_in_that_order():
    cameras = preset("circle-3", SIZE)
    x, y = random(1, 1, *SHAPE), random(1, 3, *SIZE)
    order = [2, 0, 1]
    reordered = [cameras[i] for i in order]
    assert torch.equal(project(x, reordered, SPACING), project(x, cameras, SPACING)[:, order])
    torch.testing.assert_close(
        backproject(y[:, order], reordered, SHAPE, SPACING), backproject(y, cameras, SHAPE, SPACING)
    )


def test_each_case_may_have_its_own_cameras():
    x, y = random(2, 1, *SHAPE), random(2, 2, *SIZE)
    cases = [preset("x2ct", SIZE), (view(10.0), view(100.0, 5.0))]
    images, volumes = project(x, cases, SPACING), backproject(y, cases, SHAPE, SPACING)
    for i, cameras in enumerate(cases):
        assert torch.equal(images[i : i + 1], project(x[i : i + 1], cameras, SPACING))
        assert torch.equal(volumes[i : i + 1], backproject(y[i : i + 1], cameras, SHAPE, SPACING))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_and_autocast_compute_in_float32(dtype):
    cameras = SETUPS["tilted"][0] + preset("x2ct", SIZE)
    x = random(1, 1, *SHAPE).to(dtype).requires_grad_()
    expected = project(x.detach().float(), cameras, SPACING)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image = project(x, cameras, SPACING)
        volume = backproject(expected.to(dtype), cameras, SHAPE, SPACING)
        image.sum().backward()
    assert image.dtype == volume.dtype == torch.float32
    assert torch.equal(image.detach(), expected)
    assert x.grad.dtype == dtype
    torch.testing.assert_close(
        x.grad, backproject(torch.ones_like(expected), cameras, SHAPE, SPACING).to(dtype), check_dtype=True
    )


def test_metatensor_goes_in_and_a_plain_tensor_comes_out():
    x = random(1, 1, *SHAPE, dtype=torch.float32)
    meta = MetaTensor(x).requires_grad_()
    image = project(meta, preset("x2ct", SIZE), affine=meta.affine @ voxel_to_world(SHAPE, SPACING))
    assert type(image) is torch.Tensor
    assert torch.equal(image, project(x, preset("x2ct", SIZE), SPACING))
    image.sum().backward()
    assert float(meta.grad.sum()) > 0
    back = backproject(MetaTensor(image.detach()), preset("x2ct", SIZE), SHAPE, SPACING)
    assert type(back) is torch.Tensor


def test_memory_layout_does_not_matter():
    cameras = (view(30.0), view(30.0, 10.0))
    x, y = random(2, 1, *SHAPE), random(2, 2, *SIZE)
    scattered = x.permute(0, 1, 4, 3, 2).contiguous().permute(0, 1, 4, 3, 2)
    assert torch.equal(project(scattered, cameras, SPACING), project(x, cameras, SPACING))
    assert torch.equal(project(x[:1].expand(2, -1, -1, -1, -1), cameras, SPACING)[1:], project(x[:1], cameras, SPACING))
    scattered = y.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(backproject(scattered, cameras, SHAPE, SPACING), backproject(y, cameras, SHAPE, SPACING))


def test_inputs_are_left_alone():
    x, y = random(1, 1, *SHAPE), random(1, 2, *SIZE)
    cameras = (view(0.0), view(30.0, 10.0))
    copies = x.clone(), y.clone()
    project(x, cameras, SPACING), backproject(y, cameras, SHAPE, SPACING)
    assert torch.equal(x, copies[0])
    assert torch.equal(y, copies[1])


def test_projector_module_is_project_and_its_adjoint():
    projector = pickle.loads(pickle.dumps(Projector(preset("x2ct", SIZE), SHAPE, SPACING)))
    x, y = random(1, 1, *SHAPE), random(1, 2, *SIZE)
    assert torch.equal(projector(x), project(x, preset("x2ct", SIZE), SPACING))
    assert torch.equal(projector.adjoint(y), backproject(y, preset("x2ct", SIZE), SHAPE, SPACING))
    assert not projector.state_dict()
    with pytest.raises(ValueError, match=r"volume must have \(12, 14, 10\) voxels, got \(12, 14, 11\)"):
        projector(random(1, 1, 12, 14, 11))


def test_wrong_input_is_refused_in_one_line():
    x, y, cameras = random(1, 1, *SHAPE), random(1, 2, *SIZE), preset("x2ct", SIZE)

    def refused(match, *arguments, function=project, **kwargs):
        with pytest.raises(ValueError, match=match):
            function(*arguments, **kwargs)

    refused("at least one view", x, [], SPACING)
    refused("1 lists of equal length, got 0 cameras and 2 lists", x, [cameras, cameras], SPACING)
    refused("all cameras must have one size", x, [view(0.0), view(0.0, size=(3, 3))], SPACING)
    refused("source .* is inside or beside the volume", x, [view(0.0, sod=100.0, sdd=500.0)], SPACING)
    refused("is tilted against the volume's z axis", x, [view(0.0, 10.0)], SPACING, method="separable")
    refused("rays that run along the slices", x, [view(0.0, 40.0, extent=(3000.0, 3000.0))], SPACING)
    refused("either voxel_spacing in mm or an affine", x, cameras)
    refused("either voxel_spacing in mm or an affine", x, cameras, SPACING, affine=torch.eye(4))
    refused(r"\(4, 4\) matrix, one for the whole batch, got shape \(3, 3\)", x, cameras, affine=torch.eye(3))
    refused("finite, invertible and end in", x, cameras, affine=torch.zeros(4, 4))
    refused("one or three positive numbers in mm", x, cameras, 0.0)
    refused("at least one, of .* got 0 of", x[:0], cameras, SPACING)
    refused(r"\(X, Y, Z\) voxels, got 1 of \(4, 4\)", y, cameras, (4, 4), SPACING, function=backproject)
    refused(r"\(1, 2, 9, 11\) here, got \(1, 1, 9, 11\)", y[:, :1], cameras, SHAPE, SPACING, function=backproject)


@pytest.mark.parametrize("function", [project, backproject])
def test_wrong_number_of_dimensions_and_wrong_method_are_refused_without_annotations(function):
    plain = inspect.unwrap(function)  # as a user calls it, without the tests' type checks
    good, shape = (random(1, 1, *SHAPE), ()) if function is project else (random(1, 2, *SIZE), (SHAPE,))
    with pytest.raises(ValueError, match=r"must be \(B, .* got shape"):
        plain(good[0], preset("x2ct", SIZE), *shape, SPACING)
    with pytest.raises(ValueError, match="method must be auto, separable, slab, reference, got 'siddon'"):
        plain(good, preset("x2ct", SIZE), *shape, SPACING, method="siddon")
