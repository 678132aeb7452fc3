"""Laws of projection and back-projection, over presets, tilted and free cameras, and unlike voxels."""

import inspect
import multiprocessing
import pickle
from dataclasses import replace
from math import cos, radians, sin

import pytest
import torch
from monai.data import MetaTensor

import trct_monai.projector.kernels as views_module
from trct_monai.geometry import Camera, make_camera, preset, voxel_to_world
from trct_monai.projector import Projector, backproject, project

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_GPU])]
SHAPE = (12, 14, 10)
SIZE = (9, 11)
SPACING = (24.0, 20.0, 28.0)


def make_generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random(*shape, dtype=torch.float64, seed=0):
    return torch.rand(*shape, dtype=dtype, generator=make_generator(seed))


def view(azimuth_deg, elevation_deg=0.0, size=SIZE, name="view", extent=(500.0, 500.0), sod=541.0, sdd=949.075):
    return make_camera(
        name, azimuth_deg, elevation_deg=elevation_deg, sod=sod, sdd=sdd, detector_extent=extent, size=size
    )


def turned_affine(about_z_deg, tilt_deg=0.0):
    """Unlike voxels, turned about z, then tilted about x, flipped in x and shifted."""
    a, b = radians(about_z_deg), radians(tilt_deg)
    about_z = torch.tensor([[cos(a), -sin(a), 0], [sin(a), cos(a), 0], [0, 0, 1]], dtype=torch.float64)
    about_x = torch.tensor([[1, 0, 0], [0, cos(b), -sin(b)], [0, sin(b), cos(b)]], dtype=torch.float64)
    affine = voxel_to_world(SHAPE, SPACING)
    affine[:3] = about_x @ about_z @ affine[:3]
    affine[0] *= -1
    affine[:3, 3] += torch.tensor([7.0, -11.0, 5.0])
    return affine


SETUPS = {
    "parallel": (preset("parallel", SIZE), {"voxel_spacing": SPACING}),
    "x2ct": (preset("x2ct", SIZE), {"voxel_spacing": SPACING}),
    "clinic": (preset("clinic", SIZE), {"voxel_spacing": SPACING}),
    "circle-5": (preset("circle-5", SIZE), {"voxel_spacing": SPACING}),
    "tilted": ((view(30.0, 20.0), view(-100.0, -35.0)), {"voxel_spacing": SPACING}),
    "from above": ((view(0.0, 90.0),), {"voxel_spacing": SPACING}),
    "affine about z": (preset("x2ct", SIZE), {"affine": turned_affine(15.0)}),
    "tilted affine": (preset("x2ct", SIZE), {"affine": turned_affine(15.0, 10.0)}),
    "off-centre detector": (
        tuple(replace(c, detector_center=tuple(x + 20 for x in c.detector_center)) for c in preset("x2ct", SIZE)),
        {"voxel_spacing": SPACING},
    ),
}
setups = pytest.mark.parametrize(("cameras", "volume_kwargs"), SETUPS.values(), ids=SETUPS)
devices = pytest.mark.parametrize("device", DEVICES)


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


def test_blocks_of_planes_do_not_show(monkeypatch):
    x, y, cameras = random(1, 1, *SHAPE), random(1, 2, *SIZE), (view(30.0), view(30.0, 10.0))
    ax, aty = project(x, cameras, SPACING), backproject(y, cameras, SHAPE, SPACING)
    monkeypatch.setattr("trct_monai.projector.kernels.CPU_BLOCK", 3 * SIZE[1] * SHAPE[2])
    moved = SPACING[0] + 1e-9, *SPACING[1:]  # another key for the kept tables
    torch.testing.assert_close(project(x, cameras, moved), ax)
    torch.testing.assert_close(backproject(y, cameras, SHAPE, moved), aty)


@devices
def test_gradients_and_second_gradients_are_right(device):
    cameras = (view(20.0, size=(2, 3)), view(40.0, 15.0, size=(2, 3)))
    x = random(1, 1, 3, 2, 3).to(device).requires_grad_()
    y = random(1, 2, 2, 3, seed=1).to(device).requires_grad_()
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda v: project(v, cameras, 80.0), x, fast_mode=True)
        assert check(lambda r: backproject(r, cameras, (3, 2, 3), 80.0), y, fast_mode=True)


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


@pytest.mark.parametrize("geometry", ["parallel", "x2ct", "clinic"])
def test_central_ray_through_a_homogeneous_cube_gives_its_side_in_mm(geometry):
    image = project(torch.ones(1, 1, 32, 32, 32), preset(geometry, (5, 5)), 10.0)
    torch.testing.assert_close(image[..., 2, 2], torch.full((1, 2), 320.0))


def test_oblique_ray_through_a_homogeneous_cube_gives_its_chord():
    camera = view(0.0, size=(33, 33), extent=(330.0, 330.0))
    image = project(torch.ones(1, 1, 40, 40, 40, dtype=torch.float64), [camera], 8.0)[0, 0]
    # Pixel (26, 22) is 100 mm below and 60 mm beside the central ray; the chord is the side over the cosine.
    assert float(image[26, 22]) == pytest.approx(320 * (949.075**2 + 100**2 + 60**2) ** 0.5 / 949.075)


@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_scaling_voxels_and_camera_scales_the_integral(scale):
    cameras = preset("x2ct", SIZE)
    scaled = [
        replace(
            camera,
            source=tuple(scale * x for x in camera.source),
            detector_center=tuple(scale * x for x in camera.detector_center),
            pixel_spacing=tuple(scale * x for x in camera.pixel_spacing),
        )
        for camera in cameras
    ]
    x = random(1, 1, *SHAPE)
    expected = scale * project(x, cameras, SPACING)
    torch.testing.assert_close(project(x, scaled, [scale * s for s in SPACING]), expected)


def test_distant_source_tends_to_parallel_beams():
    x = random(1, 1, *SHAPE)
    for azimuth, elevation in ((0.0, 0.0), (35.0, 0.0), (35.0, 20.0)):
        extent = (250.0, 250.0)
        parallel = project(x, [view(azimuth, elevation, extent=extent, sod=None, sdd=None)], SPACING)
        errors = []
        for sod in (2e3, 2e4, 2e5, 2e6):
            cone = project(x, [view(azimuth, elevation, extent=extent, sod=sod, sdd=sod + 1)], SPACING)
            errors.append(float((cone - parallel).norm() / parallel.norm()))
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-3


def ray_integrals(camera, precision, center, profile):
    """Closed form along each ray of profile((x - center)' precision (x - center)), (H, W)."""
    r, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in camera.size), indexing="ij")
    pixels = torch.stack([c, r, torch.ones_like(c)], dim=-1) @ camera.pixel_to_world().T
    source = torch.tensor(camera.source, dtype=torch.float64)
    direction = torch.nn.functional.normalize(pixels - source, dim=-1)
    offset = source - center
    a = torch.einsum("hwi,ij,hwj->hw", direction, precision, direction)
    b = torch.einsum("hwi,ij,j->hw", direction, precision, offset)
    nearest = offset @ precision @ offset - b**2 / a  # the form's least value on the ray
    if profile == "ellipsoid":
        return 2 * ((1 - nearest).clamp(min=0) / a).sqrt()
    return torch.exp(-nearest / 2) * (2 * torch.pi / a).sqrt()


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg"), [(0.0, 0.0), (90.0, 0.0), (30.0, 0.0), (45.0, 0.0), (30.0, 15.0)]
)
@pytest.mark.parametrize(
    ("profile", "radii", "tolerance"), [("ellipsoid", (90, 110, 70), 0.03), ("smooth", (35, 45, 30), 3e-3)]
)
def test_projection_matches_closed_form_integrals(azimuth_deg, elevation_deg, profile, radii, tolerance):
    turn = turned_affine(25.0, 20.0)[:3, :3]
    axes = turn / turn.norm(dim=0)
    precision = axes @ torch.diag(1 / torch.tensor(radii, dtype=torch.float64) ** 2) @ axes.T
    center = torch.tensor([10.0, -5.0, 12.0], dtype=torch.float64)
    n, fine, side = 64, 3 if profile == "ellipsoid" else 1, 320.0  # edges are averaged over finer voxels
    axis = (torch.arange(n * fine, dtype=torch.float64) - (n * fine - 1) / 2) * side / (n * fine)
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1) - center
    form = ((points @ precision) * points).sum(-1)
    values = (form < 1).double() if profile == "ellipsoid" else torch.exp(-form / 2)
    volume = torch.nn.functional.avg_pool3d(values[None, None], fine)
    camera = view(azimuth_deg, elevation_deg, size=(64, 64))
    expected = ray_integrals(camera, precision, center, profile)
    error = (project(volume, [camera], side / n)[0, 0] - expected).norm() / expected.norm()
    assert error < tolerance


# A bright voxel at the patient's left (x = -80 mm), anterior (y = +100 mm), superior (z = +120 mm). Detector 81 x 81
# pixels of 10 mm, source 500 mm from the isocentre and 1000 mm from the detector: at depth d, magnified 1000 / d.
@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "row", "column"),
    [
        # pa: depth 500 + 100; up by 120, to the right (patient's left) by 80
        (0.0, 0.0, 40 - 12 * 1000 / 600, 40 + 8 * 1000 / 600),
        # lat: depth 500 + 80; up by 120, to the left (anterior) by 100
        (90.0, 0.0, 40 - 12 * 1000 / 580, 40 - 10 * 1000 / 580),
        # ap, detector posterior: depth 500 - 100; the patient's left is on the left of the image
        (180.0, 0.0, 40 - 12 * 1000 / 400, 40 - 8 * 1000 / 400),
        # right lateral: depth 500 - 80; anterior is on the right
        (-90.0, 0.0, 40 - 12 * 1000 / 420, 40 + 10 * 1000 / 420),
        # detector above the head: depth 500 + 120; anterior is down, the patient's left to the right
        (0.0, 90.0, 40 + 10 * 1000 / 620, 40 + 8 * 1000 / 620),
        # halfway to the left: axis (-s, s, 0), depth 500 + s * 180, columns along (-s, -s, 0): s * (80 - 100)
        (45.0, 0.0, 40 - 12 * 1000 / (500 + 180 * 0.5**0.5), 40 - 2 * 0.5**0.5 * 1000 / (500 + 180 * 0.5**0.5)),
    ],
    ids=["pa", "lat", "ap", "right lateral", "from above", "oblique"],
)
def test_left_anterior_superior_voxel_lands_on_its_pixel(azimuth_deg, elevation_deg, row, column):
    volume = torch.zeros(1, 1, 21, 25, 29, dtype=torch.float64)
    volume[0, 0, 2, 22, 26] = 1  # 10 mm voxels: (2 - 10, 22 - 12, 26 - 14)
    camera = view(azimuth_deg, elevation_deg, size=(81, 81), extent=(810.0, 810.0), sod=500.0, sdd=1000.0)
    image = project(volume, [camera], 10.0)[0, 0]
    pixels = torch.arange(81, dtype=torch.float64)
    found = float(image.sum(1) @ pixels / image.sum()), float(image.sum(0) @ pixels / image.sum())
    assert found == pytest.approx((row, column), abs=0.15)
    if elevation_deg == 0:
        assert found[0] < 40  # row 0 is superior


def test_left_anterior_superior_voxel_in_a_parallel_beam():
    volume = torch.zeros(1, 1, 32, 32, 32)
    volume[0, 0, 3, 24, 30] = 1  # 10 mm voxels and pixels: index and pixel are one another's mirror
    pa, lat = project(volume, preset("parallel", (32, 32)), 10.0)[0]
    assert pa.nonzero().tolist() == [[31 - 30, 31 - 3]]
    assert lat.nonzero().tolist() == [[31 - 30, 31 - 24]]


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


def test_resized_detector_sees_the_same_picture():
    camera = view(20.0, size=(48, 48))
    x = torch.nn.functional.avg_pool3d(random(1, 1, 24, 24, 24), 5, stride=1, padding=2)
    fine = project(x, [camera], 12.0)
    coarse = project(x, [camera.resized((16, 16))], 12.0)
    error = (torch.nn.functional.avg_pool2d(fine, 3) - coarse).norm() / coarse.norm()
    assert error < 0.01


def test_a_detector_that_sees_nothing_gives_zeros():
    camera = replace(view(0.0), detector_center=(0.0, 408.075, 5000.0))
    assert project(random(1, 1, *SHAPE), [camera], SPACING).abs().max() == 0
    assert backproject(random(1, 1, *SIZE), [camera], SHAPE, SPACING).abs().max() == 0


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


class Drawn(torch.utils.data.Dataset):
    """Projections made inside a worker."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return project(random(1, 1, *SHAPE, seed=index), preset("x2ct", SIZE), SPACING)[0]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_projection_works_in_forked_workers_after_use_in_the_parent():
    expected = torch.stack([Drawn()[i] for i in range(2)])  # fills the kept tables before the fork
    loader = torch.utils.data.DataLoader(Drawn(), batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(next(iter(loader)), expected)


def test_kept_tables_are_bounded():
    x = random(1, 1, 4, 4, 4)
    for azimuth in range(40):
        project(x, [view(float(azimuth), size=(3, 3))], 60.0)
    kept = views_module.make_view.cache_info()
    assert kept.currsize <= kept.maxsize == 32


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


def test_cameras_are_hashable_and_compare_by_value():
    assert hash(view(0.0)) == hash(view(0.0))
    assert Camera.from_dict(view(0.0).to_dict()) == view(0.0)
