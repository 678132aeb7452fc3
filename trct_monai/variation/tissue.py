"""Other tissues in the same places: density of lung, fat, muscle and bone, and contrast agent in heart and vessels."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.intensity import AIR_HU
from trct_monai.variation.grid import axes_mm

TISSUES: dict[str, tuple[float, float]] = {
    # name: HU, standard deviation of its change
    "air": (-1000.0, 0.0),
    "lung": (-850.0, 40.0),
    "fat": (-100.0, 12.0),
    "muscle": (45.0, 12.0),
    "spongy bone": (300.0, 50.0),
    "cortical bone": (1000.0, 150.0),
}
"""What a curve of tissues is drawn from."""

BLOOD_HU = (0.0, 150.0)
"""HU of what may be blood."""


def tissue_curve(random: np.random.RandomState, strength: float = 1.0) -> tuple[list[float], list[float]]:
    """HU before and after of a random change of `TISSUES`, both increasing.

    Args:
        random: Source of the random numbers.
        strength: Factor on the standard deviations.
    """
    before = [hu for hu, _ in TISSUES.values()]
    drawn = [hu + strength * deviation * float(random.normal()) for hu, deviation in TISSUES.values()]
    return before, np.maximum.accumulate(np.asarray(drawn) + 1e-3 * np.arange(len(drawn))).tolist()


def recoloured(ct_hu: Float[Tensor, "*shape"], before: Sequence[float], after: Sequence[float]) -> Tensor:
    """A CT whose HU go through a curve, linear between its points and parallel to the identity beyond them.

    Args:
        ct_hu: CT numbers in HU.
        before: HU of the curve's points, increasing.
        after: What becomes of them.
    """
    result = ct_hu + (after[0] - before[0])
    for (low, high), (to_low, to_high) in zip(zip(before, before[1:]), zip(after, after[1:])):
        slope = (to_high - to_low) / (high - low)
        if abs(slope - 1) > 1e-6:
            result = result + (slope - 1) * (ct_hu.clamp(low, high) - low)
    return result


def enhanced(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, center: Sequence[float], size_mm: float, hu: float
) -> Float[Tensor, "1 X Y Z"]:
    """A CT with contrast agent in what may be blood around a place, or with less of it.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        center: Where the most is, in mm from the middle of the volume; the heart is a little left of it and in front.
        size_mm: Standard deviation of the bell shape.
        hu: What is added there.
    """
    result, bells, inside = ct_hu.clone(), [], [slice(None)]
    for axis, middle in zip(axes_mm(ct_hu, spacing), center):
        position = axis - middle
        near = (position.abs() < 3 * size_mm).nonzero()[:, 0]
        first, last = (int(near[0]), int(near[-1]) + 1) if len(near) else (0, 0)
        inside.append(slice(first, last))
        bells.append(torch.exp(-0.5 * (position[first:last] / size_mm) ** 2))
    part = ct_hu[tuple(inside)]
    low, high = BLOOD_HU
    blood = ((part - low) / 30).clamp(0, 1) * ((high + 150 - part) / 150).clamp(0, 1)
    bell = bells[0][:, None, None] * bells[1][:, None] * bells[2]
    result[tuple(inside)] = part + hu * blood * bell
    return result.clamp(min=AIR_HU)
