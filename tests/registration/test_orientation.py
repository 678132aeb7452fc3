import pytest
import torch

from trct_monai.geometry import preset
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project, project_hu
from trct_monai.registration.orientation import find_camera, measure


@pytest.fixture(scope="module")
def cube():
    return torch.from_numpy(thorax_phantom(3, size=32, findings=[]).ct_hu)[None]


@pytest.mark.parametrize("view", [0, 1])
@pytest.mark.parametrize("transform", ORIENTATIONS)
def test_each_of_the_eight_is_recovered(cube, transform, view):
    camera = preset("x2ct", 48)[view]
    image = project_hu(cube, [camera], 320.0 / cube.shape[-1])[0]
    inverse = next(name for name in ORIENTATIONS if torch.equal(orient(orient(image, name), transform), image))
    found = measure(orient(image, inverse), cube, 320.0, camera).orientation
    assert found["transform"] == transform and found["correlation"] > 0.999
    assert found["runner_up_correlation"] < found["correlation"] - 0.005


def test_gain_and_offset_turn_a_picture_into_line_integrals(cube):
    camera = preset("x2ct", 48)[0]
    image = project_hu(cube, [camera], 320.0 / cube.shape[-1])[0]
    match = measure(image.flip(0) * 30 + 12, cube, 320.0, camera)
    assert not match.intensity["quantitative"]
    assert match.intensity["gain"] == pytest.approx(1 / 30, rel=1e-3)
    assert match.intensity["offset"] == pytest.approx(-12 / 30, rel=1e-2)
    assert measure(image, cube, 320.0, camera).intensity["quantitative"]


def test_an_inverted_picture_is_recognised(cube):
    camera = preset("x2ct", 48)[0]
    image = project_hu(cube, [camera], 320.0 / cube.shape[-1])[0]
    match = measure(1 - image.flip(1) / image.max(), cube, 320.0, camera)
    assert match.orientation["transform"] == "flip_columns" and match.orientation["correlation"] < -0.99
    assert match.intensity["gain"] < 0


def test_oblong_pictures_are_turned_only_as_they_fit(cube):
    camera = preset("x2ct", (32, 48))[0]
    image = project_hu(cube, [camera], 320.0 / cube.shape[-1])[0]
    assert measure(image.flip(1), cube, 320.0, camera).orientation["transform"] == "flip_columns"
    assert measure(torch.rot90(image, -1), cube, 320.0, camera).orientation["transform"] == "rotate_90"
    with pytest.raises(ValueError, match="does not have the sides"):
        measure(torch.rand(20, 21), cube, 320.0, camera)


@pytest.mark.parametrize("transform", ORIENTATIONS)
def test_an_oblong_picture_of_oblong_pixels_is_found_however_it_is_stored(cube, transform):
    camera = preset("x2ct")[0]
    view = camera.for_picture((60, 40), (6.0, 9.0))
    image = project_hu(cube, [view], 320.0 / cube.shape[-1])[0]
    inverse = next(name for name in ORIENTATIONS if torch.equal(orient(orient(image, name), transform), image))
    stored = orient(image, inverse)
    spacing = (6.0, 9.0) if stored.shape == image.shape else (9.0, 6.0)
    match = find_camera(stored, cube, 320.0, camera, pixel_spacing=spacing)
    assert match.orientation["transform"] == transform and match.orientation["correlation"] > 0.999
    assert match.camera == view


def test_the_opposite_camera_is_the_same_beam_turned_round(cube):
    camera = preset("parallel", 32)[1]
    image, other = project_hu(cube, [camera, camera.opposite()], 320.0 / cube.shape[-1])
    torch.testing.assert_close(other, image.flip(1), atol=1e-3, rtol=1e-3)
    cone = preset("x2ct", 48)[1]
    picture = project_hu(cube, [cone.opposite()], 320.0 / cube.shape[-1])[0]
    right = measure(picture, cube, 320.0, cone.opposite()).orientation["correlation"]
    assert right > measure(picture, cube, 320.0, cone).orientation["correlation"]


def test_a_shifted_camera_sees_a_shifted_volume_alike():
    volume = torch.rand((1, 1, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    cameras = preset("x2ct", 16)
    affine = torch.diag(torch.tensor([10.0, 10, 10, 1], dtype=torch.float64))
    affine[:3, 3] = -35
    moved = affine.clone()
    moved[:3, 3] += torch.tensor([5.0, -10.0, 20.0])
    shifted = [camera.shifted((5.0, -10.0, 20.0)) for camera in cameras]
    expected = project(volume, cameras, affine=affine)
    torch.testing.assert_close(project(volume, shifted, affine=moved), expected, atol=1e-4, rtol=1e-4)
