"""Laws of the three intensity scales."""

import pytest
import torch

from trct_monai.intensity import (
    HU_WINDOW,
    MU_WATER,
    attenuation_per_unit,
    attenuation_to_hu,
    hu_to_attenuation,
    hu_to_unit,
    unit_to_attenuation,
    unit_to_hu,
)


@pytest.mark.parametrize("hu_window", [HU_WINDOW, (-1000.0, 1000.0), (-160.0, 240.0)])
def test_hu_round_trip_is_exact_inside_the_window(hu_window):
    hu = torch.linspace(*hu_window, 1001, dtype=torch.float64)
    unit = hu_to_unit(hu, hu_window)
    assert (unit.min(), unit.max()) == (0, 1)
    torch.testing.assert_close(unit_to_hu(unit, hu_window), hu, atol=1e-9, rtol=0)


def test_hu_outside_the_window_is_clipped():
    assert hu_to_unit(torch.tensor([-3000.0, 3000.0])).tolist() == [0.0, 1.0]


def test_water_air_and_vacuum_attenuate_as_they_should():
    mu = hu_to_attenuation(torch.tensor([0.0, -1000.0, -1024.0, 1000.0]))
    torch.testing.assert_close(mu, torch.tensor([MU_WATER, 0.0, 0.0, 2 * MU_WATER]))


def test_attenuation_round_trip_above_air():
    hu = torch.linspace(-1000, 3000, 41, dtype=torch.float64)
    torch.testing.assert_close(attenuation_to_hu(hu_to_attenuation(hu, 0.02), 0.02), hu)


def test_unit_to_attenuation_is_differentiable_above_vacuum():
    unit = torch.tensor([0.0, 0.5, 0.9], dtype=torch.float64, requires_grad=True)
    unit_to_attenuation(unit).sum().backward()
    slope = MU_WATER * (HU_WINDOW[1] - HU_WINDOW[0]) / 1000
    assert attenuation_per_unit() == pytest.approx(slope)
    assert unit.grad.tolist() == pytest.approx([0.0, slope, slope])  # -1024 HU is below vacuum
