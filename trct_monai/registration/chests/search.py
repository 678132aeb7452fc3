"""Cameras of radiographs that nobody wrote down, found by how well a model of chests explains the pictures.

For a picture that is said to be frontal or lateral, field width, shift and orientation are unknown, and from which side
a lateral was taken. All of them are tried: coarsely on a grid, then finer around the best by drawing candidates from
narrowing normal distributions (the cross-entropy method: Rubinstein, Methodol. Comput. Appl. Probab. 1, 1999). The
score of a candidate is the logarithm of the pictures' evidence (see `trct_monai.registration.chests.evidence`) and of
the prior: film sizes, and a chest in the middle. Rays that run through the model's cube by less than nine tenths of
its side do not count, for a body goes on beyond it, nor do pixels that show no body.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera, make_camera
from trct_monai.geometry.orientations import orient
from trct_monai.registration.chests.candidates import KINDS, coarse_grid, view_of
from trct_monai.registration.chests.evidence import Evidence, evidence
from trct_monai.registration.chests.model import FIELD, ChestModel, Distance
from trct_monai.registration.chests.regions import Regions

FILM = Distance(1600.0, 1800.0)
"""An upright chest stand with the film at 1.8 m."""

COARSE, FINE = 22, 36
"""Longer side in pixels of the pictures that are compared."""

EFFECTIVE_PIXELS = 150.0
"""Independent pixels of a picture: a natural logarithm of odds is this times the difference of evidence per pixel."""

MIN_SHARE = 0.3
"""Candidates that leave less of a picture's pixels are none."""

LONGER_SIDE = (395.0, 45.0)
"""Mean and standard deviation in mm of a picture's longer side at the detector: films of 35 x 43 cm, cropped."""

KNOWN_SIDE = 0.03
"""Relative standard deviation of a width that a header states."""

SAME_PIXELS = 0.12
"""Standard deviation of the logarithm of the ratio of two pictures' pixels, where they are of one detector."""

DRAWN, DRAWN_TOGETHER = 24, 90
"""Candidates of a round of the refinement, of one picture and of a pair, which has twice the unknowns."""


@dataclass(frozen=True)
class Picture:
    """A picture whose camera is unknown.

    Attributes:
        kind: ``pa`` or ``lat``.
        regions: What its pixels show, as it is stored.
        size: Its rows and columns.
        pixel_spacing: Height and width of its pixels at the detector in mm, if a header states them.
    """

    kind: str
    regions: Regions
    size: tuple[int, int]
    pixel_spacing: tuple[float, float] | None = None

    def oriented(self, name: str) -> "Picture":
        """The picture after one of `ORIENTATIONS`."""
        old = self.regions
        turned = Regions(orient(old.values, name), orient(old.body, name), orient(old.air, name), old.ends)
        swapped = orient(torch.zeros(self.size), name).shape != self.size
        size, spacing = (self.size[::-1], self.pixel_spacing and self.pixel_spacing[::-1]) if swapped else (
            self.size, self.pixel_spacing
        )  # fmt: skip
        return replace(self, regions=turned, size=size, pixel_spacing=spacing)

    def compared(self, longer_side: int) -> Regions:
        """What is compared: air counts as the darkest of the body."""
        small = self.regions.resized(longer_side)
        values = torch.where(small.air, 0.0, small.values)
        return Regions(values, small.body | small.air, torch.zeros_like(small.air))


@dataclass(frozen=True)
class Found:
    """A picture's camera.

    Attributes:
        azimuth: Of the view in degrees.
        orientation: What brings the stored picture upright, of `ORIENTATIONS`.
        width: Of the upright picture in mm, at the isocentre.
        shift: Of the picture's middle from the isocentre's projection in mm at the isocentre, along rows and columns.
        distance: Of the source.
        scores: The best score of every azimuth and orientation that was tried.
    """

    azimuth: float
    orientation: str
    width: float
    shift: tuple[float, float]
    distance: Distance
    scores: Mapping[tuple[float, str], float]

    @property
    def score(self) -> float:
        """That of the one that was taken."""
        return self.scores[self.azimuth, self.orientation]

    def camera(self, name: str, size: tuple[int, int]) -> Camera:
        """The camera of the upright picture.

        Args:
            name: Of the view.
            size: The upright picture's rows and columns.
        """
        scale = self.distance.magnification
        side = self.width * scale
        camera = make_camera(
            name, self.azimuth, sod=self.distance.sod, sdd=self.distance.sdd,
            detector_extent=(side * size[0] / size[1], side), size=size,
        )  # fmt: skip
        x, y = (float(shift) * scale for shift in self.shift)
        moved = [
            center + x * column + y * row
            for center, column, row in zip(camera.detector_center, camera.column_axis, camera.row_axis)
        ]
        return replace(camera, detector_center=(moved[0], moved[1], moved[2]))


class Hypothesis(NamedTuple):
    """A picture seen in one way: upright by an orientation, and from one side."""

    picture: Picture
    azimuth: float
    orientation: str
    kind: str


def find_view(
    picture: Picture,
    model: ChestModel,
    orientations: Sequence[str],
    *,
    kind: str | None = None,
    distance: Distance = FILM,
    beside: float | None = None,
) -> Found:
    """The most probable camera of one picture by itself.

    Args:
        picture: The picture.
        model: What chests look like.
        orientations: Those to try, of `ORIENTATIONS`.
        kind: What it is taken for; its own kind if None.
        distance: Of the source.
        beside: Width in mm at the isocentre of a pixel in a picture of the same patient.
    """
    kind = picture.kind if kind is None else kind
    tried = [
        Hypothesis(picture.oriented(name), azimuth, name, kind)
        for name in orientations
        for azimuth in KINDS[kind].azimuths
    ]
    grid = coarse_grid(kind)
    coarse = [_score([one], model, grid[:, None], COARSE, distance, beside) for one in tried]
    order = sorted(range(len(tried)), key=lambda index: -float(coarse[index].max()))
    scores = {(one.azimuth, one.orientation): float(score.max()) for one, score in zip(tried, coarse)}
    results = []
    for index in order[: max(2, len(KINDS[kind].azimuths))]:
        start = grid[coarse[index].topk(4).indices][:, None]
        best, score = _refined([tried[index]], model, start, distance, beside)
        scores[tried[index].azimuth, tried[index].orientation] = score
        results.append((score, tried[index], best[0]))
    _, one, (width, *shift) = max(results, key=lambda result: result[0])
    lowest = min(score for score, *_ in results)
    refined = {(one.azimuth, one.orientation) for _, one, _ in results}
    scores = {key: value if key in refined else min(value, lowest) for key, value in scores.items()}
    return Found(one.azimuth, one.orientation, width, (shift[0], shift[1]), distance, scores)


def find_together(pictures: Sequence[Picture], found: Sequence[Found], model: ChestModel) -> list[Found]:
    """Cameras of pictures of one patient, from what was found for each by itself.

    Args:
        pictures: As they are stored.
        found: The camera of each; azimuths, orientations and distances stay.
        model: What chests look like.
    """
    upright = [
        Hypothesis(picture.oriented(one.orientation), one.azimuth, one.orientation, picture.kind)
        for picture, one in zip(pictures, found)
    ]
    start = torch.tensor([[[one.width, *one.shift] for one in found]])
    best, _ = _refined(upright, model, start, found[0].distance, None, rounds=9, number=DRAWN_TOGETHER)
    return [replace(one, width=width, shift=(x, y)) for one, (width, x, y) in zip(found, best)]


def explain(pictures: Sequence[Picture], found: Sequence[Found], model: ChestModel) -> Evidence:
    """How well a model explains pictures whose cameras are known; air beside the body counts as such.

    Args:
        pictures: As they are stored.
        found: The camera of each.
        model: What chests look like.
    """
    views = []
    for picture, one in zip(pictures, found):
        small = picture.oriented(one.orientation).regions.resized(FINE)
        place = torch.tensor([[one.width, *one.shift]])
        views.append(view_of(small, model, place, one.azimuth, one.distance, KINDS[picture.kind].dark))
    return evidence(views, EFFECTIVE_PIXELS)


def _refined(
    upright: Sequence[Hypothesis],
    model: ChestModel,
    start: Float[Tensor, "N V 3"],
    distance: Distance,
    beside: float | None,
    rounds: int = 5,
    number: int = DRAWN,
) -> tuple[list[list[float]], float]:
    """The best candidate near to some, and its score."""
    generator = torch.Generator().manual_seed(0)
    kept, spread = start, torch.tensor([12.0, 10.0, 13.0])
    for step in range(rounds):
        drawn = kept[:, None] + spread * torch.randn(
            len(kept), number // len(kept), *kept.shape[1:], generator=generator
        )
        candidates = torch.cat([kept, drawn.flatten(0, 1)])
        scores = _score(upright, model, candidates, FINE, distance, beside)
        best = scores.topk(3 if 2 * step < rounds else 2)
        kept, spread = candidates[best.indices], spread * 0.6
    return kept[0].tolist(), float(best.values[0])


def _score(
    upright: Sequence[Hypothesis],
    model: ChestModel,
    candidates: Float[Tensor, "N V 3"],
    longer_side: int,
    distance: Distance,
    beside: float | None,
) -> Float[Tensor, " N"]:
    """Score of each candidate."""
    views, prior, valid = [], torch.zeros(len(candidates), dtype=torch.float64), torch.ones(len(candidates)).bool()
    for index, one in enumerate(upright):
        small, place = one.picture.compared(longer_side), candidates[:, index]
        view = view_of(small, model, place, one.azimuth, distance, KINDS[one.kind].dark)
        views.append(view)
        prior = prior + _log_prior(one, place.double(), distance, beside)
        valid &= (view.number > MIN_SHARE * float(small.body.sum())) & (place[:, 0] > 100) & (place[:, 0] < FIELD)
    if len(upright) == 2 and all(one.picture.pixel_spacing is None for one in upright):
        pixels = [candidates[:, index, 0].double() / one.picture.size[1] for index, one in enumerate(upright)]
        prior = prior + _same_pixels(pixels[0] / pixels[1])
    scores = len(views) * EFFECTIVE_PIXELS * evidence(views, EFFECTIVE_PIXELS).per_pixel + prior
    return scores.masked_fill(~valid, -1e4)


def _log_prior(one: Hypothesis, place: Tensor, distance: Distance, beside: float | None) -> Float[Tensor, " N"]:
    """Of width and shifts, but for a constant."""
    width, x, y = place.T
    (rows, columns), (across, along) = one.picture.size, KINDS[one.kind].deviations
    longer = width * max(rows, columns) / columns * distance.magnification
    if one.picture.pixel_spacing is None:
        mean, deviation = LONGER_SIDE
        prior: Tensor = -0.5 * ((longer - mean) / deviation).square()
    else:
        stated = one.picture.pixel_spacing[1] * columns
        prior = -0.5 * ((width * distance.magnification / stated).log() / KNOWN_SIDE).square()
    prior = prior - 0.5 * ((x / across).square() + (y / along).square())
    if beside is not None and one.picture.pixel_spacing is None:
        prior = prior + _same_pixels(width / columns / beside)
    return prior


def _same_pixels(ratio: Tensor) -> Float[Tensor, " N"]:
    """That two pictures have pixels of one size, which most pairs have: a fifth was scaled by anything."""
    z = ratio.log() / SAME_PIXELS
    return (0.8 * (-0.5 * z.square()).exp() + 0.2 * (-0.5 * (z / 6).square()).exp()).log()
