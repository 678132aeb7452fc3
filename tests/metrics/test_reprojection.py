"""Agreement with the radiographs, and with a held-out view."""

from math import atan2, degrees

import pytest
import torch

from trct_monai.geometry import make_camera, preset
from trct_monai.metrics.reprojection import held_out_camera, relative_residual
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project_hu

SPACING = 20.0


def phantom(seed: int) -> torch.Tensor:
    return torch.from_numpy(thorax_phantom(seed, 16, 320.0).ct_hu)[None].float()


def test_a_volume_agrees_with_its_own_radiographs_and_not_with_others() -> None:
    cameras = preset("x2ct", 24)
    own, other = (project_hu(phantom(seed), cameras, SPACING) for seed in (1, 2))
    assert relative_residual(own, own) == 0.0
    assert relative_residual(own, other) > 0.05
    assert relative_residual(1.1 * own, own) == pytest.approx(0.1, rel=1e-5)
    assert relative_residual(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)) == 0.0


def test_pictures_without_a_scale_are_fitted_first() -> None:
    cameras = preset("x2ct", 24)
    own, other = (project_hu(phantom(seed), cameras, SPACING) for seed in (1, 2))
    picture = 0.2 * own + torch.tensor([3.0, 1.0])[:, None, None]
    assert relative_residual(own, picture) > 0.5
    assert relative_residual(own, picture, fit=True) == pytest.approx(0.0, abs=1e-6)
    assert relative_residual(other, picture, fit=True) > 0.005
    assert relative_residual(torch.ones_like(own), picture, fit=True) > 0.005


@pytest.mark.parametrize(("name", "expected"), [("x2ct", 45.0), ("parallel", 45.0), ("circle-4", 22.5)])
def test_the_held_out_view_is_in_the_middle_of_the_widest_gap(name: str, expected: float) -> None:
    cameras = preset(name, 16)
    camera = held_out_camera(cameras)
    assert degrees(atan2(-camera.normal[0], camera.normal[1])) == pytest.approx(expected)
    assert camera.size == cameras[0].size and camera.pixel_spacing == cameras[0].pixel_spacing


def test_the_held_out_view_of_one_view_is_across() -> None:
    camera = held_out_camera([make_camera("a", 30.0, sod=541.0, sdd=949.0, detector_extent=(500, 500), size=(8, 8))])
    assert degrees(atan2(-camera.normal[0], camera.normal[1])) == pytest.approx(120.0)


def test_a_turned_camera_is_the_camera_at_that_angle() -> None:
    options = {"sod": 541.0, "sdd": 949.0, "detector_extent": (500.0, 500.0), "size": (8, 8), "elevation_deg": 10.0}
    turned = make_camera("a", 20.0, **options).turned(35.0)
    torch.testing.assert_close(turned.world_to_detector(), make_camera("a", 55.0, **options).world_to_detector())
