"""The scale of a radiograph: what function of the line integral its numbers are, and how noisy they are."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

BINS = 10
"""Line integrals for which the noise is estimated."""

OUTLIER = 3.0
"""Residuals in standard deviations from which a pixel loses half of its weight."""

LEAST_NOISE = 0.05
"""Least variance of a bin, as a share of the variance of all: no part of the picture is trusted blindly."""


@dataclass(frozen=True, eq=False)
class Scale:
    """A picture as a function h of the line integral, for N poses at once.

    Attributes:
        basis: Powers of the line integral at each pixel.
        coefficients: Of h.
        fitted: h at each pixel.
        rest: Picture less `fitted`.
        precise: Weight of each pixel: 1 / variance of its noise, less for outliers.
        total: Sum of the weights without the variance: the number of pixels that count.
        surprise: Mean log of the noise variance over that of the picture: twice the negative log likelihood.
        correlation: Between picture and h, negative if h falls.
    """

    basis: Float[Tensor, "N P K"]
    coefficients: Float[Tensor, "N K 1"]
    fitted: Float[Tensor, "N P"]
    rest: Float[Tensor, "N P"]
    precise: Float[Tensor, "N P"]
    total: Float[Tensor, " N"]
    surprise: Float[Tensor, " N"]
    correlation: Float[Tensor, " N"]

    @classmethod
    def of(cls, p: Float[Tensor, "N P"], weight: Float[Tensor, "N P"], target: Float[Tensor, "N P"]) -> "Scale":
        """The scale of pictures.

        Args:
            p: Line integrals, divided by their largest.
            weight: 1 for pixels that count, 0 for others.
            target: The pictures.
        """
        basis, place = basis_of(p), _order(p, weight)
        robust, variance = weight, torch.ones_like(weight)
        for _ in range(3):
            coefficients = _solve(basis, robust / variance, target[..., None])
            fitted = (basis @ coefficients)[..., 0]
            rest = target - fitted
            variance = _noise(rest, robust, place)
            robust = weight / (1 + rest.square() / (OUTLIER**2 * variance))
        total = robust.sum(1).clamp(min=1)

        def mean(values: Tensor) -> Tensor:
            return (robust * values).sum(1) / total

        spread = mean((target - mean(target)[:, None]).square()).clamp(min=1e-6)
        share = (mean(rest.square()) / spread).clamp(max=1)
        rising = torch.sign(mean((p - mean(p)[:, None]) * fitted))
        surprise = mean(variance.log()) - spread.log()
        return cls(basis, coefficients, fitted, rest, robust / variance, total, surprise, (1 - share).sqrt() * rising)

    def without_basis(self, values: Float[Tensor, "N P T"]) -> Float[Tensor, "N P T"]:
        """What a change of the scale does not explain of changes of the picture."""
        explained: Tensor = self.basis @ _solve(self.basis, self.precise, values)
        return values - explained


def basis_of(p: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape K"]:
    """Powers of line integrals in [0, 1] of the largest."""
    return torch.stack([torch.ones_like(p), (p + 1e-4).sqrt(), p, p**2, p**3], dim=-1)


def _solve(basis: Tensor, weight: Tensor, target: Tensor) -> Float[Tensor, "N K T"]:
    """Weighted least squares with a trace of damping."""
    weighted = (basis * weight[..., None]).double().transpose(1, 2)
    normal = weighted @ basis.double()
    trace = normal.diagonal(dim1=1, dim2=2).mean(1)
    normal = normal + torch.diag_embed((1e-6 * trace + 1e-9)[:, None].expand(-1, normal.shape[1]))
    coefficients: Tensor = torch.linalg.solve(normal, weighted @ target.double()).to(basis.dtype)
    return coefficients


def _order(p: Float[Tensor, "N P"], weight: Float[Tensor, "N P"]) -> Float[Tensor, "N P"]:
    """Share of the counting pixels whose line integral is lower."""
    order = p.argsort(dim=1)
    counting = weight.gather(1, order).cumsum(1)
    return torch.empty_like(p).scatter_(1, order, counting / counting[:, -1:].clamp(min=1))


def _noise(rest: Float[Tensor, "N P"], weight: Float[Tensor, "N P"], place: Float[Tensor, "N P"]) -> Tensor:
    """Variance at each pixel (N, P): that of pixels with line integrals like its own."""
    at = place.clamp(0, 1) * (BINS - 1)
    low = at.floor().clamp(max=BINS - 2).long()
    share = at - low
    squares, total = torch.zeros(2, len(rest), BINS)
    for index, part in ((low, 1 - share), (low + 1, share)):
        squares.scatter_add_(1, index, weight * part * rest.square())
        total.scatter_add_(1, index, weight * part)
    overall = squares.sum(1, keepdim=True) / total.sum(1, keepdim=True).clamp(min=1)
    bins = (squares + 10 * overall) / (total + 10)
    bins = bins.clamp(min=1e-7).maximum(LEAST_NOISE * overall)
    return torch.lerp(bins.gather(1, low), bins.gather(1, low + 1), share)
