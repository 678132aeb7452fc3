"""What the pixels of a radiograph show: body, air, or nothing that was measured."""

import pytest
import torch
from torch import Tensor

from trct_monai.registration.chests.regions import find_regions


def trunk(height: int = 300, width: int = 260) -> Tensor:
    """The chord of an elliptic cylinder that runs through the whole picture from top to bottom, with air beside it."""
    x = (torch.arange(width) - width / 2) / (0.38 * width)
    chord = (1 - x.square()).clamp(min=0.0).sqrt()
    rows = 1.0 - 0.2 * (torch.linspace(-1, 1, height)[:, None]).square()
    noise = 0.03 * torch.rand(height, width, generator=torch.Generator().manual_seed(0))
    return 0.05 + 0.8 * rows * chord + noise


def test_air_beside_the_body_is_told_from_the_body() -> None:
    regions = find_regions(trunk())
    middle, edge = regions.values.shape[1] // 3, 4
    assert bool(regions.body[10:-10, middle].all()) and not bool(regions.air[:, middle].any())
    assert bool(regions.air[5:-5, edge].all()) and not bool(regions.body[5:-5, edge].any())
    assert 0.6 < float(regions.body.float().mean()) < 0.85


def test_a_shutter_over_the_body_is_neither() -> None:
    picture = trunk()
    rows, columns = torch.meshgrid(torch.arange(300), torch.arange(260), indexing="ij")
    picture[(rows + 0.1 * columns) < 60] = 0.0  # a border turned by 6 degrees, as of a picture set straight
    regions = find_regions(picture)
    middle = regions.values.shape[1] // 3
    assert not bool((regions.body | regions.air)[:25, middle].any())
    assert bool(regions.body[80:-10, middle].all())


def test_a_black_frame_is_unknown_over_the_body_and_air_beside_air() -> None:
    picture = trunk()
    picture[:40] = picture[-30:] = 0.0
    regions = find_regions(picture)
    middle = regions.values.shape[1] // 3
    assert not bool((regions.body | regions.air)[:30, middle].any())
    assert bool(regions.air[5, 3])


def test_letters_and_saturated_pixels_are_unknown() -> None:
    picture = trunk()
    picture[40:60, 120:150] = 1.0
    regions = find_regions(picture)
    assert not bool((regions.body | regions.air)[38:48, 106:124].any())


def test_regions_do_not_depend_on_scale_and_offset() -> None:
    one, other = find_regions(trunk()), find_regions(3.7 * trunk() - 11)
    assert torch.equal(one.body, other.body) and torch.equal(one.air, other.air)
    torch.testing.assert_close(one.values, other.values, atol=1e-4, rtol=0)


def test_invalid_pixels_are_unknown() -> None:
    valid = torch.ones(300, 260, dtype=torch.bool)
    valid[100:160] = False
    regions = find_regions(trunk(), valid)
    assert not bool((regions.body | regions.air)[90:130].any())


@pytest.mark.parametrize("picture", [torch.zeros(40, 40), torch.ones(40, 40)])
def test_a_flat_picture_is_refused(picture: Tensor) -> None:
    with pytest.raises(ValueError, match="one value only"):
        find_regions(picture)
