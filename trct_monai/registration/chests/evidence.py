"""How well a linear model of volumes explains pictures whose curves are unknown, for many cameras at once.

A picture p is taken as the curve's inverse of the volume's line integrals and white noise, the volume's coefficients
are integrated out, and the curve's four numbers maximise

    log N(f(p); mean, H H^T + noise^2) + sum over the pixels of log f'(p)

The second term is the Jacobian of the change of variables from line integrals to the picture's numbers. Without it a
gain near zero, which makes every picture flat, explains all of them (MacKay, Information Theory, Inference, and
Learning Algorithms, 2003, chapters 27 and 28). The whole is concave in the curve's numbers, and is maximised by
Newton's steps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import log, pi

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.registration.chests.characteristic import NUM_TERMS, curve_slopes, curve_terms

NOISE = 0.25
"""Standard deviation of what the components cannot explain in a line integral."""

BEND = 5.0
"""Standard deviation of toe and shoulder."""

MIN_SLOPE = 1e-3
MAX_STEPS = 12


@dataclass(frozen=True)
class View:
    """What is known of one picture, for a batch of cameras.

    Attributes:
        gram: H H^T (B, K, K) of the projected components.
        cross: Components times the curve's terms and the projected mean (B, K, 5).
        power: Inner products of these five (B, 5, 5).
        weight: Which pixels count (B, n).
        slopes: Derivatives of the curve's terms at each pixel (n, 4).
        dark: Mean and standard deviation of the line integral where the picture is darkest.
    """

    gram: Tensor
    cross: Tensor
    power: Tensor
    weight: Tensor
    slopes: Tensor
    dark: tuple[float, float]

    def with_air(
        self, mean: Float[Tensor, "B n"], modes: Float[Tensor, "B K n"], weight: Float[Tensor, "B n"]
    ) -> "View":
        """The same with pixels beside the body, whose line integrals are zero.

        Args:
            mean: Projections of the mean volume.
            modes: Projections of the components.
            weight: 1 where there is air, else 0.
        """
        h, x = modes * weight[:, None], mean * weight
        cross, power = self.cross.clone(), self.power.clone()
        cross[..., NUM_TERMS] += (h @ x[..., None])[..., 0].double()
        power[:, NUM_TERMS, NUM_TERMS] += x.square().sum(dim=1).double()
        return replace(self, gram=self.gram + (h @ h.transpose(1, 2)).double(), cross=cross, power=power)

    @property
    def number(self) -> Float[Tensor, " B"]:
        """How many pixels count."""
        return self.weight.sum(dim=1)


def view_statistics(
    values: Float[Tensor, " n"],
    mean: Float[Tensor, "B n"],
    modes: Float[Tensor, "B K n"],
    weight: Float[Tensor, "B n"],
    dark: tuple[float, float],
) -> View:
    """The sums over pixels that `evidence` needs.

    Args:
        values: Those of the picture, the body's from 0 to 1.
        mean: Projections of the mean volume.
        modes: Projections of the components.
        weight: 1 where a pixel counts, else 0.
        dark: Mean and standard deviation of the line integral where the picture is darkest.
    """
    terms = curve_terms(values).expand(len(mean), -1, -1)
    x = torch.cat([terms, mean[..., None]], dim=-1) * weight[..., None]
    h = modes * weight[:, None]
    return View(
        (h @ h.transpose(1, 2)).double(), (h @ x).double(), (x.transpose(1, 2) @ x).double(), weight.double(),
        curve_slopes(values).double(), dark,
    )  # fmt: skip


@dataclass(frozen=True)
class Evidence:
    """How well pictures are explained, for a batch of cameras.

    Attributes:
        per_pixel: Logarithm of the evidence, divided by the number of pixels (B,).
        curves: The most probable curve of each picture (B, V, 4).
        coefficients: The most probable volume's (B, K).
    """

    per_pixel: Tensor
    curves: Tensor
    coefficients: Tensor


def evidence(views: Sequence[View], effective_pixels: float, noise: float = NOISE) -> Evidence:
    """Evidence of some pictures of one patient.

    Args:
        views: Each picture; those of one camera are combined with all cameras of the others.
        effective_pixels: Independent pixels of a picture, by which the prior of the darkest pixel is weighed:
            neighbours show the same thing.
        noise: Standard deviation of what the components cannot explain in a line integral.
    """
    batch = max(len(view.weight) for view in views)
    modes, unknowns, variance = views[0].gram.shape[-1], NUM_TERMS * len(views), noise**2
    gram, cross, power, right_dark, constant = _stacked(views, batch, effective_pixels)
    gram = gram + variance * torch.eye(modes, dtype=gram.dtype)
    factor = torch.linalg.cholesky(gram)
    inner = (power - cross.transpose(1, 2) @ torch.cholesky_solve(cross, factor)) / variance
    quadratic, linear = inner[:, :unknowns, :unknowns], inner[:, :unknowns, unknowns]
    quadratic = quadratic + _prior(views, batch, effective_pixels)
    curves, value = _maximise(views, quadratic, linear + right_dark)
    pixels = torch.stack([view.number.expand(batch) for view in views]).sum(dim=0)
    logarithms = 2 * factor.diagonal(dim1=1, dim2=2).log().sum(dim=1) + (pixels - modes) * log(variance)
    value = value - 0.5 * (inner[:, unknowns, unknowns] + constant + logarithms + pixels * log(2 * pi))
    right = cross @ torch.cat([curves, -torch.ones(batch, 1, dtype=curves.dtype)], dim=1)[..., None]
    coefficients = torch.cholesky_solve(right, factor)[..., 0]
    return Evidence(value / pixels.clamp(min=1), curves.view(batch, len(views), NUM_TERMS), coefficients)


def _stacked(views: Sequence[View], batch: int, effective: float) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The sums of all views: each has curve terms of its own, and all share the mean in the last column."""
    modes, last = views[0].gram.shape[-1], NUM_TERMS * len(views)
    gram = torch.zeros(batch, modes, modes, dtype=torch.float64)
    cross = torch.zeros(batch, modes, last + 1, dtype=torch.float64)
    power = torch.zeros(batch, last + 1, last + 1, dtype=torch.float64)
    right, constant = torch.zeros(batch, last, dtype=torch.float64), torch.zeros(batch, dtype=torch.float64)
    for index, view in enumerate(views):
        own = slice(NUM_TERMS * index, NUM_TERMS * (index + 1))
        gram = gram + view.gram
        cross[..., own] += view.cross[..., :NUM_TERMS]
        cross[..., last] += view.cross[..., NUM_TERMS]
        power[:, own, own] += view.power[:, :NUM_TERMS, :NUM_TERMS]
        power[:, own, last] += view.power[:, :NUM_TERMS, NUM_TERMS]
        power[:, last, own] += view.power[:, NUM_TERMS, :NUM_TERMS]
        power[:, last, last] += view.power[:, NUM_TERMS, NUM_TERMS]
        level, deviation = view.dark
        weight = view.number / effective / deviation**2
        right[:, NUM_TERMS * index] += weight * level  # the curve's offset is its value at 0
        constant = constant + weight * level**2
    return gram, cross, power, right, constant


def _prior(views: Sequence[View], batch: int, effective: float) -> Float[Tensor, "B Q Q"]:
    """Precision of the curves' numbers: the darkest pixel's line integral, toe and shoulder."""
    diagonal = torch.full((batch, NUM_TERMS * len(views)), 1e-6, dtype=torch.float64)  # where no pixel counts
    for index, view in enumerate(views):
        first = NUM_TERMS * index
        diagonal[:, first] += view.number / effective / view.dark[1] ** 2
        diagonal[:, first + 2 : first + 4] += 1 / BEND**2
    return torch.diag_embed(diagonal)


def _maximise(views: Sequence[View], quadratic: Tensor, linear: Tensor) -> tuple[Tensor, Tensor]:
    """Curves that maximise -1/2 q^T A q + b^T q + sum of log f', and that value."""
    batch, unknowns = linear.shape
    curves = linear.new_tensor([1.0, 5.0, 0.0, 0.0]).repeat(len(views)).expand(batch, unknowns)

    def slopes(at: Tensor) -> list[Tensor]:
        parts = at.view(batch, len(views), NUM_TERMS).unbind(dim=1)
        return [part @ view.slopes.T for part, view in zip(parts, views)]

    def objective(at: Tensor) -> Tensor:
        value = (linear * at).sum(dim=1) - 0.5 * (at * (quadratic @ at[..., None])[..., 0]).sum(dim=1)
        for slope, view in zip(slopes(at), views):
            falls = ((slope <= MIN_SLOPE) & (view.weight > 0)).any(dim=1)
            value = value + (slope.clamp(min=MIN_SLOPE).log() * view.weight).sum(dim=1)
            value = value.masked_fill(falls, -torch.inf)
        return value

    best = objective(curves)
    for _ in range(MAX_STEPS):
        gradient, hessian = linear - (quadratic @ curves[..., None])[..., 0], quadratic.clone()
        for index, (slope, view) in enumerate(zip(slopes(curves), views)):
            own = slice(NUM_TERMS * index, NUM_TERMS * (index + 1))
            share = view.weight / slope.clamp(min=MIN_SLOPE)
            gradient[:, own] += share @ view.slopes
            outer = (view.slopes[:, :, None] * view.slopes[:, None]).flatten(1)
            hessian[:, own, own] += ((share / slope.clamp(min=MIN_SLOPE)) @ outer).view(-1, NUM_TERMS, NUM_TERMS)
        step = torch.linalg.solve(hessian, gradient)
        for _ in range(MAX_STEPS):
            value = objective(curves + step)
            worse = ~(value >= best - 1e-9)
            if not bool(worse.any()):
                break
            step = torch.where(worse[:, None], step / 2, step)
        step = torch.where(worse[:, None], 0.0, step)
        curves, best = curves + step, torch.where(worse, best, value)
        if float(step.abs().amax()) < 1e-3:
            break
    return curves, best
