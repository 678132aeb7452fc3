"""The camera of a radiograph, from the CT that it belongs to: 2-D/3-D registration with everything left open.

Unknown are the orientation of the stored picture (eight flips and turns), the side from which it was taken, the sizes
of its pixels in both directions, the distance of the source up to a parallel beam, shift, turn, tilt and roll, and the
scale of its numbers. The CT is projected whole. `trct_monai.registration.search` makes the first guesses, and
`trct_monai.registration.refinement` follows the best of them through three resolutions.

How sure the answer is comes from the same fit: the covariance of the pose, from the curvature of its posterior, is
carried to points in the patient; another solution that explains the picture nearly as well counts as an error of its
distance. Errors are mean projection distances (van de Kraats et al., IEEE Trans. Med. Imaging 24, 2005): how far the
middle and the corners of a cube of 320 mm are from where they should be in the picture, in mm at the isocentre, on
average.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import fit_gain_offset
from trct_monai.io.case import Intensity, Orientation
from trct_monai.registration.orientation import MIN_CORRELATION, Match
from trct_monai.registration.pictures import Pictures
from trct_monai.registration.poses import Beam
from trct_monai.registration.prior import ANY, Prior
from trct_monai.registration.projections import CoarseCT
from trct_monai.registration.refinement import Fit, refine
from trct_monai.registration.search import Guess, search

LEVELS = ((6.0, 32), (4.0, 64), (3.0, 96))
"""Voxel side in mm, and rows and columns of the picture, from coarse to fine."""

STARTS = 16
"""Guesses that are refined."""

LOST = 60.0
"""Difference in minus twice the log posterior from which another solution is given up."""

MAX_ERROR = 2.5
"""Estimated error in mm from which a camera is not sure."""

SAME = 10.0
"""Mean distance in mm between two solutions that count as one."""

AS_GOOD = 6.0
"""Difference in minus twice the log posterior up to which another solution may be the right one."""

TURNS = (-0.08, 0.08)
DISTANCES = (1e-4, 9e-4)
"""Turns in radians and inverse distances in 1/mm of the second round's starts."""

CUBE = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 3) * DEFAULT_EXTENT / 2
POINTS = torch.cat([torch.zeros(1, 3, dtype=torch.float64), CUBE])
"""Middle and corners of the cube in mm, at which errors are measured."""


@dataclass(frozen=True)
class Registration(Match):
    """A measured camera; see `Match` for the rest.

    Attributes:
        error_mm: Estimate of the mean projection distance in mm at the isocentre.
        scatter: Scatter fraction that explains the picture best.
    """

    error_mm: float
    scatter: float

    def is_sure(self, min_correlation: float = MIN_CORRELATION, max_error: float = MAX_ERROR) -> bool:
        """Whether the camera may be used.

        Args:
            min_correlation: Least correlation of the picture with what the camera gives.
            max_error: Largest estimated error in mm.
        """
        return abs(self.orientation["correlation"]) >= min_correlation and self.error_mm <= max_error


def register(
    image: Float[Tensor, "H W"],
    ct_hu: Real[Tensor, "1 X Y Z"],
    spacing: Sequence[float],
    camera: Camera,
    *,
    mask: Bool[Tensor, "H W"] | None = None,
    prior: Prior = ANY,
) -> Registration:
    """The camera with which a radiograph of a CT was taken.

    Args:
        image: The picture as it is stored, its numbers on any scale that grows or falls with the line integral.
        ct_hu: The whole CT in HU, axes in RAS order along the world's.
        spacing: Its voxel sides in mm.
        camera: A view with the nominal direction of the beam; nothing else of it plays a part.
        mask: Pixels of the picture to look at; without it all of them. Leave out shutters and letters.
        prior: What is known of the camera before.

    Returns:
        The registration, with a camera in mm from the middle of the CT.

    Raises:
        ValueError: If the picture has no contrast, or no valid pixels.
    """
    image = image.float()
    seen = image if mask is None else image[mask]
    if seen.numel() < 64 or not bool(torch.isfinite(seen).all()) or float(seen.max()) <= float(seen.min()):
        raise ValueError(f"a radiograph needs finite numbers, contrast and 64 valid pixels, got {tuple(image.shape)}")
    beams = (Beam.of(camera), Beam.of(camera.opposite()))
    volumes = {coarse: CoarseCT.of(ct_hu.as_subclass(Tensor)[0], spacing, coarse, beams[0]) for coarse, _ in LEVELS}
    levels = [(volumes[coarse], beams, Pictures.of(image, mask, size)) for coarse, size in LEVELS]
    first = refine(*levels[0], search(*levels[0])[:STARTS], 3, prior)[: STARTS // 2]
    first = _distinct(beams, refine(*levels[0], first, 4, prior))
    fits = refine(*levels[0], _spread(first[:2]), 3, prior)[: STARTS // 3]
    fits = _rivals(_distinct(beams, refine(*levels[0], fits, 5, prior)), 3)
    fits = _rivals(_distinct(beams, refine(*levels[1], fits, 5, prior)), 2)
    fits = refine(*levels[2], fits, 4, prior)
    if fits[0].side or prior.tells_sides or _may_be_parallel(fits[0]):
        twin = _mirrored(fits[0], prior.inverse_distance)
        fits = _first_of_twins(fits, refine(*levels[2], [twin], 4, prior)[0], prior)
    fine = levels[2][0]
    others = [fit for fit in (*fits[1:], *first) if distance(beams, fits[0], fit) > SAME]
    return _result(image, mask, beams, fine, fits, others)


def verify(
    image: Float[Tensor, "H W"],
    ct_hu: Real[Tensor, "1 X Y Z"],
    spacing: Sequence[float],
    camera: Camera,
    *,
    mask: Bool[Tensor, "H W"] | None = None,
) -> Match:
    """How well a measured camera explains a picture, in each of the eight orientations.

    The comparison is that of `register`: rays beside the CT do not count, and scale and scatter are fitted.

    Args:
        image: The picture as it is stored.
        ct_hu: The CT in HU, axes in RAS order along the world's; the middle is the camera's origin.
        spacing: Its voxel sides in mm.
        camera: The camera.
        mask: Pixels of the picture to look at; without it all of them.
    """
    beam, (coarse, size) = Beam.of(camera), LEVELS[0]
    ct = CoarseCT.of(ct_hu.as_subclass(Tensor)[0], spacing, coarse, beam)
    pose, pictures = beam.pose(camera), Pictures.of(image.float(), mask, size)
    starts = [Guess(0, index, pose, 0.0, share) for index in range(len(ORIENTATIONS)) for share in (0.0, 0.15, 0.3)]
    best, *others = refine(ct, (beam, beam), pictures, starts, 0)
    other = next(fit for fit in others if fit.orientation != best.orientation)
    return _match(image, mask, ct, beam, best, other, camera)


def error_of(covariance: Float[Tensor, "8 8"], beam: Beam, pose: Float[Tensor, " 8"]) -> float:
    """Root mean square displacement of `POINTS` in mm at the isocentre, for a pose with a covariance."""

    def places(one: Tensor) -> Tensor:
        sides = torch.stack([pose[0], pose[:2].sum()]).double().exp() / 2
        return (beam.image_points(one[None], POINTS)[0] * sides).flatten()

    slopes = torch.autograd.functional.jacobian(places, pose.double())  # type: ignore[no-untyped-call]
    return float((slopes @ covariance @ slopes.T).diagonal().sum().div(len(POINTS)).clamp(min=0).sqrt())


def distance(beams: tuple[Beam, Beam], one: Fit, other: Fit) -> float:
    """Mean distance of `POINTS` in the stored picture between two fits, in mm at the isocentre."""
    sides = torch.stack([one.pose[0], one.pose[:2].sum()]).double().exp() / 2
    ends = []
    for fit in (one, other):
        places = beams[fit.side].image_points(fit.pose[None], POINTS)[0]
        ends.append(as_stored(places, list(ORIENTATIONS)[fit.orientation]))
    sides = sides.flip(0) if one.orientation >= 4 else sides
    return float(((ends[0] - ends[1]) * sides).norm(dim=1).mean())


def as_stored(places: Float[Tensor, "P 2"], transform: str) -> Float[Tensor, "P 2"]:
    """Places in the stored picture of places in the oriented one, along columns and rows in [-1, 1].

    Args:
        places: In the picture after `orient`.
        transform: The orientation.
    """
    u, v = places.unbind(1)
    stored = {
        "identity": (u, v),
        "flip_columns": (-u, v),
        "flip_rows": (u, -v),
        "rotate_180": (-u, -v),
        "transpose": (v, u),
        "rotate_90": (-v, u),
        "rotate_270": (v, -u),
        "transpose_anti": (-v, -u),
    }
    return torch.stack(stored[transform], dim=1)


def _spread(fits: Sequence[Fit]) -> list[Fit]:
    """The fits, and starts around each: turn and distance trade for one another along a curved valley."""
    starts = list(fits)
    for fit in fits:
        for turn, inverse in product(TURNS, DISTANCES):
            pose = fit.pose.clone()
            pose[6], pose[4] = turn, inverse
            starts.append(replace(fit, pose=pose))
    return starts


def _may_be_parallel(fit: Fit) -> bool:
    """Whether the source may be as well beyond the farthest: then it may be on the other side."""
    return bool(fit.pose[4] < 2 * fit.covariance[4, 4].sqrt())


def _mirrored(fit: Fit, inverse_distance: float) -> Fit:
    """The same view from the other side, with the picture mirrored: the same picture, if the beam is parallel."""
    names = list(ORIENTATIONS)
    twin = {
        "identity": "flip_columns", "flip_rows": "rotate_180", "transpose": "rotate_270", "rotate_90": "transpose_anti",
    }  # fmt: skip
    name = (twin | {other: one for one, other in twin.items()})[names[fit.orientation]]
    pose = fit.pose * torch.tensor([1.0, 1.0, -1.0, 1.0, 0.0, -1.0, 1.0, -1.0])
    pose[4] = inverse_distance
    return replace(fit, side=1 - fit.side, orientation=names.index(name), pose=pose)


def _first_of_twins(fits: list[Fit], twin: Fit, prior: Prior) -> list[Fit]:
    """The fits, with its twin from the other side in place of the first where that explains the picture better.

    Where both explain it, the one from the nominal side is taken; if the prior tells the sides apart, neither is sure.
    """
    first, *others = fits
    if prior.tells_sides:
        return [*sorted([first, twin], key=lambda fit: fit.cost), *others]
    margin = AS_GOOD if twin.side == 0 else -AS_GOOD
    return [twin, *others] if (twin.cost - first.cost) * first.pixels < margin else fits


def _rivals(fits: Sequence[Fit], count: int) -> list[Fit]:
    """The best fits, without those that explain the picture much worse than the best."""
    best = fits[0]
    return [fit for fit in fits[:count] if (fit.cost - best.cost) * best.pixels < LOST]


def _distinct(beams: tuple[Beam, Beam], fits: Sequence[Fit]) -> list[Fit]:
    """The fits without those that are a better one again."""
    kept: list[Fit] = []
    for fit in fits:
        if all(distance(beams, better, fit) > SAME for better in kept):
            kept.append(fit)
    return kept


def _result(
    image: Tensor,
    mask: Tensor | None,
    beams: tuple[Beam, Beam],
    ct: CoarseCT,
    fits: Sequence[Fit],
    others: Sequence[Fit],
) -> Registration:
    best = fits[0]
    runner_up = max(others, key=lambda fit: abs(fit.correlation), default=best)
    beam = beams[best.side]
    error = error_of(best.covariance, beam, best.pose)
    for other in fits[1:]:
        if other.cost - best.cost < AS_GOOD / best.pixels:
            error = max(error, distance(beams, best, other))
    rows, columns = orient(image, list(ORIENTATIONS)[best.orientation]).shape
    match = _match(image, mask, ct, beam, best, runner_up, beam.camera(best.pose, (rows, columns)))
    orientation: Orientation = {**match.orientation, "error_mm": round(error, 2)}
    return Registration(
        match.camera, orientation, match.intensity, match.expected, match.found, error_mm=error, scatter=best.scatter
    )


def _match(
    image: Tensor, mask: Tensor | None, ct: CoarseCT, beam: Beam, best: Fit, runner_up: Fit, camera: Camera
) -> Match:
    """A fit in the words of `Match`; gain and offset over the rays that count."""
    names, size = list(ORIENTATIONS), LEVELS[-1][1]
    images, counts = ct.project(beam, best.pose[None], size)
    pictures = Pictures.of(image, mask, size, scaled=False)
    found, valid = pictures.values[best.orientation], pictures.weights[best.orientation] * counts[0]
    gain, offset = fit_gain_offset(found[valid > 0], images[0][valid > 0])
    orientation: Orientation = {
        "transform": names[best.orientation],
        "correlation": round(best.correlation, 4),
        "runner_up": names[runner_up.orientation],
        "runner_up_correlation": round(runner_up.correlation, 4),
    }
    intensity: Intensity = {"quantitative": False, "gain": gain, "offset": offset}
    return Match(camera, orientation, intensity, images[0], found)
