"""Rays from projection matrices: the line through source and pixel, whatever the camera."""

import pytest
import torch

from trct_monai.geometry import Camera, make_camera, preset, projection_matrices
from trct_monai.networks.rays import pixel_rays, points_along_rays, squared_distance_to_rays

TILTED = (make_camera("tilted", 30, elevation_deg=20, sod=541, sdd=949, detector_extent=(400, 500), size=(6, 8)),)
CAMERAS = [*preset("x2ct", (6, 8)), *preset("parallel", (6, 8)), *preset("circle-5", (6, 8)), *TILTED]


def pixel_centers(camera: Camera) -> torch.Tensor:
    r, c = torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="ij")
    return (torch.stack([c, r, torch.ones_like(r)], dim=-1).double() @ camera.pixel_to_world().T).float()


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.name)
def test_ray_runs_through_its_pixel_away_from_the_source(camera: Camera) -> None:
    nearest, direction = (ray[0] for ray in pixel_rays(projection_matrices([camera]), (6, 8)))
    pixels = pixel_centers(camera)
    along = ((pixels - nearest) * direction).sum(-1, keepdim=True)
    torch.testing.assert_close(nearest + along * direction, pixels, atol=1e-2, rtol=0)
    assert ((nearest * direction).sum(-1).abs() < 1e-2).all()
    assert (direction @ torch.tensor(camera.normal) > 0).all()
    if camera.source is not None:
        source = torch.tensor(camera.source)
        back = ((source - nearest) * direction).sum(-1, keepdim=True)
        torch.testing.assert_close(nearest + back * direction, source.expand(6, 8, 3), atol=1e-2, rtol=0)


def test_distance_vanishes_on_the_ray_and_is_pythagoras_off_it() -> None:
    nearest, direction = torch.zeros(1, 3), torch.tensor([[0.0, 1.0, 0.0]])
    points = torch.tensor([[0.0, 70.0, 0.0], [3.0, 5.0, 4.0]])
    torch.testing.assert_close(squared_distance_to_rays(points, nearest, direction), torch.tensor([[0.0], [25.0]]))


def test_points_along_the_central_ray_cross_the_cube() -> None:
    points = points_along_rays(torch.zeros(3), torch.tensor([0.0, 1.0, 0.0]), 320.0, 3)
    torch.testing.assert_close(points, torch.tensor([[0.0, -1, 0], [0, 0, 0], [0, 1, 0]]))
