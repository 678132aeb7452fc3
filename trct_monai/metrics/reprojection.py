"""Does a prediction agree with the radiographs, and with one that nobody took?"""

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
        radiographs: What was measured.
        fit: Bring each projection to its radiograph by the gain and offset that fit best; for pictures whose scale is
            not that of line integrals.
    """
    a, b = projections.double(), radiographs.double()
    if fit:
        fits = [fit_gain_offset(projection, radiograph) for projection, radiograph in zip(a, b)]
        a = torch.stack([gain * projection + offset for projection, (gain, offset) in zip(a, fits)])
    size = float(b.norm())
    error = float((a - b).norm())
    return error / size if size > 0 else float(error > 0)


def held_out_camera(cameras: Sequence[Camera]) -> Camera:
    """A view that is as far from all others as can be: the first camera, turned to the middle of the widest gap.

    Opposite views show nearly the same, so that angles count modulo 180 degrees. For pa and lat it looks at 45 or at
    135 degrees: the former.
    """
    azimuths = [degrees(atan2(-camera.normal[0], camera.normal[1])) for camera in cameras]
    around = sorted({round(azimuth % 180.0, 6) % 180.0 for azimuth in azimuths})
    gaps = [(after - before, before) for before, after in zip(around, [*around[1:], around[0] + 180.0])]
    width = max(gap for gap, _ in gaps)
    start = min(before for gap, before in gaps if gap > width - 1e-3)
    return cameras[0].turned(start + width / 2 - azimuths[0])
