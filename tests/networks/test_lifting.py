"""Lifting: each voxel reads each view where its ray hits the detector."""

import pytest
import torch

from trct_monai.geometry import DEFAULT_EXTENT, preset, projection_matrices, voxel_centers
from trct_monai.networks.lifting import detector_coordinates, lift
from trct_monai.projector import project

SIZE, SPACING = 16, DEFAULT_EXTENT / 16
CENTERS = voxel_centers((SIZE,) * 3, SPACING).float()


@pytest.mark.parametrize("name", ["x2ct", "parallel", "circle-4"])
def test_the_shadow_of_a_voxel_is_lifted_back_through_it(name: str) -> None:
    cameras = preset(name, 64)
    volume = torch.zeros(1, 1, SIZE, SIZE, SIZE)
    volume[0, 0, 11, 4, 9] = 1
    lifted = lift(project(volume, cameras, SPACING)[:, :, None], projection_matrices(cameras)[None], CENTERS)
    assert lifted.shape == (1, len(cameras), 1, SIZE, SIZE, SIZE)
    for view in lifted[0, :, 0]:
        assert view[11, 4, 9] > 0.7 * view.max()
    # Only where all views agree is the voxel; the product of the smears peaks there.
    peak = int(lifted[0, :, 0].prod(dim=0).argmax())
    assert torch.unravel_index(torch.tensor(peak), (SIZE,) * 3) == (11, 4, 9)


def test_coordinates_are_those_of_the_projection_matrix() -> None:
    matrices = projection_matrices(preset("x2ct"))
    points = torch.tensor([[0.0, 0.0, 0.0], [-80.0, 0.0, 0.0], [0.0, 0.0, 80.0]])
    pa, lat = detector_coordinates(points, matrices)
    magnified = 80 * 949.075 / 541 / 250
    torch.testing.assert_close(pa, torch.tensor([[0.0, 0.0], [magnified, 0.0], [0.0, -magnified]]), atol=1e-4, rtol=0)
    assert abs(float(lat[1, 0])) < 1e-4 and float(lat[2, 1]) < -0.5


def test_matrices_of_each_case_and_views_in_another_order() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.rand(2, 2, 3, 8, 8, generator=generator)
    one, other = (projection_matrices(preset(name)) for name in ("x2ct", "clinic"))
    both = lift(features, torch.stack([one, other]), CENTERS)
    torch.testing.assert_close(both[0], lift(features, one[None], CENTERS)[0])
    torch.testing.assert_close(both[1], lift(features, other[None], CENTERS)[1])
    torch.testing.assert_close(lift(features.flip(1), one.flip(0)[None], CENTERS).flip(1)[0], both[0])


def test_any_points_read_what_voxels_in_their_places_read() -> None:
    features = torch.rand(2, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    matrices = projection_matrices(preset("x2ct"))[None]
    points = lift(features, matrices, CENTERS.flatten(0, 2))
    assert points.shape == (2, 2, 3, SIZE**3)
    assert torch.equal(points, lift(features, matrices, CENTERS).flatten(3))


def test_beyond_the_detector_there_is_nothing() -> None:
    cameras = [camera for camera in preset("x2ct", 8)]
    far = CENTERS * 10
    lifted = lift(torch.ones(1, 2, 1, 8, 8), projection_matrices(cameras)[None], far.clamp(-500, 500))
    assert lifted[..., 0, 8, 0].abs().max() == 0 and lifted[..., 8, 8, 8].min() > 0.9


def test_half_precision_does_not_move_the_rays() -> None:
    """Under autocast the coordinates stay in float32: in bfloat16 they would be off by most of a pixel."""
    centers = voxel_centers((8, 8, 8), 40.0).float()
    matrices = projection_matrices(preset("x2ct"))[None]
    ramp = torch.linspace(-1, 1, 128).expand(1, 2, 1, 128, 128).contiguous()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        coordinates = detector_coordinates(centers.flatten(0, 2), matrices)
        lifted = lift(ramp.bfloat16(), matrices, centers)
    torch.testing.assert_close(coordinates, detector_coordinates(centers.flatten(0, 2), matrices))
    assert lifted.dtype == torch.bfloat16
    torch.testing.assert_close(lifted.float(), lift(ramp.bfloat16().float(), matrices, centers), atol=5e-3, rtol=0)
