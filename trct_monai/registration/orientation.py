"""The orientation of a radiograph, measured: its flips and turns compared with our own projection of the CT.

Nothing is believed about a picture from elsewhere. Each of its eight flips and turns is correlated (Pearson) with the
line integrals that the case's CT gives for the same camera; the best is recorded together with the runner-up, which
says how sure the answer is: a thorax is nearly symmetric, so a PA picture mirrored left-right is the usual runner-up.
At the same time a gain and an offset are fitted that turn the picture's numbers into line integrals.

A picture without a camera of its own is also compared with the view from the opposite side (`Camera.opposite`): in a
cone beam a right lateral is no mirrored left lateral, because what is near the detector is less magnified.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.intensity import fit_gain_offset
from trct_monai.io.case import Intensity, Orientation
from trct_monai.io.files import write_picture
from trct_monai.projector import project_hu
from trct_monai.resampling import resize_radiographs

COMPARED_SIZE = 128
"""Longer side in pixels at which pictures are compared."""

MIN_CORRELATION = 0.7
"""A picture that correlates less with our projection in every orientation is none of this CT."""

QUANTITATIVE_TOLERANCE = 0.02
"""Numbers count as line integrals if the fitted gain is so near to 1, and the offset so near to 0."""

UPRIGHT = ("identity", "flip_columns", "flip_rows", "rotate_180")
"""Orientations that leave rows rows; the others turn them into columns."""

TURNED = tuple(name for name in ORIENTATIONS if name not in UPRIGHT)


@dataclass(frozen=True)
class Match:
    """The result of comparing a picture with our projection.

    Attributes:
        camera: The view that the picture was compared with.
        orientation: The best flip or turn and the runner-up.
        intensity: Gain and offset from the picture's numbers to line integrals.
        expected: Our projection (h, w).
        found: The picture in the best orientation, at the same size.
    """

    camera: Camera
    orientation: Orientation
    intensity: Intensity
    expected: Float[Tensor, "h w"]
    found: Float[Tensor, "h w"]


def measure(
    image: Float[Tensor, "H W"],
    cube_hu: Float[Tensor, "1 X X X"],
    extent: float,
    camera: Camera,
    orientations: Sequence[str] = tuple(ORIENTATIONS),
) -> Match:
    """Compare a picture with our projection of the CT.

    Args:
        image: The picture as it is stored.
        cube_hu: The case's CT (1, X, X, X) in HU.
        extent: Side of the cube in mm.
        camera: The view that the picture is supposed to be, in our convention.
        orientations: The flips and turns to try, of `ORIENTATIONS`; those that do not give the sides of the view are
            left out.

    Raises:
        ValueError: If the picture has the sides of the view in none of them.
    """
    height, width = camera.size
    scale = min(1.0, COMPARED_SIZE / max(height, width))
    small = (max(2, round(height * scale)), max(2, round(width * scale)))
    expected = project_hu(cube_hu, [camera.resized(small)], extent / cube_hu.shape[-1])[0]
    candidates = {name: orient(image, name) for name in orientations}
    resized = {
        name: resize_radiographs(candidate.float(), small)
        for name, candidate in candidates.items()
        if candidate.shape[0] * width == candidate.shape[1] * height
    }
    if not resized:
        raise ValueError(
            f"a picture of {tuple(image.shape)} pixels does not have the sides of the view {camera.name!r}"
        )
    correlations = {name: correlation(candidate, expected) for name, candidate in resized.items()}
    best, runner_up = sorted(correlations, key=lambda name: -abs(correlations[name]))[:2]
    gain, offset = fit_gain_offset(resized[best], expected)
    tolerance = QUANTITATIVE_TOLERANCE * float(expected.max())
    return Match(
        camera,
        {
            "transform": best,
            "correlation": round(correlations[best], 4),
            "runner_up": runner_up,
            "runner_up_correlation": round(correlations[runner_up], 4),
        },
        {
            "quantitative": abs(gain - 1) < QUANTITATIVE_TOLERANCE and abs(offset) < tolerance,
            "gain": gain,
            "offset": offset,
        },
        expected,
        resized[best],
    )


def find_camera(
    image: Float[Tensor, "H W"],
    cube_hu: Float[Tensor, "1 X X X"],
    extent: float,
    camera: Camera,
    *,
    pixel_spacing: tuple[float, float] | None = None,
    offset: Sequence[float] = (0.0, 0.0, 0.0),
) -> Match:
    """The best match of a picture that does not say how it was taken: from the view's side or from the opposite one.

    The camera follows from the picture's pixels by `Camera.for_picture`. A picture that is stored turned by 90 degrees
    has its pixels turned too: their height is then their width in the view.

    Args:
        image: The picture as it is stored.
        cube_hu: The case's CT (1, X, X, X) in HU.
        extent: Side of the cube in mm.
        camera: The view that the picture is supposed to be, in our convention.
        pixel_spacing: Height and width of the picture's pixels at the detector in mm, if a header says it.
        offset: From the middle of the cube to the isocentre in mm.
    """
    rows, columns = (int(n) for n in image.shape)
    upright = camera.for_picture((rows, columns), pixel_spacing)
    turned = camera.for_picture((columns, rows), pixel_spacing and pixel_spacing[::-1])
    views = [(upright, tuple(ORIENTATIONS))] if turned == upright else [(upright, UPRIGHT), (turned, TURNED)]
    matches = [
        measure(image, cube_hu, extent, view.shifted(offset), orientations)
        for one, orientations in views
        for view in (one, one.opposite())
    ]
    return max(matches, key=lambda match: abs(match.orientation["correlation"]))


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
