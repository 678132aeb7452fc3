"""Radiographs in a beam of many energies: what is thick loses most, and one energy is the plain projection."""

import pytest
import torch

from tests.projector.setups import view
from trct_monai import physics
from trct_monai.projector import project_hu, project_polyenergetic

CAMERAS = [view(0.0, size=(12, 12), extent=(320.0, 320.0)), view(30.0, 10.0, size=(12, 12), extent=(320.0, 320.0))]


def water_of(side: int, hu: float = 0.0) -> torch.Tensor:
    """A cube of water of so many voxels of 10 mm in air."""
    volume = torch.full((1, 24, 24, 24), -1000.0)
    inside = slice(12 - side // 2, 12 + side // 2)
    volume[:, inside, inside, inside] = hu
    return volume


def center(images: torch.Tensor) -> torch.Tensor:
    return images[:, 5:7, 5:7].mean(dim=(1, 2))


def test_beam_hardening_lowers_thick_line_integrals_most() -> None:
    ratios = []
    for side in (4, 10, 20):
        hardened = project_polyenergetic(water_of(side), CAMERAS, 10.0, kvp=100.0)
        ratios.append(center(hardened) / center(project_hu(water_of(side), CAMERAS, 10.0)))
    assert bool((torch.stack(ratios).diff(dim=0) < 0).all())


def test_a_higher_tube_voltage_passes_more() -> None:
    images = [project_polyenergetic(water_of(16, hu=400.0), CAMERAS, 10.0, kvp) for kvp in (70.0, 100.0, 140.0)]
    means = [float(image.mean()) for image in images]
    assert means == sorted(means, reverse=True)


def test_of_water_alone_it_is_the_hardened_projection() -> None:
    """A patient of water can be projected first and hardened then."""
    plain = project_hu(water_of(12), CAMERAS, 10.0)
    torch.testing.assert_close(
        project_polyenergetic(water_of(12), CAMERAS, 10.0, kvp=120.0), physics.harden(plain, 120.0), rtol=2e-3, atol=0
    )


def test_bone_hardens_more_than_water_of_the_same_attenuation() -> None:
    growth = {"bone": [], "water": []}
    for side in (4, 8):  # the path doubles, the integral does not
        growth["bone"].append(center(project_polyenergetic(water_of(side, hu=1500.0), CAMERAS, 10.0, kvp=120.0)))
        growth["water"].append(center(physics.harden(2.5 * project_hu(water_of(side), CAMERAS, 10.0), 120.0)))
    bone, water = (long / short for short, long in growth.values())
    assert bool((bone < water).all())


def test_a_tube_voltage_beyond_the_table_is_refused() -> None:
    with pytest.raises(ValueError, match="kvp must be above 20.0 and at most 150.0 kV, got 200"):
        project_polyenergetic(water_of(4), CAMERAS, 10.0, kvp=200.0)
