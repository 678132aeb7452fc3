"""How a radiograph lies: its eight flips and turns compared with our own projection of the CT.

Nothing is believed about a picture from elsewhere. Each of the eight is correlated (Pearson) with the line integrals
that the case's CT gives for the same camera; the best is recorded together with the runner-up, which says how sure the
answer is: a thorax is nearly symmetric, so a mirrored PA picture is the usual runner-up. In the same go a gain and an
offset are fitted that turn the picture's numbers into line integrals.

A picture without a camera of its own is also compared with the view from the opposite side (`opposite_camera`): in a
cone beam a right lateral is no mirrored left lateral, what is near to the detector being less magnified.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.intensity import hu_to_attenuation
from trct_monai.io.datalist import Intensity, Orientation
from trct_monai.io.files import write_picture
from trct_monai.projector.operators import project
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


def project_cube(cube_hu: Float[Tensor, "1 X X X"], extent: float, cameras: list[Camera]) -> Float[Tensor, "V H W"]:
    """Line integrals of a case's cube in HU, centred on the isocentre; cameras of one size."""
    attenuation = hu_to_attenuation(cube_hu.as_subclass(Tensor).float())[None]
    return project(attenuation, cameras, extent / cube_hu.shape[-1])[0]


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
    expected = project_cube(cube_hu, extent, [camera.resized(small)])[0]
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
    gain, offset = fit_intensity(turned[best], expected)
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


def shift_camera(camera: Camera, offset: tuple[float, float, float]) -> Camera:
    """The same camera in coordinates whose origin lies at minus `offset` mm: source and detector move by `offset`."""

    def moved(point: tuple[float, float, float]) -> tuple[float, float, float]:
        return point[0] + offset[0], point[1] + offset[1], point[2] + offset[2]

    source = None if camera.source is None else moved(camera.source)
    return replace(camera, source=source, detector_center=moved(camera.detector_center))


def opposite_camera(camera: Camera) -> Camera:
    """The view from the other side: source and detector change places, seen so that nothing is mirrored."""

    def negated(point: tuple[float, float, float]) -> tuple[float, float, float]:
        return -point[0], -point[1], -point[2]

    return replace(
        camera,
        source=None if camera.source is None else negated(camera.source),
        detector_center=negated(camera.detector_center),
        column_axis=negated(camera.column_axis),
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


def fit_intensity(image: Tensor, expected: Tensor) -> tuple[float, float]:
    """Gain and offset that bring a picture nearest to line integrals (least squares)."""
    x, y = image.double().flatten(), expected.double().flatten()
    gain = float(((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum().clamp(min=1e-12))
    return gain, float(y.mean() - gain * x.mean())
