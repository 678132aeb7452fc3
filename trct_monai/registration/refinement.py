"""From a guess to the camera: Gauss-Newton steps on the pose, with the scale of the radiograph left open.

The picture is explained as a smooth function h of the line integral p behind scatter, fitted anew for each pose:

    picture = h(p) + noise(p),    h(p) = c_0 + c_1 p^(1/2) + c_2 p + c_3 p^2 + c_4 p^3

which covers gain, offset, gamma from 1/2 to 3 and ends that saturate gently. Noise depends on p, too: where few
photons come through, the picture says little. What is left is minimised over the pose, the scatter fraction and its
width by variable projection (Golub and Pereyra, SIAM J. Numer. Anal. 10, 1973, in the form of Kaufman, BIT 15, 1975),
with the step control of Levenberg and Marquardt, and weights that ignore what no pose explains (Cauchy's; Holland and
Welsch, Commun. Stat. A 6, 1977). All starts take their steps together, each with nine small projections: the pose, and
a little beside it in each of its eight numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, log

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.registration.pictures import Pictures
from trct_monai.registration.poses import Beam
from trct_monai.registration.prior import ANY, SCALES, Prior
from trct_monai.registration.projections import CoarseCT
from trct_monai.registration.scale import Scale, basis_of
from trct_monai.registration.scatter import SCATTER_SIGMA, with_scatter
from trct_monai.registration.search import LEAST_OVERLAP, Guess

STEP = 0.25
"""Units for finite differences."""

LOWEST = torch.tensor([log(120.0), -0.9, -200.0, -200.0, 0.0, -0.35, -0.35, -0.35, 0.0, -1.0])
HIGHEST = torch.tensor([log(900.0), 0.9, 200.0, 200.0, 1 / 550, 0.35, 0.35, 0.35, 0.8, 1.0])
"""Limits of the unknowns."""


@dataclass(frozen=True, eq=False)
class Fit:
    """Where the steps ended.

    Attributes:
        side: As in `Guess`.
        orientation: As in `Guess`.
        pose: The numbers of `PARAMETERS`.
        scatter: Scatter fraction.
        blur: Log of its width over `SCATTER_SIGMA`.
        correlation: Between the picture and h(p); negative if h falls.
        cost: Minus twice the log posterior for each independent pixel.
        pixels: Number of independent pixels.
        covariance: Of the pose (8, 8), in the units of `PARAMETERS`.
    """

    side: int
    orientation: int
    pose: Float[Tensor, " 8"]
    scatter: float
    blur: float
    correlation: float
    cost: float
    pixels: float
    covariance: Float[Tensor, "8 8"]


def refine(
    ct: CoarseCT,
    beams: tuple[Beam, Beam],
    pictures: Pictures,
    starts: Sequence[Guess | Fit],
    steps: int,
    prior: Prior = ANY,
) -> list[Fit]:
    """Fits from several starts at once, the best first.

    Args:
        ct: The CT.
        beams: The nominal direction and the opposite one.
        pictures: The radiograph in its orientations.
        starts: Guesses, or fits at another resolution.
        steps: Number of steps.
        prior: What is known before.
    """
    fits: list[Fit] = []
    for side in (0, 1):
        some = [start for start in starts if start.side == side]
        if some:
            fits += _refine(ct, beams[side], pictures, some, steps, prior)
    return sorted(fits, key=lambda fit: fit.cost)


def _refine(
    ct: CoarseCT, beam: Beam, pictures: Pictures, starts: Sequence[Guess | Fit], steps: int, prior: Prior
) -> list[Fit]:
    index = torch.tensor([start.orientation for start in starts])
    against = prior.against[torch.tensor([start.side for start in starts]), index]
    known = _Known(prior.centers(index), 1 / prior.deviation.square(), against, prior.correlated)
    target, valid = pictures.values[index].flatten(1), pictures.weights[index].flatten(1)
    unknowns = torch.stack([torch.cat([s.pose.float(), torch.tensor([s.scatter, s.blur])]) for s in starts])
    best = unknowns = unknowns.clamp(LOWEST, HIGHEST)
    state = _linearise(ct, beam, unknowns, target, valid, known)
    damping = torch.full((len(starts),), 1e-2)
    for _ in range(steps):
        diagonal = state.hessian.diagonal(dim1=1, dim2=2)
        system = state.hessian + torch.diag_embed(damping[:, None] * diagonal + 1e-9)
        step = torch.linalg.solve(system.double(), state.descent.double()).float().clamp(-8, 8)
        unknowns = (best + step * SCALES).clamp(LOWEST, HIGHEST)
        new = _linearise(ct, beam, unknowns, target, valid, known)
        better = new.cost < state.cost
        best = torch.where(better[:, None], unknowns, best)
        state = state.where_not(better, new)
        damping = torch.where(better, damping / 5, damping * 8).clamp(1e-5, 1e4)
    covariance = torch.linalg.inv(state.hessian.double() + 1e-9 * torch.eye(len(SCALES))) * torch.outer(SCALES, SCALES)
    return [
        Fit(
            start.side, start.orientation, best[i, :8], float(best[i, 8]), float(best[i, 9]),
            float(state.correlation[i]), float(state.cost[i]), float(state.pixels[i]), covariance[i, :8, :8],
        )
        for i, start in enumerate(starts)
    ]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _State:
    """The posterior around the unknowns of N starts, in units of `SCALES`."""

    cost: Float[Tensor, " N"]
    correlation: Float[Tensor, " N"]
    pixels: Float[Tensor, " N"]
    hessian: Float[Tensor, "N 10 10"]
    descent: Float[Tensor, "N 10"]

    def where_not(self, better: Tensor, new: "_State") -> "_State":
        """This one, and the new one where it is better."""

        def pick(a: Tensor, b: Tensor) -> Tensor:
            return torch.where(better.view(-1, *[1] * (a.ndim - 1)), a, b)

        return _State(*(pick(getattr(new, name), getattr(self, name)) for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class _Known:
    """A prior for N starts: expected unknowns, their precision in units of `SCALES`, the cost of side and
    orientation, and `Prior.correlated`."""

    centers: Float[Tensor, "N 10"]
    precision: Float[Tensor, " 10"]
    against: Float[Tensor, " N"]
    correlated: float


def _linearise(ct: CoarseCT, beam: Beam, unknowns: Tensor, target: Tensor, valid: Tensor, known: _Known) -> _State:
    number, size = len(unknowns), int(target.shape[1] ** 0.5)
    offsets = torch.cat([torch.zeros(1, 8), torch.diag(SCALES[:8] * STEP)])
    images, counts = ct.project(beam, (unknowns[:, None, :8] + offsets).flatten(0, 1), size)
    p = _seen(images.view(number, 9, size, size), unknowns)
    p = p.clamp(min=0) / p[:, 0].amax(1).clamp(min=1e-6)[:, None, None]
    weight = counts.view(number, 9, -1)[:, 0] * valid
    scale = Scale.of(p[:, 0], weight, target)
    moved = (basis_of(p[:, 1:]) @ scale.coefficients[:, None])[..., 0]  # (N, 10, P)
    slopes = scale.without_basis(((moved - scale.fitted[:, None]) / STEP).transpose(1, 2))
    precision = known.precision
    away = (unknowns - known.centers) / SCALES * (precision > 0)
    weighted = slopes * scale.precise[..., None] / known.correlated
    hessian = weighted.transpose(1, 2) @ slopes + torch.diag(precision)
    descent = (weighted * scale.rest[..., None]).sum(1) - precision * away
    pixels = scale.total / known.correlated
    overlap = weight.sum(1) / valid.sum(1).clamp(min=1)
    unlikely = (precision * away.square()).sum(1) + known.against
    cost = scale.surprise + unlikely / pixels + 10 * (LEAST_OVERLAP - overlap).clamp(min=0)
    return _State(cost, scale.correlation, pixels, hessian, descent)


def _seen(images: Float[Tensor, "N 9 S S"], unknowns: Float[Tensor, "N 10"]) -> Float[Tensor, "N 11 P"]:
    """The projections behind scatter, and the first again with a little more, and with a little wider scatter."""
    sides = torch.stack([unknowns[:, :2].sum(1), unknowns[:, 0]], dim=1).exp()
    shares = unknowns[:, 8, None] + torch.tensor([0.0] * 9 + [float(SCALES[8]) * STEP])
    sigma = SCATTER_SIGMA * unknowns[:, 9].exp()
    first = with_scatter(torch.cat([images, images[:, :1]], 1), sides, shares, sigma)
    wider = with_scatter(images[:, :1], sides, unknowns[:, 8, None], sigma * exp(float(SCALES[9]) * STEP))
    return torch.cat([first, wider], 1).flatten(2)
