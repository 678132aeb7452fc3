"""What a reconstruction shows elsewhere because of a sphere: contrast at places where there is none."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float

from trct_monai.geometry import Camera, voxel_centers
from trct_monai.metrics.sphere import SHELL, Sphere

Array = np.ndarray

PLACES = 8
"""Number of other places at which the observer looks; half of them on the rays through the sphere, if there are any."""


def other_places(
    lungs: Bool[Array, "X Y Z"], voxel_spacing: float, sphere: Sphere, cameras: Sequence[Camera], case_id: str
) -> list[Sphere]:
    """The sphere at other places of the lungs, where the reconstruction should not change with it.

    They are voxels of the lungs, drawn by the case's name, at least so far from the sphere's centre that the shells do
    not meet. The first half lies on the rays of the views through the sphere's centre (no farther from one than a
    voxel's side), where a smeared sphere shows; where these are too few, or there are no cameras, other places take
    their turn.

    Args:
        lungs: True in the lungs of the truth.
        voxel_spacing: Voxel side in mm.
        sphere: The planted sphere.
        cameras: The views; none if unknown.
        case_id: The case.

    Returns:
        `PLACES` spheres, or as many as there are such voxels.
    """
    centers = voxel_centers(lungs.shape, voxel_spacing).numpy()[lungs]
    away = np.linalg.norm(centers - sphere.center_mm, axis=-1)
    centers = centers[away >= SHELL * sphere.diameter_mm]
    generator = np.random.default_rng(int(hashlib.sha256(case_id.encode()).hexdigest()[:16], 16))
    order = generator.permutation(len(centers))
    on_ray = _distance_to_rays(centers, sphere, cameras)[order] <= voxel_spacing
    first = order[on_ray][: PLACES // 2]
    rest = order[~np.isin(order, first)][: PLACES - len(first)]
    places = centers[[*first, *rest]].tolist() if len(order) else []
    return [replace(sphere, center_mm=(x, y, z)) for x, y, z in places]


def _distance_to_rays(points: Float[Array, "N 3"], sphere: Sphere, cameras: Sequence[Camera]) -> Float[Array, " N"]:
    """Distance in mm of points to the nearest ray through the sphere's centre; infinite without views."""
    offset, nearest = points - sphere.center_mm, np.full(len(points), np.inf)
    for camera in cameras:
        ray = np.array(camera.normal if camera.source is None else np.subtract(sphere.center_mm, camera.source))
        ray = ray / np.linalg.norm(ray)
        nearest = np.minimum(nearest, np.linalg.norm(offset - (offset @ ray)[:, None] * ray, axis=-1))
    return nearest


def false_contrast(
    difference_hu: Float[Array, "X Y Z"], places: Sequence[Sphere], voxel_spacing: float
) -> float | None:
    """Mean absolute response of the observer at places without a sphere, in HU.

    Args:
        difference_hu: The reconstruction with the sphere less the one without it; responses are linear.
        places: What `other_places` gives.
        voxel_spacing: Voxel side in mm.

    Returns:
        None if there is no place to look at.
    """
    responses = [abs(place.response(difference_hu, voxel_spacing)) for place in places]
    return float(np.mean(responses)) if responses else None
