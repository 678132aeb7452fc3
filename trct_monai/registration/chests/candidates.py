"""Candidates for the camera of a picture, and what the model of chests expects for each."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.registration.chests.evidence import View, view_statistics
from trct_monai.registration.chests.model import FIELD, ChestModel, Distance
from trct_monai.registration.chests.regions import Regions

MIN_LENGTH = 0.9
"""Rays that run through the cube by a smaller share of its side do not count."""

WIDTHS = tuple(range(230, 440, 30))
"""Widths in mm at the isocentre on the coarse grid."""

VERTICAL = (-60.0, -30.0, 0.0, 30.0, 60.0)


class Kind(NamedTuple):
    """A view as it is named to the user.

    Attributes:
        azimuths: From where it may have been taken, in degrees.
        horizontal: Shifts to either side on the coarse grid, in mm.
        deviations: Standard deviations of the shifts in mm, along rows and columns.
        dark: Mean and standard deviation of the line integral of its darkest pixel.
    """

    azimuths: tuple[float, ...]
    horizontal: tuple[float, ...]
    deviations: tuple[float, float]
    dark: tuple[float, float]


KINDS = {
    "pa": Kind((0.0,), (-25.0, 0.0, 25.0), (25.0, 40.0), (1.2, 0.8)),
    "lat": Kind((90.0, -90.0), (-50.0, -25.0, 0.0, 25.0, 50.0), (40.0, 40.0), (0.7, 0.6)),
}
"""By the library's names. A lateral of azimuth 90 faces left, one of -90 right."""


def coarse_grid(kind: str) -> Float[Tensor, "N 3"]:
    """Width and shifts in mm of the candidates that are tried first."""
    axes = (torch.tensor(WIDTHS, dtype=torch.float32), *map(torch.tensor, (KINDS[kind].horizontal, VERTICAL)))
    return torch.cartesian_prod(*axes)


def view_of(
    small: Regions,
    model: ChestModel,
    place: Float[Tensor, "N 3"],
    azimuth: float,
    distance: Distance,
    dark: tuple[float, float],
) -> View:
    """What the model expects where the picture's pixels would be, for each candidate."""
    mean, length, *modes = projected(model, place, small.values.shape, azimuth, distance)
    components, inside = torch.stack(modes, dim=1), length > MIN_LENGTH * model.extent
    body, air = small.body.flatten(), small.air.flatten()
    view = view_statistics(small.values.flatten(), mean, components, (inside & body).float(), dark)
    return view.with_air(mean, components, (inside & air).float()) if bool(air.any()) else view


def projected(
    model: ChestModel, place: Float[Tensor, "N 3"], size: Sequence[int], azimuth: float, distance: Distance
) -> Float[Tensor, "K2 N n"]:
    """Line integrals of the mean, millimetres within the cube, and line integrals of the components, for candidates.

    Args:
        model: What chests look like.
        place: Width and shifts of the picture in mm at the isocentre.
        size: Its rows and columns.
        azimuth: Of the view in degrees.
        distance: Of the source.
    """
    height, width = size
    wide = model.wide(azimuth, distance)
    side = place[:, :1] / width
    x = side * (torch.arange(width) - (width - 1) / 2) + place[:, 1:2]
    y = side * (torch.arange(height) - (height - 1) / 2) + place[:, 2:3]
    x, y = x[:, None, :].expand(-1, height, -1), y[:, :, None].expand(-1, -1, width)
    grid = torch.stack([x, y], dim=-1).flatten(0, 1)[None] / (FIELD / 2)
    images = torch.cat([wide.mean[None], wide.length[None], wide.modes])[None]
    return F.grid_sample(images, grid, align_corners=False)[0].view(len(images[0]), len(place), -1)
