"""What is known of a radiograph's camera before it is registered, and how far the body is that of the CT.

A picture that was rendered from the CT itself may have any camera, and shows exactly the CT's body. A radiograph was
taken of a patient who stood and breathed in some way, some days from a CT in which the patient lies. Where bodies
differ, a registration that may stretch the picture and move the source explains the difference by a wrong camera. But a
radiograph's pixels are square, or their sides are in its header, and its source stands at 1 to 2 m.
"""

from dataclasses import dataclass, field
from itertools import product
from math import inf, log, radians

import torch
from jaxtyping import Float, Int
from torch import Tensor

from trct_monai.geometry.orientations import ORIENTATIONS

SCALES = torch.tensor([0.02, 0.02, 5.0, 5.0, 1e-4, radians(1), radians(1), radians(1), 0.05, 0.1])
"""A unit of each unknown: those of a pose (`trct_monai.registration.poses.PARAMETERS`), the scatter fraction, and the
log of its width over `SCATTER_SIGMA`."""

FILM_DISTANCE = 1600.0
"""From the source to the isocentre in mm of a film at 1.8 m, as upright chests are taken."""

RARE = 30.0
"""Minus twice the log odds of what is rare: a frontal from the front (AP), a lateral with the right side at the film, a
picture stored mirrored, upside down or turned. Where bodies differ, wrong sides explain pictures better by up to 26."""

USUAL = {"pa": ((0, "identity"), (1, "flip_columns")), "lat": tuple(product((0, 1), ("identity", "flip_columns")))}
"""Side and orientation of upright pictures that are not mirrored: a frontal has the patient's right on its left from
either side, and a lateral may face left or right."""


@dataclass(frozen=True, eq=False)
class Prior:
    """Normal distributions of the unknowns, independent of each other, and odds of sides and orientations.

    Attributes:
        deviation: Standard deviations (10) in units of `SCALES`; infinite where nothing is known.
        aspect: Expected log of height over width of the picture as it is stored.
        inverse_distance: Expected 1 / source-isocentre distance in 1/mm.
        against: Minus twice the log odds of each side and orientation (2, 8): 0 for the nominal side and the opposite
            one in the order of `ORIENTATIONS` if nothing is known.
        correlated: Neighbouring residuals that count as one: what the CT does not explain is no white noise.
    """

    deviation: Float[Tensor, " 10"]
    aspect: float = 0.0
    inverse_distance: float = 0.0
    against: Float[Tensor, "2 8"] = field(default_factory=lambda: torch.zeros(2, len(ORIENTATIONS)))
    correlated: float = 12.0

    @classmethod
    def of_radiograph(
        cls,
        view: str,
        size: tuple[int, int],
        pixel_spacing: tuple[float, float] = (1.0, 1.0),
        is_opposite: bool = False,
    ) -> "Prior":
        """That of a radiograph of a patient in another posture and breath than in the CT.

        Args:
            view: ``pa`` or ``lat``.
            size: Rows and columns of the stored picture.
            pixel_spacing: Height and width of a pixel. Their ratio alone counts: headers state wrong sizes, and how
                wide the picture is, the CT tells.
            is_opposite: Whether a header states that it was taken from the other side: AP, or RL.
        """
        height, width = (n * side for n, side in zip(size, pixel_spacing))
        deviation = torch.tensor([inf, 0.5, inf, inf, 1.5, 3.0, 3.0, 3.0, 6.0, 3.0])
        against = torch.full((2, len(ORIENTATIONS)), RARE)
        for side, orientation in USUAL[view]:
            against[side, list(ORIENTATIONS).index(orientation)] = 0.0
        against[0 if is_opposite else 1] += RARE
        return cls(deviation, log(height / width), 1 / FILM_DISTANCE, against, correlated=100.0)

    @property
    def tells_sides(self) -> bool:
        """Whether one side is more probable than the other."""
        return bool((self.against[0] != self.against[1]).any())

    def centers(self, orientations: Int[Tensor, " N"]) -> Float[Tensor, "N 10"]:
        """The expected unknowns of pictures in some orientations.

        Args:
            orientations: Index in `ORIENTATIONS` of each; from 4 on rows become columns.
        """
        centers = torch.zeros(len(orientations), len(SCALES))
        centers[:, 1] = torch.where(orientations < 4, self.aspect, -self.aspect)
        centers[:, 4] = self.inverse_distance
        return centers


ANY = Prior(torch.tensor([inf, 15.0, inf, inf, inf, 6.0, 6.0, 6.0, 6.0, 3.0]))
"""Of a picture of which nothing is known, rendered from the CT itself: stretched by 30 %, turned by 6 degrees."""
