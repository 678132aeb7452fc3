"""Cameras and volumes that the tests of the projector share."""

from dataclasses import replace
from math import cos, radians, sin

import pytest
import torch

from trct_monai.geometry import make_camera, preset, voxel_to_world

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
