"""How a radiograph is oriented: its eight flips and turns compared with our own projection of the CT.

Nothing is believed about a picture from elsewhere. Each of the eight is correlated (Pearson) with the line integrals
that the case's CT gives for the same camera; the best is recorded together with the runner-up, which says how sure the
answer is: a thorax is nearly symmetric, so a mirrored PA picture is the usual runner-up. In the same go a gain and an
offset are fitted that turn the picture's numbers into line integrals.

A picture without a camera of its own is also compared with the view from the opposite side (`Camera.opposite`): in a
cone beam a right lateral is no mirrored left lateral, what is near to the detector being less magnified.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.intensity import fit_gain_offset
from trct_monai.io.datalist import Intensity, Orientation
from trct_monai.io.files import write_picture
from trct_monai.projector import project_hu
from trct_monai.resampling import resize_radiographs

COMPARED_SIZE = 128
"""Longer side in pixels at which pictures are compared."""


MIN_CORRELATION = 0.7


QUANTITATIVE_TOLERANCE = 0.02
"""Numbers count as line integrals if the fitted gain is so near to 1, and the offset so near to 0."""


@dataclass(frozen=True)
class Match:
    """What the comparison of a picture with our projection gave.

    Attributes:
        orientation: The best flip or turn and the runner-up.
        intensity: Gain and offset from the picture's numbers to line integrals.
        expected: Our projection (h, w).
        found: The picture in the best orientation, at the same size.
    """

    orientation: Orientation
    intensity: Intensity
    expected: Float[Tensor, "h w"]
    found: Float[Tensor, "h w"]


def measure(image: Float[Tensor, "H W"], cube_hu: Float[Tensor, "1 X X X"], extent: float, camera: Camera) -> Match:
    """Compare a picture with our projection of the CT.

    Args:
        image: The picture as it is stored.
        cube_hu: The case's CT (1, X, X, X) in HU.
        extent: Side of the cube in mm.
        camera: The view that the picture is supposed to be, in our convention.
    """
    height, width = camera.size
    scale = min(1.0, COMPARED_SIZE / max(height, width))
    small = (max(2, round(height * scale)), max(2, round(width * scale)))
    expected = project_hu(cube_hu, [camera.resized(small)], extent / cube_hu.shape[-1])[0]
    candidates = {name: orient(image, name) for name in ORIENTATIONS}
    turned = {
        name: resize_radiographs(candidate.float(), small)
        for name, candidate in candidates.items()
        if candidate.shape[0] * width == candidate.shape[1] * height
    }
    if not turned:
        raise ValueError(
            f"a picture of {tuple(image.shape)} pixels does not have the sides of the view {camera.name!r}"
        )
    correlations = {name: correlation(candidate, expected) for name, candidate in turned.items()}
    best, *others = sorted(correlations, key=lambda name: -abs(correlations[name]))
    runner_up = others[0]
    gain, offset = fit_gain_offset(turned[best], expected)
    quantitative = abs(gain - 1) < QUANTITATIVE_TOLERANCE and abs(offset) < QUANTITATIVE_TOLERANCE * float(
        expected.max()
    )
    return Match(
        {
            "transform": best,
            "correlation": round(correlations[best], 4),
            "runner_up": runner_up,
            "runner_up_correlation": round(correlations[runner_up], 4),
        },
        {"quantitative": quantitative, "gain": gain, "offset": offset},
        expected,
        turned[best],
    )


def save_comparison(path: Path, match: Match) -> None:
    """Picture of our projection (left) beside the radiograph in the orientation that fits best (right)."""
    pictures = [
        ((image - image.min()) / (image.max() - image.min()).clamp(min=1e-9)) for image in (match.expected, match.found)
    ]
    both = torch.cat([pictures[0], torch.ones(len(pictures[0]), 4), pictures[1]], dim=1)
    write_picture(path, np.kron((both * 255).byte().numpy(), np.ones((3, 3), dtype=np.uint8)))


def correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's, between two pictures of one size."""
    a, b = a.double() - a.double().mean(), b.double() - b.double().mean()
    return float((a * b).sum() / (a.norm() * b.norm()).clamp(min=1e-12))
