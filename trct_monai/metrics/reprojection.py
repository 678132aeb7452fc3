"""Does a prediction agree with its radiographs, and with a held-out view?"""

from collections.abc import Sequence
from math import atan2, degrees

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry import Camera
from trct_monai.intensity import fit_gain_offset


def relative_residual(
    projections: Float[Tensor, "V H W"], radiographs: Float[Tensor, "V H W"], *, fit: bool = False
) -> float:
    """``|projections - radiographs| / |radiographs|``, in the Euclidean norm over all views.

    Args:
        projections: Line integrals of a prediction.
        radiographs: The measured line integrals, or pictures.
        fit: Bring each projection to its radiograph by the gain and offset that fit best; for pictures that do not hold
            line integrals.
    """
    a, b = projections.double(), radiographs.double()
    if fit:
        a = match_scale(a, b)
    size = float(b.norm())
    error = float((a - b).norm())
    return error / size if size > 0 else float(error > 0)


def match_scale(projections: Float[Tensor, "V H W"], radiographs: Float[Tensor, "V H W"]) -> Float[Tensor, "V H W"]:
    """Projections on the scale of pictures: each with the gain and offset that bring it nearest to its radiograph.

    Args:
        projections: Line integrals.
        radiographs: Pictures on any scale.
    """
    fits = [fit_gain_offset(projection, radiograph) for projection, radiograph in zip(projections, radiographs)]
    return torch.stack([gain * projection + offset for projection, (gain, offset) in zip(projections, fits)])


def held_out_camera(cameras: Sequence[Camera]) -> Camera:
    """The view that is farthest from all others: the first camera, turned to the middle of the widest gap.

    Opposite views show nearly the same, so that angles count modulo 180 degrees. For pa and lat it looks at 45 or at
    135 degrees: the former.
    """
    azimuths = [degrees(atan2(-camera.normal[0], camera.normal[1])) for camera in cameras]
    around = sorted({round(azimuth % 180.0, 6) % 180.0 for azimuth in azimuths})
    gaps = [(after - before, before) for before, after in zip(around, [*around[1:], around[0] + 180.0])]
    width = max(gap for gap, _ in gaps)
    start = min(before for gap, before in gaps if gap > width - 1e-3)
    return cameras[0].turned(start + width / 2 - azimuths[0])
