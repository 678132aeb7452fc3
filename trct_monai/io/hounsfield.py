"""Whether numbers are Hounsfield units: a chest has air, lung and soft tissue, each where the scale has it."""

from pathlib import Path

import torch
from torch import Tensor

from trct_monai.intensity import PADDING_HU

MIN_SHARE = 0.01
"""Least share of the voxels that is air or lung, and that is soft tissue, in anything that may be the CT of a trunk."""

MAX_DENSE = 0.2
"""Greatest share of cortical bone and metal in the body; of the patients' CTs that we know the most is 0.02."""

DARK_HU, MIN_DARK = -450.0, 0.005
"""Air and aerated lung lie below, and at least such a share of the voxels."""

MAX_MIDDLE = 200.0
"""Greatest distance from 0 of the median of soft tissue in HU; in eleven CTs and 40 phantoms it is from -86 to 45."""

BACKGROUND_HU = -450.0
"""A single number above this does not fill the corners of a CT."""

SAMPLES = 2**20

OFFSETS = (1024.0, 1000.0)
"""What is often added to HU so that a file holds no number below 0."""


def check_hounsfield(volume: Tensor, path: Path) -> None:
    """Refuse a volume that is no CT of a trunk in HU.

    Padding does not count as air: what lies below `PADDING_HU`, or fills corners and end slices with one number.

    Args:
        volume: Values (X, Y, Z).
        path: The file, for the message.

    Raises:
        ValueError: With one line that says what the numbers are instead, if that can be guessed.
    """
    step = max(1, round((volume.numel() / SAMPLES) ** (1 / 3)))
    sample = volume[::step, ::step, ::step].float()
    if reason := _why(sample) or _why_background(volume):
        low, high = float(volume.min()), float(volume.max())
        guess = _guess(sample, low, high)
        raise ValueError(f"{path}: no CT in HU, values {low:g} to {high:g} with {reason}{guess}")


def _why(sample: Tensor) -> str:
    inside = sample[sample >= PADDING_HU]
    if inside.numel() == 0:
        return "nothing but padding"

    def share(low: float, high: float) -> float:
        return float(((inside >= low) & (inside < high)).float().mean())

    air, tissue = share(PADDING_HU, -300), share(-200, 400)
    dense = share(600, float("inf")) / max(share(-200, float("inf")), 1e-9)
    if air < MIN_SHARE or tissue < MIN_SHARE:
        return f"{air:.1%} air and {tissue:.1%} soft tissue"
    if dense > MAX_DENSE:
        return f"{dense:.0%} of the body as dense as bone"
    if share(PADDING_HU, DARK_HU) < MIN_DARK:
        return f"nothing as dark as air and lung, below {DARK_HU:g} HU"
    middle = float(inside[(inside > -300) & (inside < 600)].median())
    if abs(middle) > MAX_MIDDLE:
        return f"soft tissue around {middle:g} HU"
    return ""


def _why_background(volume: Tensor) -> str:
    """Whether one number that is neither air nor padding fills the corners or an end slice."""
    corners = volume[[0, 0, -1, -1], [0, -1, 0, -1]]
    for part in (corners, volume[:, :, 0], volume[:, :, -1]):
        value = part.flatten()[0]
        if float(value) > BACKGROUND_HU and float((part == value).float().mean()) > 0.9:
            return f"a background of {float(value):g} in its corners or end slices, where air or padding should be"
    return ""


def _guess(sample: Tensor, low: float, high: float) -> str:
    """What the numbers may be, and the flag of `prepare` that makes HU of them."""
    numbers = torch.unique(sample)
    if low >= 0 and len(numbers) <= 64 and bool((numbers == numbers.round()).all()):
        return f"; a label map of {len(numbers)} whole numbers?"
    if low >= -0.01 and high <= 1.01:
        return "; [0, 1]? If it is the window -1024 to 1476 HU, prepare --rescale 2500,-1024 converts it"
    if low >= -1.01 and high <= 1.01:
        return "; [-1, 1]? If it is the window -1024 to 1476 HU, prepare --rescale 1250,226 converts it"
    fitting = [offset for offset in OFFSETS if not _why(sample - offset)]
    if fitting:
        air = {
            offset: (sample - offset)[(sample - offset >= PADDING_HU) & (sample - offset < -900)] for offset in fitting
        }
        best = min(fitting, key=lambda one: abs(float(air[one].median()) + 1000) if air[one].numel() else 1e9)
        return f"; HU + {best:g}, or MR? If it is HU + {best:g}, prepare --rescale 1,{-best:g} converts it"
    if low >= 0 and high <= 255:
        return "; a picture of 8 bits?"
    return "; HU + 1024 or MR?" if low >= 0 else ""
