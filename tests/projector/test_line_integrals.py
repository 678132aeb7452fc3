"""Projections against line integrals known in closed form, and where each voxel lands on the detector."""

from dataclasses import replace

import pytest
import torch

from tests.projector.setups import SHAPE, SIZE, SPACING, random, turned_affine, view
from trct_monai.geometry import preset
from trct_monai.projector import backproject, project


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
