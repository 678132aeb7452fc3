"""The first guess: every orientation, field, shift and roll on a grid, for a few beams.

With the source and the patient where they are, another width, height, shift or roll of the picture is another part of
the same projection plane. So few large projections serve a hundred thousand candidates: each is a small 2-D resampling,
and all eight orientations of the radiograph are compared with it by one product of matrices.
"""

from dataclasses import dataclass
from itertools import product
from math import log, radians

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.orientations import ORIENTATIONS
from trct_monai.registration.pictures import Pictures, ranks
from trct_monai.registration.poses import Beam
from trct_monai.registration.projections import CoarseCT
from trct_monai.registration.scatter import SCATTER_SIGMA, with_scatter

PLANE = 720.0
"""Side of the large projections at the isocentre in mm."""

FIELDS = (225.0, 268.0, 320.0, 381.0, 453.0, 540.0)
"""Widths, and heights, of the pictures at the isocentre in mm."""

SHIFTS = (-50.0, -25.0, 0.0, 25.0, 50.0)
ROLLS = (-5.0, 0.0, 5.0)
INVERSE_DISTANCES = (0.0, 1 / 1600, 1 / 850)

SHARES = (0.0, 0.25)
"""Scatter fractions."""

LEAST_OVERLAP = 0.15
"""Share of the picture's valid pixels that the CT must explain."""


@dataclass(frozen=True)
class Guess:
    """A candidate.

    Attributes:
        side: 0 for the beam itself, 1 for the one from the other side.
        orientation: Index in `ORIENTATIONS`.
        pose: The numbers of `trct_monai.registration.poses.PARAMETERS`.
        similarity: Absolute correlation of ranks.
    """

    side: int
    orientation: int
    pose: Float[Tensor, " 8"]
    similarity: float
    scatter: float = 0.1
    blur: float = 0.0


def search(ct: CoarseCT, beams: tuple[Beam, Beam], pictures: Pictures, per_orientation: int = 2) -> list[Guess]:
    """The best candidates of each side and orientation, the most similar first.

    Args:
        ct: The CT.
        beams: The nominal direction and the opposite one.
        pictures: The radiograph in its orientations.
        per_orientation: Number of candidates for each, at each distance of the source and each scatter fraction.
    """
    plane = int(PLANE / ct.spacing / 1.25)
    size = pictures.values.shape[-1]
    ranked = pictures.equalised()
    warps = _warps(size)
    found: list[Guess] = []
    for side, inverse in product((0, 1), INVERSE_DISTANCES):
        if side and not inverse:
            continue  # a parallel beam from the other side is the mirrored one
        base = torch.tensor([[log(PLANE), 0, 0, 0, inverse, 0, 0, 0]])
        image, counts = ct.project(beams[side], base, plane)
        seen = with_scatter(
            image[None].expand(1, len(SHARES), -1, -1),
            torch.full((1, 2), PLANE),
            torch.tensor([SHARES]),
            torch.tensor([SCATTER_SIGMA]),
        )
        for share, line in zip(SHARES, seen[0]):
            channels = torch.stack([ranks(line, counts[0]), counts[0]])
            similarity = torch.cat([_compare(channels, grid, ranked) for grid in torch.split(warps.grids, 256)])
            for orientation in range(len(ORIENTATIONS)):
                best = similarity[:, orientation].topk(per_orientation)
                for value, index in zip(best.values.tolist(), best.indices.tolist()):
                    pose = warps.poses[index].clone()
                    pose[4] = inverse
                    found.append(Guess(side, orientation, pose, value, share))
    found.sort(key=lambda guess: -guess.similarity)
    return found


@dataclass(frozen=True, eq=False)
class _Warps:
    """Parts of the plane: their poses (N, 8), and where their pixels are in it (N, S, S, 2), for `grid_sample`."""

    poses: Tensor
    grids: Tensor


def _warps(size: int) -> _Warps:
    """All parts of the plane that are looked at, and where their pixels are in it."""
    poses = torch.tensor(
        [
            [log(width), log(height / width), column, row, 0.0, 0.0, 0.0, radians(roll)]
            for width, height, column, row, roll in product(FIELDS, FIELDS, SHIFTS, SHIFTS, ROLLS)
            if 0.6 < height / width < 1.7
        ]
    )
    steps = (torch.arange(size) + 0.5) / size - 0.5
    u = poses[:, 0].exp()[:, None, None] * steps
    v = (poses[:, 0] + poses[:, 1]).exp()[:, None, None] * steps[:, None]
    c, s = poses[:, 7].cos()[:, None, None], poses[:, 7].sin()[:, None, None]
    x = poses[:, 2, None, None] * c - poses[:, 3, None, None] * s + u * c - v * s
    y = poses[:, 2, None, None] * s + poses[:, 3, None, None] * c + u * s + v * c
    return _Warps(poses, torch.stack([x, y], dim=-1) * (2 / PLANE))


def _compare(channels: Float[Tensor, "2 P P"], grids: Float[Tensor, "N S S 2"], pictures: Pictures) -> Tensor:
    """Absolute correlations (N, 8) of ranks, over the pixels that count on both sides."""
    n, size = grids.shape[:2]
    warped = F.grid_sample(channels[None], grids.reshape(1, n * size, size, 2), align_corners=False)
    p, w = warped.view(2, n, size * size)
    w = (w > 0.99).float()
    m = pictures.weights.flatten(1).T
    f = pictures.values.flatten(1).T * m
    total = w @ m
    count = total.clamp(min=1)
    wp = w * p
    mean_p, mean_f = wp @ m / count, w @ f / count
    var_p = (wp * p) @ m / count - mean_p**2
    var_f = w @ (f * pictures.values.flatten(1).T) / count - mean_f**2
    cov = wp @ f / count - mean_p * mean_f
    similarity: Tensor = cov.abs() / (var_p.clamp(min=1e-4) * var_f.clamp(min=1e-4)).sqrt()
    enough: Tensor = total >= LEAST_OVERLAP * m.sum(0)
    return similarity * enough
