"""A radiograph's camera from its CT: what is recovered, what does not matter, and what is refused."""

from dataclasses import replace

import pytest
import torch

from trct_monai.geometry import make_camera
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.intensity import AIR_HU
from trct_monai.phantoms import thorax_phantom
from trct_monai.physics import degrade
from trct_monai.projector import project_hu
from trct_monai.registration import Prior, register, verify
from trct_monai.registration.camera import POINTS, as_stored
from trct_monai.registration.poses import Beam
from trct_monai.registration.projections import CoarseCT

SPACING = (5.0, 5.0, 5.0)
NOMINAL = {"pa": 0.0, "lat": 90.0}
STORED_AS = {name: name for name in ORIENTATIONS} | {"rotate_90": "rotate_270", "rotate_270": "rotate_90"}


@pytest.fixture(scope="module")
def ct():
    return torch.from_numpy(thorax_phantom(3, size=64, findings=[]).ct_hu)[None]


def nominal(view):
    return make_camera(view, NOMINAL[view], sod=None, sdd=None, detector_extent=(320.0, 320.0), size=(8, 8))


def drawn(seed, view, size=(96, 96)):
    """A camera near the nominal one, or near the one from the other side."""
    generator = torch.Generator().manual_seed(seed)
    turn, tilt, side, inverse, width, stretch, x, z = torch.rand(8, generator=generator).tolist()
    sod = None if inverse < 0.15 else 700 / inverse
    sdd = None if sod is None else sod + 200
    scale = (1.0 if sod is None else sdd / sod) * (280 + 180 * width)
    camera = make_camera(
        view, NOMINAL[view] + (180 if side > 0.5 else 0) + 8 * turn - 4, elevation_deg=8 * tilt - 4, sod=sod, sdd=sdd,
        detector_extent=(scale * (0.85 + 0.3 * stretch), scale), size=size,
    )  # fmt: skip
    return camera.shifted((40 * x - 20, 0.0, 40 * z - 20) if view == "pa" else (0.0, 40 * x - 20, 40 * z - 20))


def error_mm(found, camera, transform):
    """Mean distance of the cube's middle and corners in the stored picture, in mm at the isocentre."""

    def places(one, name):
        u, v, w = (torch.cat([POINTS, torch.ones(9, 1, dtype=torch.float64)], dim=1) @ one.world_to_detector().T).T
        return as_stored(torch.stack([u / w, v / w], dim=1), name)

    half = Beam.pose(camera)[:2].double()
    sides = torch.stack([half[0], half.sum()]).exp() / 2
    sides = sides.flip(0) if list(ORIENTATIONS).index(transform) >= 4 else sides
    apart = places(found.camera, found.orientation["transform"]) - places(camera, transform)
    return float((apart * sides).norm(dim=1).mean())


def taken(ct, camera, transform="identity", **physics):
    line = project_hu(ct, [camera], SPACING[0])[None]
    seen = degrade(line, camera.pixel_spacing, **physics, generator=torch.Generator().manual_seed(0))[0, 0]
    return orient(seen, STORED_AS[transform])


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "transform"), [(1, "flip_columns"), (2, "flip_rows"), (5, "rotate_90")])
def test_a_camera_is_recovered_however_the_picture_is_stored(ct, seed, transform):
    """Stretched, 8 bits, with a gamma, scatter and noise; frontal and lateral in turn, from either side."""
    view = ("pa", "lat")[seed % 2]
    camera = drawn(seed, view)
    picture = taken(ct, camera, transform, scatter_fraction=0.2, photons=4000)
    unit = (picture - picture.min()) / (picture.max() - picture.min())
    found = register((255 * unit ** (0.6 + 0.15 * seed)).round(), ct, SPACING, nominal(view))
    assert found.is_sure()
    assert error_mm(found, camera, transform) < 3
    assert found.error_mm < 2.5


@pytest.mark.slow
def test_neither_a_change_of_scale_nor_masked_pixels_matter(ct):
    camera = drawn(4, "pa")
    picture = taken(ct, camera)
    first = register(picture, ct, SPACING, nominal("pa"))
    mask = torch.ones_like(picture, dtype=torch.bool)
    mask[:, :16] = mask[70:76, 60:] = False
    covered = (30 - 7 * picture).where(mask, torch.tensor(500.0))  # inverted film behind a shutter, with a letter
    second = register(covered, ct, SPACING, nominal("pa"), mask=mask)
    assert error_mm(first, camera, "identity") < 1 and error_mm(second, camera, "identity") < 1.5
    assert first.orientation["correlation"] > 0.999 and second.orientation["correlation"] < -0.999
    gain, offset = first.intensity["gain"], first.intensity["offset"]
    assert gain == pytest.approx(1, abs=0.05) and offset == pytest.approx(0, abs=0.1)


@pytest.mark.slow
def test_a_breath_is_not_taken_for_another_camera(ct):
    """The same patient half way to expiration; and another patient, whose camera is not sure."""
    breathing = torch.from_numpy(thorax_phantom(3, size=64, findings=[], phase=0.25).ct_hu)[None]
    camera = make_camera("lat", 91.0, sod=1600.0, sdd=1800.0, detector_extent=(400.0, 380.0), size=(100, 95))
    picture = taken(breathing, camera, scatter_fraction=0.2, photons=20000)
    found = register(picture, ct, SPACING, nominal("lat"), prior=Prior.of_radiograph("lat", (100, 95)))
    assert found.orientation["transform"] == "identity" and found.is_sure(max_error=5)
    assert error_mm(found, camera, "identity") < 5
    other = torch.from_numpy(thorax_phantom(11, size=64, findings=[]).ct_hu)[None]
    stranger = register(picture, other, SPACING, nominal("lat"), prior=Prior.of_radiograph("lat", (100, 95)))
    assert not stranger.is_sure(max_error=5) and stranger.error_mm > 1.5 * found.error_mm


def test_a_turned_picture_has_its_sides_exchanged_and_rare_ways_cost():
    prior = Prior.of_radiograph("pa", (300, 200), (0.2, 0.1))
    upright, turned = prior.centers(torch.tensor([0, 4]))
    assert float(upright[1].exp()) == pytest.approx(3.0) and float(turned[1].exp()) == pytest.approx(1 / 3)
    assert float(1 / upright[4]) == pytest.approx(1600.0)
    names = list(ORIENTATIONS)
    usual = [(side, names[index]) for side, index in (prior.against == prior.against.min()).nonzero().tolist()]
    assert usual == [(0, "identity")]  # PA, upright, not mirrored
    ap = Prior.of_radiograph("pa", (300, 200), is_opposite=True).against
    assert int(ap.argmin()) == len(names) + names.index("flip_columns")  # not mirrored as it is displayed


@pytest.mark.slow
def test_noise_and_another_body_are_not_sure(ct):
    noise = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    assert not register(noise, ct, SPACING, nominal("pa")).is_sure()
    x, y, z = torch.meshgrid(*[torch.linspace(-160, 160, 64)] * 3, indexing="ij")
    thighs = ((x.abs() - 80).square() + y.square()).sqrt() < 65
    bones = ((x.abs() - 80).square() + y.square()).sqrt() < 15
    limb = torch.full((1, 64, 64, 64), AIR_HU).masked_fill(thighs, 40.0).masked_fill(bones, 800.0)
    assert not register(taken(limb, drawn(4, "pa")), ct, SPACING, nominal("pa")).is_sure()


def test_a_picture_without_contrast_is_refused(ct):
    with pytest.raises(ValueError, match="contrast"):
        register(torch.ones(32, 32), ct, SPACING, nominal("pa"))
    with pytest.raises(ValueError, match="64 valid pixels"):
        register(torch.rand(32, 32), ct, SPACING, nominal("pa"), mask=torch.zeros(32, 32, dtype=torch.bool))


@pytest.mark.parametrize("view", NOMINAL)
def test_small_projections_are_those_of_the_projector(ct, view):
    beam = Beam.of(nominal(view))
    pose = torch.tensor([5.8, 0.1, 10.0, -20.0, 1 / 900, 0.05, -0.06, 0.08])
    camera = beam.camera(pose, (24, 24))
    coarse = CoarseCT.of(ct[0], SPACING, SPACING[0], beam)
    images, counts = coarse.project(beam, pose[None], 24)
    expected = project_hu(ct, [camera], SPACING[0])[0]
    torch.testing.assert_close(images[0], expected, atol=0.01, rtol=0.01)
    assert 0.3 < counts.mean() < 1
    points = torch.cat([POINTS, torch.ones(9, 1, dtype=torch.float64)], dim=1) @ camera.world_to_detector().T
    torch.testing.assert_close(beam.image_points(pose[None], POINTS)[0], points[:, :2] / points[:, 2:])
    again = Beam.of(camera).pose(camera)
    torch.testing.assert_close(again[:5], pose[:5].to(again), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("transform", ORIENTATIONS)
def test_each_orientation_is_told_from_the_others(ct, transform):
    camera = drawn(2, "pa", (48, 48))
    match = verify(taken(ct, camera, transform, scatter_fraction=0.2), ct, SPACING, camera)
    assert match.orientation["transform"] == transform and match.orientation["correlation"] > 0.99
    assert match.orientation["runner_up_correlation"] < match.orientation["correlation"] - 0.01


def test_a_wrong_pixel_size_explains_a_picture_less_well(ct):
    camera = drawn(2, "pa", (48, 48))
    wrong = replace(camera, pixel_spacing=(camera.pixel_spacing[0] * 1.3, camera.pixel_spacing[1]))
    right, other = (verify(taken(ct, camera), ct, SPACING, one).orientation for one in (camera, wrong))
    assert other["correlation"] < right["correlation"] - 0.02
