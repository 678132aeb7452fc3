"""What an error costs in anatomy: by tissue, in lung volume, in overlap, and as the blur that would be as bad."""

from math import ceil, inf, nan, pi

import numpy as np
from jaxtyping import Bool, Float
from scipy import fft, ndimage, optimize

from trct_monai.intensity import BONE_HU, LUNG_HU, SOFT_TISSUE_HU

Array = np.ndarray

MIN_LUNG_ML = 50.0
"""Smaller pockets of air are bowel gas or noise."""

HULL_MM = 10.0
"""Radius of the ball that closes the lungs around their vessels."""


def find_lungs(hu: Float[Array, "X Y Z"], voxel_spacing: float) -> Bool[Array, "X Y Z"]:
    """Air inside the body: connected pieces below -500 HU, 50 ml or larger, that do not reach the sides of the volume.

    They may reach its top and bottom, where a scan cuts through lungs and trachea.

    Args:
        hu: CT numbers, RAS.
        voxel_spacing: Voxel side in mm.
    """
    labels, count = ndimage.label(hu < LUNG_HU)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    lungs = voxels * voxel_spacing**3 * 1e-3 >= MIN_LUNG_ML
    for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        lungs[np.unique(side)] = False
    lungs[0] = False
    return np.asarray(lungs[labels])


def lung_volume_ml(hu: Float[Array, "X Y Z"], voxel_spacing: float) -> float:
    """Volume in ml of `find_lungs`."""
    return float(find_lungs(hu, voxel_spacing).sum() * voxel_spacing**3 * 1e-3)


def mae_by_tissue(
    prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"], voxel_spacing: float
) -> dict[str, float]:
    """Mean absolute error in HU where the truth is ``lung``, ``soft_tissue`` (-200 to 200 HU) or ``bone`` (above 200).

    NaN where the truth has no such tissue.
    """
    error = np.abs(prediction - truth)
    low, high = SOFT_TISSUE_HU
    masks = {
        "lung": find_lungs(truth, voxel_spacing),
        "soft_tissue": (truth >= low) & (truth <= high),
        "bone": truth > BONE_HU,
    }
    return {name: float(error[mask].mean()) if mask.any() else nan for name, mask in masks.items()}


def dice_by_threshold(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"]) -> dict[str, float]:
    """Dice overlap ``2 |A and B| / (|A| + |B|)`` of air, bone and soft tissue.

    ``air`` is below -500 HU, ``bone`` above 200 HU, ``soft_tissue`` between; 1 where neither volume has the tissue.
    """
    bounds = {"air": (-inf, LUNG_HU), "soft_tissue": (LUNG_HU, BONE_HU), "bone": (BONE_HU, inf)}
    scores = {}
    for name, (low, high) in bounds.items():
        a, b = ((volume > low) & (volume <= high) for volume in (prediction, truth))
        total = int(a.sum()) + int(b.sum())
        scores[name] = 2.0 * int((a & b).sum()) / total if total else 1.0
    return scores


def lung_hull(hu: Float[Array, "X Y Z"], voxel_spacing: float) -> Bool[Array, "X Y Z"]:
    """The lungs with the vessels in them: `find_lungs`, closed by a ball of `HULL_MM` and its holes filled.

    Args:
        hu: CT numbers, RAS.
        voxel_spacing: Voxel side in mm.
    """
    lungs = find_lungs(hu, voxel_spacing)
    if not lungs.any():
        return lungs
    margin = ceil(HULL_MM / voxel_spacing) + 1
    part = ndimage.find_objects(lungs.astype(np.uint8))[0]
    padded = np.pad(lungs[part], margin)
    grown = ndimage.distance_transform_edt(~padded) * voxel_spacing <= HULL_MM
    closed = ndimage.distance_transform_edt(grown) * voxel_spacing > HULL_MM
    inner = (slice(margin, -margin),) * 3
    hull = np.zeros_like(lungs)
    hull[part] = ndimage.binary_fill_holes(closed | padded)[inner]
    return hull


def dice_vessels(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"], voxel_spacing: float) -> float:
    """Dice overlap of what is above -500 HU in the hull of the truth's lungs: vessels, and lesions.

    NaN where neither volume has any there.

    Args:
        prediction: In HU.
        truth: In HU; its hull is that of both.
        voxel_spacing: Voxel side in mm.
    """
    hull = lung_hull(truth, voxel_spacing)
    a, b = ((volume[hull] > LUNG_HU) for volume in (prediction, truth))
    total = int(a.sum()) + int(b.sum())
    return 2.0 * int((a & b).sum()) / total if total else nan


def contrast_ratio(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"]) -> float:
    """Standard deviation of the prediction's voxels over that of the truth's: near 0 for a uniform volume."""
    spread = float(truth.std())
    return float(prediction.std()) / spread if spread > 0 else 1.0


def equivalent_blur(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"], voxel_spacing: float) -> float:
    """The sigma in mm of the Gaussian that makes the truth as bad as the prediction is, in mean squared error.

    In the cosine basis a Gaussian blur multiplies each coefficient by exp(-(sigma w)^2 / 2), so that the error of
    every sigma follows from the spectrum of the truth, and the sigma from the error by bisection.

    Returns:
        0 for the truth itself; the side of the volume where no blur is as bad.
    """
    error = float(np.square(prediction - truth, dtype=np.float64).sum())
    if error == 0.0:
        return 0.0
    squared = np.zeros(())
    for axis, size in enumerate(truth.shape):
        along = np.square(pi * np.arange(size) / (size * voxel_spacing))
        squared = squared[..., None] + along if axis else along
    power = np.square(fft.dctn(truth.astype(np.float64), norm="ortho")).ravel()
    step = squared.max() / 2**16  # frequencies in this many bins: far more than a sigma needs
    bins = np.round(squared.ravel() / step).astype(np.int64)
    power, frequency = np.bincount(bins, power), np.bincount(bins, squared.ravel()) / np.maximum(np.bincount(bins), 1)

    def excess(sigma: float) -> float:
        lost = 1.0 - np.exp(-0.5 * sigma**2 * frequency)
        return float((power * lost**2).sum()) - error

    largest = max(truth.shape) * voxel_spacing
    return float(optimize.brentq(excess, 0.0, largest)) if excess(largest) > 0 else float(largest)


def orientation(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"]) -> dict[str, float]:
    """Patient orientation of a prediction: 1 = that of the truth, -1 = mirrored, 0 = no side can be told from another.

    Radiographs cannot tell: a mirrored patient in a mirrored set-up casts the same shadows. For each axis,
    ``left_right`` (the chirality), ``back_front`` and ``down_up``, the part of the volume that changes its sign when
    mirrored, v - mirror(v), is correlated with that of the truth. A symmetric truth has no side: 1.
    """
    return {
        name: _cosine(prediction - np.flip(prediction, axis), truth - np.flip(truth, axis))
        for axis, name in enumerate(("left_right", "back_front", "down_up"))
    }


def _cosine(a: Array, b: Array) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    if not b.any():
        return 1.0
    return float(a @ b / np.sqrt((a @ a) * (b @ b))) if a.any() else 0.0
