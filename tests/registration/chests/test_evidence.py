"""The evidence of pictures whose curves are unknown, against the formula that it stands for."""

import torch
from torch import Tensor

from trct_monai.registration.chests.characteristic import Curve, apply_curve, curve_slopes, curve_terms
from trct_monai.registration.chests.evidence import BEND, NOISE, View, evidence, view_statistics

PIXELS, MODES, EFFECTIVE = 300, 6, 150.0
DARK = (1.0, 0.8)


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A picture, the projected mean and the projected components."""
    generator = torch.Generator().manual_seed(seed)
    mean = 2 + 3 * torch.rand(PIXELS, generator=generator)
    modes = 0.4 * torch.randn(MODES, PIXELS, generator=generator)
    integrals = (
        mean + torch.randn(MODES, generator=generator) @ modes + NOISE * torch.randn(PIXELS, generator=generator)
    )
    return (integrals - integrals.min()) / (integrals.max() - integrals.min()), mean, modes


def view(values: Tensor, mean: Tensor, modes: Tensor, weight: Tensor | None = None) -> View:
    weight = torch.ones(PIXELS) if weight is None else weight
    return view_statistics(values, mean[None], modes[None], weight[None], DARK)


def by_formula(values: Tensor, mean: Tensor, modes: Tensor, curve: Tensor) -> float:
    """log N(f(p); mean, H H^T + noise^2) + sum of log f'(p), and the curve's prior, with dense matrices."""
    covariance = modes.double().T @ modes.double() + NOISE**2 * torch.eye(PIXELS, dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(mean.double(), covariance)
    likelihood = (
        normal.log_prob(curve_terms(values.double()) @ curve) + (curve_slopes(values.double()) @ curve).log().sum()
    )
    dark = -0.5 * PIXELS / EFFECTIVE * ((curve[0] - DARK[0]) / DARK[1]) ** 2
    return float(likelihood + dark - 0.5 * (curve[2:] / BEND).square().sum()) / PIXELS


def test_the_evidence_is_that_of_its_formula_and_at_its_maximum() -> None:
    values, mean, modes = problem()
    found = evidence([view(values, mean, modes)], EFFECTIVE)
    curve = found.curves[0, 0]
    highest = by_formula(values, mean, modes, curve)
    assert abs(float(found.per_pixel[0]) - highest) < 1e-3
    for step in 0.1 * torch.eye(4, dtype=torch.float64):
        for other in (curve + step, curve - step):
            assert by_formula(values, mean, modes, other) < highest


def test_the_gain_does_not_collapse_though_least_squares_would() -> None:
    values, mean, modes = problem()
    unrelated = values[torch.randperm(PIXELS, generator=torch.Generator().manual_seed(1))]
    offset, gain, *_ = evidence([view(unrelated, mean, modes)], EFFECTIVE).curves[0, 0].tolist()
    assert gain > 0.5
    assert (
        evidence([view(values, mean, modes)], EFFECTIVE).per_pixel
        > evidence([view(unrelated, mean, modes)], EFFECTIVE).per_pixel
    )


def test_a_batch_of_cameras_is_each_by_itself_and_pixels_without_weight_do_not_count() -> None:
    (values, mean, modes), (_, other, others) = problem(), problem(1)
    weight = (torch.arange(PIXELS) % 3 > 0).float()
    both = view_statistics(values, torch.stack([mean, other]), torch.stack([modes, others]), weight.expand(2, -1), DARK)
    batch = evidence([both, view(values, mean, modes)], EFFECTIVE)
    one = evidence([view(values, other, others, weight), view(values, mean, modes)], EFFECTIVE)
    torch.testing.assert_close(batch.per_pixel[1:], one.per_pixel, atol=1e-6, rtol=0)
    torch.testing.assert_close(batch.coefficients[1:], one.coefficients, atol=1e-4, rtol=0)
    changed = torch.where(weight > 0, values, 0.5)
    same = evidence([view(changed, other, others, weight), view(values, mean, modes)], EFFECTIVE)
    torch.testing.assert_close(same.per_pixel, one.per_pixel, atol=1e-6, rtol=0)


def test_air_pulls_the_volume_to_zero_where_it_is() -> None:
    values, mean, modes = problem()
    seen = (torch.arange(PIXELS) < 200).float()
    plain = view(values, mean, modes, seen)
    with_air = plain.with_air(mean[None], modes[None], (1 - seen)[None])
    integrals = [
        float((mean + evidence([one], EFFECTIVE).coefficients[0].float() @ modes)[200:].mean())
        for one in (plain, with_air)
    ]
    assert integrals[1] < integrals[0]


def test_slopes_are_the_derivatives_of_the_terms() -> None:
    values = torch.linspace(0.01, 0.99, 50, dtype=torch.float64, requires_grad=True)
    for term in range(4):
        (gradient,) = torch.autograd.grad(curve_terms(values)[:, term].sum(), values, allow_unused=True)
        expected = torch.zeros_like(values) if gradient is None else gradient
        torch.testing.assert_close(curve_slopes(values.detach())[:, term], expected.detach())


def test_no_line_integral_is_below_that_of_air() -> None:
    curve: Curve = (-1.0, 2.0, 0.0, 0.0)
    assert float(apply_curve(torch.linspace(0, 1, 11), curve).min()) == 0.0
