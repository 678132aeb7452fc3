"""What a pixel of a radiograph shows: the body, air beside it, or nothing that was measured.

Pictures come with shutters, black frames, rotated borders, letters and saturated ends. A line integral can be read from
the body alone; of air beside it, it is known to be zero; the rest is unknown, whatever its numbers say.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from trct_monai.resampling import resize_radiographs

SIZE = 256
"""Longer side in pixels at which regions are found."""

TAILS = 0.001
"""Share of the darkest and of the brightest pixels that do not decide on a picture's range: letters, defects."""

SATURATED = 0.012
"""Pixels so near to an end of the range, as a share of it, have been cut off there."""

DARK = 0.13
"""Air is darker than this share of the range: the lungs, which a body surrounds, may be as dark."""

SKIN = 0.42
"""Behind the edge of air the picture brightens slowly, as the body's chord grows; behind a shutter it is at once
brighter than this share of the range."""

SHARP = 0.62
"""A stretch of the edge of air that is brighter belongs to a shutter."""

RING = 3
"""Distance in pixels from the edge at which that is looked at."""

STRETCH = 31
"""Side in pixels of the square over which the edge's brightness is averaged."""


@dataclass(frozen=True)
class Regions:
    """A picture and what its pixels show.

    Attributes:
        values: The picture (h, w), 0 and 1 at the ends of what the body's pixels have.
        body: Where the body was measured.
        air: Where there is air beside it. What is neither is unknown.
        ends: The picture's own numbers where `values` are 0 and 1.
    """

    values: Float[Tensor, "h w"]
    body: Bool[Tensor, "h w"]
    air: Bool[Tensor, "h w"]
    ends: tuple[float, float] = (0.0, 1.0)

    def resized(self, longer_side: int) -> "Regions":
        """Averages of fewer pixels; one that shows two things is unknown.

        Args:
            longer_side: In pixels.
        """
        height, width = self.values.shape
        scale = longer_side / max(height, width)
        size = (max(2, round(height * scale)), max(2, round(width * scale)))
        share = resize_radiographs(self.body.float(), size)
        values = resize_radiographs(self.values * self.body, size) / share.clamp(min=1e-3)
        air = resize_radiographs(self.air.float(), size)
        return Regions(values.clamp(0.0, 1.0), share > 0.85, air > 0.9)


def find_regions(image: Float[Tensor, "H W"], valid: Bool[Tensor, "H W"] | None = None) -> Regions:
    """Tell the body from air and from what was not measured.

    Unknown are pixels at the ends of the range, rows and columns of a black frame, and dark regions at the border that
    end at a sharp edge: shutters, rotated borders. Other dark regions at the border are air, and a frame is what it is
    beside.

    Args:
        image: A picture that is bright where it attenuates, on any scale.
        valid: Pixels that hold a measurement, where a file says so.

    Raises:
        ValueError: If too little of a body is left.
    """
    height, width = image.shape
    scale = min(1.0, SIZE / max(height, width))
    size = (max(2, round(height * scale)), max(2, round(width * scale)))
    measured = torch.ones_like(image, dtype=torch.bool) if valid is None else valid
    low, high = _range(image[measured])
    step = SATURATED * (high - low)
    black = _averaged((image <= low + step) & measured, size).numpy() > 0.6
    white = _averaged((image >= high - step) | ~measured, size).numpy() > 0.3
    values = _averaged(image * measured, size) / _averaged(measured, size).clamp(min=1e-3)
    numbers = ((values - low) / (high - low)).numpy()
    inner = _without_frame(black)
    air, shutter = _dark_regions(numbers, black, inner)
    if not inner.all():  # a frame is what it is beside
        nearest = ndimage.distance_transform_edt(~inner, return_distances=False, return_indices=True)
        air |= ~inner & air[tuple(nearest)]
    body = inner & ~white & ~black & ~air & ~shutter
    if body.mean() < 0.1:
        raise ValueError("hardly any pixel shows a body: the picture is black, white, or one flat grey")
    ends = np.quantile(numbers[body], [0.002, 0.998])
    numbers = (numbers - ends[0]) / max(ends[1] - ends[0], 1e-6)
    own = float(low + ends[0] * (high - low)), float(low + ends[1] * (high - low))
    shown = torch.from_numpy(numbers).float()
    return Regions(shown, torch.from_numpy(body), torch.from_numpy(air & ~white), own)


def _averaged(image: Tensor, size: tuple[int, int]) -> Float[Tensor, "h w"]:
    """Means over whole pixels: pictures of ten million pixels take too long otherwise."""
    return F.interpolate(image.float()[None, None], size=size, mode="area")[0, 0]


def _range(values: Tensor) -> tuple[float, float]:
    """The ends of a picture's numbers but for its tails; the lower one is the minimum if that is near."""
    some = values[:: max(1, values.numel() // 200_000)].double()
    if some.numel() == 0 or float(values.max()) <= float(values.min()):
        raise ValueError("the picture holds one value only")
    low, high = (float(end) for end in torch.quantile(some, some.new_tensor([TAILS, 1 - TAILS])))
    high = max(high, float(values.min()) + 1e-9)
    return min(low, float(values.min()) + 0.02 * (high - low)), high


def _without_frame(black: np.ndarray) -> np.ndarray:
    """What is left when black rows and columns at the border are cut away."""
    top, left, (bottom, right) = 0, 0, black.shape
    while bottom - top > 8 and right - left > 8:
        if black[top, left:right].mean() > 0.97:
            top += 1
        elif black[bottom - 1, left:right].mean() > 0.97:
            bottom -= 1
        elif black[top:bottom, left].mean() > 0.97:
            left += 1
        elif black[top:bottom, right - 1].mean() > 0.97:
            right -= 1
        else:
            break
    inner = np.zeros(black.shape, dtype=bool)
    inner[top:bottom, left:right] = True
    return inner


def _dark_regions(values: np.ndarray, black: np.ndarray, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Dark regions at the border: air, and shutters, which may lie beside air in one region."""
    dark = ndimage.binary_opening(((values < DARK) | black) & inner) | (black & inner)
    border = inner & ~ndimage.binary_erosion(inner)
    air, shutter = np.zeros_like(dark), np.zeros_like(dark)
    labels, _ = ndimage.label(dark)
    for label in np.unique(labels[border & dark]):
        region = labels == label
        near, far = (ndimage.binary_dilation(region, iterations=RING + step) for step in (-1, 1))
        ring = far & ~near & inner & ~dark
        if ring.any() and float(np.median(values[ring])) >= SKIN:
            shutter |= region
            continue
        air |= region
        if ring.any():
            share = np.maximum(ndimage.uniform_filter(ring.astype(np.float64), STRETCH), 1e-9)
            brightness = ndimage.uniform_filter(ring * values, STRETCH) / share
            nearest = ndimage.distance_transform_edt(~ring, return_distances=False, return_indices=True)
            shutter |= region & (brightness[tuple(nearest)] >= SHARP)
    return air & ~shutter, shutter
