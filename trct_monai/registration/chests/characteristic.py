"""From a picture's numbers to line integrals: a monotone curve that is linear in its unknowns.

What a detector or a film and then a display make of an exposure is a curve with a toe and a shoulder (Hurter and
Driffield, J. Soc. Chem. Ind. 9, 1890): contrast is lost at both ends, and so the way back is steeper there,

    line integral = offset + gain p + toe t(p) + shoulder s(p),    p in [0, 1]

with t and s that are quadratic below 0.35 and above 0.65, and do not bend in between.
"""

import torch
from jaxtyping import Float
from torch import Tensor

TOE_END, SHOULDER_START = 0.35, 0.65

NUM_TERMS = 4
"""Offset, gain, toe and shoulder."""

Curve = tuple[float, float, float, float]
"""The four numbers of a picture's curve."""


def curve_terms(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 4"]:
    """What the four unknowns are multiplied with.

    Args:
        values: Those of a picture, the body's from 0 to 1.
    """
    dark = values.clamp(max=TOE_END)
    bright = (values - SHOULDER_START).clamp(min=0.0)
    toe = dark - dark.square() / (2 * TOE_END)
    return torch.stack([torch.ones_like(values), values, toe, bright.square() / (2 * (1 - SHOULDER_START))], dim=-1)


def curve_slopes(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape 4"]:
    """The terms' derivatives."""
    toe = (1 - values / TOE_END).clamp(min=0.0)
    shoulder = ((values - SHOULDER_START) / (1 - SHOULDER_START)).clamp(min=0.0)
    return torch.stack([torch.zeros_like(values), torch.ones_like(values), toe, shoulder], dim=-1)


def apply_curve(values: Float[Tensor, "*shape"], curve: Curve) -> Float[Tensor, "*shape"]:
    """Line integrals, of which none is below that of air."""
    integrals: Tensor = curve_terms(values) @ torch.as_tensor(curve, dtype=values.dtype, device=values.device)
    return integrals.clamp(min=0.0)
