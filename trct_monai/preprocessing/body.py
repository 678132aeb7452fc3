"""Location of the patient's body and lungs in a CT, on a coarse grid."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from trct_monai.intensity import AIR_HU, LUNG_HU
from trct_monai.resampling import resample

COARSE_SPACING = 4.0
"""Voxel side in mm of the grid on which the body is segmented."""

MIN_BODY_LITRES = 0.5
MIN_LUNG_LITRES = 0.3
"""Smaller components are no body and no lungs."""

LUNG_AIR_HU = -960.0
"""Below it there is no lung but plain air: trachea, bowel, stomach."""

CUT_MM2 = 2000.0
"""Lung in the first or last slice from which on the scan ends within the lungs."""


@dataclass(frozen=True)
class Body:
    """Body and lungs of a CT.

    Attributes:
        mask: The body with its interior, lungs included (X, Y, Z), on the coarse grid.
        affine: From the mask's voxel index to world mm, diagonal.
        center: Middle of the body's bounding box in world mm.
        lungs_z: Lowest and highest z in mm of the air within the body; None without lungs. The trachea counts, which
            reaches up into the neck.
        lungs: Lowest and highest corner (2, 3) in world mm of the lungs' bounding box, without the trachea; None
            without lungs.
        lungs_are_cut: Whether the scan ends within the lungs.
    """

    mask: np.ndarray
    affine: np.ndarray
    center: np.ndarray
    lungs_z: tuple[float, float] | None
    lungs: np.ndarray | None
    lungs_are_cut: bool


def find_body(ct_hu: Tensor, affine: np.ndarray) -> Body | None:
    """The body in a CT, without the table: the largest component above -500 HU after thin structures are removed.

    A first opening removes structures thinner than 8 mm: the table's shells, sheets, tubes. Thin walls within 16 mm of
    the largest component are restored. Then each axial slice is filled, so that the body is solid, and a second opening
    removes attached structures thinner than about 24 mm.

    Args:
        ct_hu: CT numbers (X, Y, Z), RAS.
        affine: From voxel index to world mm, diagonal and positive.

    Returns:
        The body, or None if no component of half a litre is denser than -500 HU.
    """
    spacing = np.diag(affine)[:3]
    size = np.maximum(np.round(np.array(ct_hu.shape) * spacing / COARSE_SPACING), 1).astype(int)
    step = np.array(ct_hu.shape) * spacing / size
    coarse_affine = np.diag([*step, 1.0])
    coarse_affine[:3, 3] = affine[:3, 3] + (step - spacing) / 2
    coarse = resample(ct_hu, affine, size.tolist(), coarse_affine, AIR_HU).numpy()
    litres = float(step.prod()) * 1e-6

    # The end slices are repeated, or the openings would erode the body where the scan cuts it.
    dense = np.pad(coarse > LUNG_HU, ((0, 0), (0, 0), (4, 4)), mode="edge")
    ball = ndimage.generate_binary_structure(3, 1)
    thick = _largest(ndimage.binary_opening(dense, np.ones((2, 2, 2))))
    solid = _filled(ndimage.binary_dilation(thick, ball, iterations=4, mask=dense))
    core = _largest(ndimage.binary_opening(solid, ball, iterations=3))
    mask = (ndimage.binary_dilation(core, ball, iterations=2) & solid)[:, :, 4:-4]
    if mask.sum() * litres < MIN_BODY_LITRES:
        return None
    low, high = _bounding_box(mask)
    center = coarse_affine[:3, 3] + step * (low + high) / 2
    air = mask & (coarse < LUNG_HU)
    with_trachea, lungs = _lungs(air, litres, 2), _lungs(air & (coarse > LUNG_AIR_HU), litres)
    lungs_z, box, are_cut = None, None, False
    if with_trachea is not None:
        bottom, top = _corners(with_trachea, coarse_affine)[:, 2].tolist()
        lungs_z = bottom, top
    if lungs is not None:
        box = _corners(lungs, coarse_affine)
        are_cut = bool((lungs[:, :, [0, -1]].sum(axis=(0, 1)) * step[0] * step[1]).max() > CUT_MM2)
    return Body(mask, coarse_affine, center, lungs_z, box, are_cut)


def outside_body(body: Body, shape: tuple[int, ...], affine: np.ndarray) -> Tensor:
    """Mask (X, Y, Z) of the voxels of a finer grid that are more than one coarse voxel (4 mm) outside the body."""
    near = torch.from_numpy(ndimage.binary_dilation(body.mask, ndimage.generate_binary_structure(3, 1)))
    for axis, size in enumerate(shape):
        position = affine[axis, 3] + affine[axis, axis] * np.arange(size)
        index = np.round((position - body.affine[axis, 3]) / body.affine[axis, axis])
        near = near.index_select(axis, torch.from_numpy(index.clip(0, near.shape[axis] - 1).astype(np.int64)))
    return ~near


def _lungs(air: np.ndarray, litres: float, most: int | None = None) -> np.ndarray | None:
    """The components of air inside the body that are lungs: the largest, and each of at least a fifth of it.

    The opening takes off what is thinner than three voxels: the rims of trachea, bowel and skin folds.

    Args:
        air: Voxels as thin as air or lung.
        litres: Volume of a voxel.
        most: So many of the largest at most.
    """
    labels, count = ndimage.label(ndimage.binary_opening(air))
    volumes = np.bincount(labels.ravel(), minlength=count + 1)[1:] * litres
    if count == 0 or volumes.max() < MIN_LUNG_LITRES:
        return None
    return np.isin(labels, [1 + i for i in np.argsort(-volumes)[:most] if volumes[i] > 0.2 * volumes.max()])


def _corners(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Lowest and highest corner (2, 3) in world mm of the box around a mask."""
    return np.asarray(affine[:3, 3] + np.diag(affine)[:3] * (np.stack(_bounding_box(mask)) + [[-0.5], [0.5]]))


def _largest(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    return np.asarray(labels == 1 + np.bincount(labels.ravel())[1:].argmax())


def _filled(mask: np.ndarray) -> np.ndarray:
    """The mask with the holes of each axial slice filled."""
    return np.stack([ndimage.binary_fill_holes(mask[:, :, k]) for k in range(mask.shape[2])], axis=2)


def _bounding_box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    return np.array([span[0] for span in spans]), np.array([span[-1] for span in spans])
