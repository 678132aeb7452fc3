"""Where a reconstruction shows a sphere, and how large: from the difference between with the sphere and without it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from trct_monai.geometry import voxel_centers
from trct_monai.metrics.sphere import Sphere

Array = np.ndarray

REACH = 2.0
"""The sphere is looked for within so many diameters of its centre."""

MIN_REACH_MM = 15.0
"""And at least within this distance."""


@dataclass(frozen=True)
class Trace:
    """What a difference volume shows of a sphere.

    Attributes:
        place_error_mm: Distance of its centroid from the sphere's centre.
        voxels: Number of its voxels.
    """

    place_error_mm: float
    voxels: int


def find_trace(difference_hu: Float[Array, "X Y Z"], sphere: Sphere, voxel_spacing: float) -> Trace | None:
    """The voxels above half of the maximum near the sphere, those connected to the maximum by faces.

    Their centroid is weighted by the difference. Near is within `REACH` diameters of the centre, at least
    `MIN_REACH_MM`: what lies farther is no place error but false contrast.

    Args:
        difference_hu: A volume with the sphere less the one without it.
        sphere: The planted sphere.
        voxel_spacing: Voxel side in mm.

    Returns:
        None where nothing is higher with the sphere.
    """
    reach = max(REACH * sphere.diameter_mm, MIN_REACH_MM)
    window, own = sphere.crop(difference_hu.shape, voxel_spacing, reach)
    part = difference_hu[window]
    offsets = voxel_centers(part.shape, voxel_spacing).numpy() - own.center_mm
    near = np.where(np.linalg.norm(offsets, axis=-1) <= reach, part, 0.0)
    if near.max() <= 0:
        return None
    blob = _connected_to_maximum(near)
    centroid = (near[blob, None] * offsets[blob]).sum(axis=0) / near[blob].sum()
    return Trace(float(np.linalg.norm(centroid)), int(blob.sum()))


def _connected_to_maximum(values: Float[Array, "X Y Z"]) -> Bool[Array, "X Y Z"]:
    labels, _ = ndimage.label(values > values.max() / 2)
    return np.asarray(labels == labels[np.unravel_index(values.argmax(), values.shape)])
