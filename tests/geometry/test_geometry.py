"""Laws of frames and cameras: the expected numbers are worked out by hand from the conventions."""

import json
from dataclasses import replace
from math import cos, sin, sqrt

import pytest
import torch

from trct_monai.geometry import (
    Camera,
    make_camera,
    preset,
    projection_matrices,
    rigid_motion,
    voxel_centers,
    voxel_to_world,
    world_to_grid,
)

CONE = make_camera("pa", 0.0, sod=500.0, sdd=1000.0, detector_extent=(400.0, 600.0), size=(40, 60))


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "toward_detector", "columns", "rows"),
    [
        (0.0, 0.0, (0, 1, 0), (-1, 0, 0), (0, 0, -1)),  # anterior; columns to the patient's left
        (90.0, 0.0, (-1, 0, 0), (0, -1, 0), (0, 0, -1)),  # left; columns to posterior
        (180.0, 0.0, (0, -1, 0), (1, 0, 0), (0, 0, -1)),  # posterior; columns to the patient's right
        (-90.0, 0.0, (1, 0, 0), (0, 1, 0), (0, 0, -1)),  # right; columns to anterior
        (0.0, 90.0, (0, 0, 1), (-1, 0, 0), (0, 1, 0)),  # above the head; rows run to anterior
    ],
)
def test_angles_follow_the_positioner_angles_of_dicom(azimuth_deg, elevation_deg, toward_detector, columns, rows):
    camera = make_camera(
        "view",
        azimuth_deg,
        elevation_deg=elevation_deg,
        sod=500.0,
        sdd=800.0,
        detector_extent=(100.0, 100.0),
        size=(4, 4),
    )
    assert camera.normal == pytest.approx(toward_detector, abs=1e-12)
    assert camera.source == pytest.approx([-500 * n for n in toward_detector], abs=1e-9)
    assert camera.detector_center == pytest.approx([300 * n for n in toward_detector], abs=1e-9)
    assert camera.column_axis == pytest.approx(columns, abs=1e-12)
    assert camera.row_axis == pytest.approx(rows, abs=1e-12)


def test_x2ct_preset_states_its_published_distances():
    pa, lat = preset("x2ct", 100)
    assert (pa.name, lat.name) == ("pa", "lat")
    assert pa.source == (0.0, -541.0, 0.0)
    assert pa.detector_center == pytest.approx((0.0, 949.075 - 541.0, 0.0))
    assert lat.source == pytest.approx((541.0, 0.0, 0.0), abs=1e-9)
    assert pa.pixel_spacing == (5.0, 5.0)


def test_circle_spreads_its_views_over_half_a_turn():
    cameras = preset("circle-4", (8, 10))
    expected = [(0, 1, 0), (-1 / sqrt(2), 1 / sqrt(2), 0), (-1, 0, 0), (-1 / sqrt(2), -1 / sqrt(2), 0)]
    for camera, normal in zip(cameras, expected):
        assert camera.normal == pytest.approx(normal, abs=1e-12)
        assert camera.size == (8, 10)


def test_pixel_to_world_puts_pixel_zero_at_superior_and_patients_right_of_pa():
    corner = CONE.pixel_to_world() @ torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    assert corner.tolist() == pytest.approx([29.5 * 10, 500.0, 19.5 * 10])


def test_world_to_detector_magnifies_by_sdd_over_depth():
    matrix = CONE.world_to_detector()
    # 50 mm to the left and 25 mm up in the plane of the isocentre: magnified 2 times, on a half size of 300 x 200 mm.
    u, v, w = (matrix @ torch.tensor([-50.0, 0.0, 25.0, 1.0], dtype=torch.float64)).tolist()
    assert (u / w, v / w) == pytest.approx((100 / 300, -50 / 200))
    assert w == pytest.approx(0.5)


@pytest.mark.parametrize("sod", [None, 500.0])
def test_world_to_detector_inverts_pixel_to_world(sod):
    sdd = None if sod is None else 900.0
    camera = make_camera("v", 37.0, elevation_deg=21.0, sod=sod, sdd=sdd, detector_extent=(200.0, 300.0), size=(5, 7))
    pixels = torch.tensor([[0.0, 0.0, 1.0], [6.0, 4.0, 1.0], [3.0, 2.0, 1.0]], dtype=torch.float64)
    world = pixels @ camera.pixel_to_world().T
    u, v, w = (torch.cat([world, torch.ones(3, 1)], dim=1) @ camera.world_to_detector().T).unbind(1)
    torch.testing.assert_close((u / w + 1) * 7 / 2 - 0.5, pixels[:, 0])
    torch.testing.assert_close((v / w + 1) * 5 / 2 - 0.5, pixels[:, 1])


def test_world_to_detector_does_not_depend_on_the_number_of_pixels():
    torch.testing.assert_close(CONE.resized((7, 9)).world_to_detector(), CONE.world_to_detector())
    assert projection_matrices(preset("x2ct")).shape == (2, 3, 4)


def test_resized_keeps_the_detector():
    half = CONE.resized((20, 30))
    assert half.size == (20, 30)
    assert half.pixel_spacing == (20.0, 20.0)
    assert half.resized((40, 60)) == CONE


@pytest.mark.parametrize("geometry", ["parallel", "x2ct", "clinic", "circle-3"])
def test_camera_survives_json(geometry):
    for camera in preset(geometry, (12, 16)):
        assert Camera.from_dict(json.loads(json.dumps(camera.to_dict()))) == camera


def test_voxel_centers_agree_with_voxel_to_world():
    shape, spacing = (3, 4, 5), (2.0, 1.5, 1.0)
    centers = voxel_centers(shape, spacing)
    assert centers[0, 0, 0].tolist() == [-2.0, -2.25, -2.0]
    assert centers.mean(dim=(0, 1, 2)).abs().max() == 0
    index = torch.tensor([2.0, 3.0, 1.0, 1.0], dtype=torch.float64)
    assert (voxel_to_world(shape, spacing) @ index)[:3].tolist() == centers[2, 3, 1].tolist()


def test_world_to_grid_reads_the_voxel_at_its_centre():
    shape, spacing = (3, 4, 5), (2.0, 1.5, 1.0)
    volume = torch.rand(1, 1, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    grid = world_to_grid(voxel_centers(shape, spacing), [n * s for n, s in zip(shape, spacing)])
    sampled = torch.nn.functional.grid_sample(volume, grid[None], align_corners=False)
    torch.testing.assert_close(sampled, volume)


def test_bad_geometry_is_refused_in_one_line():
    with pytest.raises(ValueError, match="unit vectors at right angles"):
        replace(CONE, column_axis=(1.0, 0.5, 0.0))
    with pytest.raises(ValueError, match="pixel_spacing and size must be positive"):
        replace(CONE, pixel_spacing=(1.0, 0.0))
    with pytest.raises(ValueError, match="size must be positive"):
        CONE.resized((0, 4))
    with pytest.raises(ValueError, match="size must be positive"):
        preset("x2ct", 0)
    with pytest.raises(ValueError, match="a mirrored axis"):
        replace(CONE, column_axis=(1.0, 0.0, 0.0))
    with pytest.raises(ValueError, match="must be finite"):
        replace(CONE, source=(0.0, float("nan"), 0.0))
    with pytest.raises(ValueError, match="0 < sod < sdd"):
        make_camera("v", 0.0, sod=900.0, sdd=500.0, detector_extent=(1.0, 1.0), size=(1, 1))
    with pytest.raises(ValueError, match="0 < sod < sdd"):
        make_camera("v", 0.0, sod=None, sdd=500.0, detector_extent=(1.0, 1.0), size=(1, 1))
    with pytest.raises(ValueError, match=r"parallel, x2ct, clinic or circle-N, got 'cone'"):
        preset("cone")
    with pytest.raises(ValueError, match="circle-N"):
        preset("circle-0")
    with pytest.raises(ValueError, match="a camera needs the fields name, source"):
        Camera.from_dict({"name": "pa"})
    with pytest.raises(ValueError, match="one or three positive numbers in mm"):
        voxel_to_world((4, 4, 4), (1.0, -1.0, 1.0))
    with pytest.raises(ValueError, match=r"three voxel counts \(X, Y, Z\)"):
        voxel_to_world((4, 4), 1.0)


@pytest.mark.parametrize("geometry", ["x2ct", "parallel", "clinic", "circle-5"])
def test_a_camera_is_recovered_from_its_matrix(geometry: str) -> None:
    """Also after float32, and after the world was turned: with the same rays."""
    turn = rigid_motion(torch.tensor([0.3, 0.2, 0.1]).double(), torch.tensor([3.0, -5.0, 7.0]).double())
    for camera in preset(geometry, (40, 60)):
        again = Camera.from_world_to_detector(camera.world_to_detector(), (40, 60), camera.name)
        assert again.detector_center == pytest.approx(camera.detector_center, abs=1e-6)
        assert again.pixel_spacing == pytest.approx(camera.pixel_spacing)
        assert (again.source is None) == (camera.source is None)
        moved = (camera.world_to_detector() @ turn).float()
        back = Camera.from_world_to_detector(moved, (40, 60)).world_to_detector()
        torch.testing.assert_close(back, moved.double(), atol=1e-5, rtol=1e-4)


def test_a_picture_without_pixel_spacing_fills_the_detector_with_square_pixels():
    camera = preset("clinic")[0].for_picture((300, 200))
    assert camera.size == (300, 200) and camera.pixel_spacing == pytest.approx((430 / 300, 430 / 300))
    camera = preset("clinic")[0].for_picture((300, 200), (1.2, 1.1))
    assert camera.size == (300, 200) and camera.pixel_spacing == (1.2, 1.1)


def test_a_rigid_motion_rotates_about_the_origin_then_translates():
    motion = rigid_motion(torch.tensor([0.0, 0.0, 0.1]).double(), torch.tensor([1.0, 2.0, 3.0]).double())
    moved = motion @ torch.tensor([1.0, 0.0, 0.0, 1.0]).double()
    torch.testing.assert_close(moved, torch.tensor([1 + cos(0.1), 2 + sin(0.1), 3, 1]).double())
    torch.testing.assert_close(motion[:3, :3] @ motion[:3, :3].T, torch.eye(3).double())
