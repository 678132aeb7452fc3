"""The fixed preprocessing from any CT to a network's target."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, get_track_meta
from monai.transforms import Transform
from monai.utils import ImageMetaKey
from torch import Tensor

from trct_monai.geometry.grids import voxel_to_world
from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import AIR_HU, HU_WINDOW, LUNG_HU, PADDING_HU, check_hu_window, hu_to_unit
from trct_monai.preprocessing.body import LUNG_AIR_HU, MIN_LUNG_LITRES, find_body, outside_body
from trct_monai.resampling import is_aligned, resample, to_ras, to_world_axes

EXTENT_TOLERANCE = 1e-3
"""Relative difference of its sides from `extent` up to which a CT already is the cube."""

CENTERS = ("body", "lungs")
"""What a cube may be centred on."""

UPSAMPLING_WARNING = 1.5
"""Ratio of the CT's voxel side to the target's, along every axis, from which on the log has a warning."""

logger = logging.getLogger(__name__)


class CTPreprocessing(Transform):
    """Any CT as a cube around the body in [0, 1] of a HU window.

    1. Axes to RAS; a tilted or oblique volume is resampled to the world axes; padding below -1024 HU becomes air.
    2. A cube of `extent` mm around `center`. Outside of the scan is air.

       ``lungs``: around the middle of the lungs' bounding box (see `find_body`). A scan of the whole body and one of
       the chest alone give the same cube.

       ``body``, as published protocols do: in x and y around the middle of the body's bounding box (without the table);
       in z around the middle of the scan or, if the scan is longer than the cube, around the middle of the lungs if it
       has lungs, moved as little as needed to stay within the scan.
    3. Antialiased resampling to size^3 voxels; see `trct_monai.resampling`.
    4. Clip to the HU window, scale to [0, 1].

    A CT that already is a cube of this extent is not centred again: 128^3 to 64^3 is the mean of 2 x 2 x 2 voxels.

    Args:
        size: Number of voxels along each side of the cube.
        extent: Side of the cube in mm.
        hu_window: Lowest and highest HU.
        remove_table: Replace voxels more than 4 mm outside the body by air, and log their volume.
        center: ``body`` or ``lungs``.

    Raises:
        ValueError: If a size or the window is out of range, or the center is unknown.
    """

    def __init__(
        self,
        size: int = 64,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        remove_table: bool = False,
        center: str = "body",
    ) -> None:
        if center not in CENTERS:
            raise ValueError(f"center must be {' or '.join(CENTERS)}, got {center!r}")
        if size < 1 or extent <= 0:
            raise ValueError(f"size and extent must be positive, got {size} voxels and {extent} mm")
        self.size = int(size)
        self.extent = float(extent)
        self.hu_window = check_hu_window(hu_window)
        self.remove_table, self.center = remove_table, center
        self._warned = False

    def __call__(self, ct_hu: Tensor, affine: Tensor | None = None) -> Tensor:
        """The network's target (1, size, size, size) in [0, 1], with a diagonal RAS affine that keeps its place.

        Args:
            ct_hu: CT numbers (1, X, Y, Z); a MetaTensor brings its affine along.
            affine: From voxel index to world mm in RAS, for a plain tensor.

        Raises:
            ValueError: If the shape or the affine is not that of a volume, or a value is not finite.
        """
        hu = self.cubes(ct_hu, [self.size], affine)[0]
        unit = hu_to_unit(hu.as_subclass(Tensor), self.hu_window)
        return as_case(unit, hu.affine.numpy(), hu.meta) if get_track_meta() else unit

    def cubes(self, ct_hu: Tensor, sizes: Sequence[int], affine: Tensor | None = None) -> list[MetaTensor]:
        """The same cube at several sizes in HU, neither clipped nor scaled, as MetaTensors (1, size, size, size).

        Args:
            ct_hu: As in a call.
            sizes: Numbers of voxels along a side.
            affine: As in a call.

        Raises:
            ValueError: As in a call.
        """
        volume, source_affine, center = self._located(ct_hu, affine)
        finest = float(np.diag(source_affine)[:3].min())
        if finest > UPSAMPLING_WARNING * self.extent / max(sizes) and not self._warned:
            self._warned = True  # once, not for every case
            logger.warning(
                "a CT with voxels of %.2f mm is interpolated to %.2f mm: it has no finer detail for training or scores",
                finest,
                self.extent / max(sizes),
            )
        meta = getattr(ct_hu, "meta", {})
        return [_cut(volume, source_affine, center, (size,) * 3, self.extent / size, meta) for size in sizes]

    def box(self, ct_hu: Tensor, margin: Sequence[float] | None = None, affine: Tensor | None = None) -> MetaTensor:
        """The cube with what is around it, in HU: a MetaTensor (1, X, Y, Z) with the voxels of a cube of `size`.

        Args:
            ct_hu: As in a call.
            margin: How far the box goes beyond the cube at either end of x, y and z, in mm; rounded to whole voxels.
                None for as far as the CT goes.
            affine: As in a call.

        Raises:
            ValueError: As in a call.
        """
        volume, source_affine, center = self._located(ct_hu, affine)
        spacing = self.extent / self.size
        if margin is None:
            voxel, first = np.diag(source_affine)[:3], source_affine[:3, 3] - center
            reach = np.maximum(voxel / 2 - first, first + voxel * (np.array(volume.shape) - 0.5))
            margin = (spacing * np.ceil((reach - self.extent / 2).clip(0) / spacing - 1e-6)).tolist()
        shape = [self.size + 2 * round(side / spacing) for side in margin]
        return _cut(volume, source_affine, center, shape, spacing, getattr(ct_hu, "meta", {}))

    def _located(self, ct_hu: Tensor, affine: Tensor | None) -> tuple[Tensor, np.ndarray, np.ndarray]:
        """The CT (X, Y, Z), its affine, and the middle of the cube in world mm."""
        volume, matrix = standardize(ct_hu, affine)
        center = self._locate(volume, matrix)
        return (_without_table(volume, matrix) if self.remove_table else volume), matrix, center

    def _locate(self, volume: Tensor, affine: np.ndarray) -> np.ndarray:
        """Middle of the cube in world mm; see the class for the rule."""
        spacing, shape = np.diag(affine)[:3], np.array(volume.shape)
        middle = np.asarray(affine[:3, 3] + spacing * (shape - 1) / 2)
        reach = spacing * shape
        if np.abs(reach / self.extent - 1).max() <= EXTENT_TOLERANCE:
            return middle
        body = find_body(volume, affine)
        if self.center == "lungs":
            if body is None or body.lungs is None:
                raise ValueError(
                    f"no lungs found (at least {MIN_LUNG_LITRES:g} litres between {LUNG_AIR_HU:g} and {LUNG_HU:g} HU "
                    "within a body), on which the cube is centred: give a CT of the chest, or center body"
                )
            if body.lungs_are_cut:
                logger.warning("the scan ends within the lungs: the cube is centred on the part that it shows")
            return np.asarray(body.lungs.mean(axis=0))
        if body is None:
            return middle
        center = body.center.copy()
        center[2] = middle[2]
        slack = (reach[2] - self.extent) / 2
        if slack > 0 and body.lungs_z is not None:
            center[2] = np.clip(sum(body.lungs_z) / 2, middle[2] - slack, middle[2] + slack)
        return center


def _cut(
    volume: Tensor,
    affine: np.ndarray,
    center: np.ndarray,
    shape: Sequence[int],
    spacing: float,
    meta: Mapping[str, Any],
) -> MetaTensor:
    """A CT around a place in world mm, with so many voxels of one side; air outside of it.

    Raises:
        ValueError: If a value is not finite.
    """
    target = voxel_to_world(shape, spacing).numpy()
    target[:3, 3] += center
    result = resample(volume, affine, shape, target, AIR_HU)
    if not bool(torch.isfinite(result).all()):
        raise ValueError("the CT holds values that are not finite (NaN or infinite)")
    return as_case(result[None], target, meta)


def resample_like(ct_hu: MetaTensor, reference: MetaTensor) -> MetaTensor:
    """Any CT in HU on the grid of a case's CT: axes to RAS, antialiased resampling, air outside of the CT.

    Args:
        ct_hu: CT numbers (1, X, Y, Z) with their affine.
        reference: CT (1, X, Y, Z) whose axes are the world's.

    Raises:
        ValueError: If the shape or the affine is not that of a volume.
    """
    volume, affine = standardize(ct_hu, None)
    target = reference.affine.double().numpy()
    return as_case(resample(volume, affine, reference.shape[1:], target, AIR_HU)[None], target, ct_hu.meta)


def standardize(ct_hu: Tensor, affine: Tensor | None) -> tuple[Tensor, np.ndarray]:
    """A CT (X, Y, Z) with its axes along the world's in RAS order and air for padding, and its diagonal affine."""
    if ct_hu.ndim != 4 or ct_hu.shape[0] != 1:
        raise ValueError(f"a CT must be (1, X, Y, Z), got shape {tuple(ct_hu.shape)}")
    if affine is None:
        if not isinstance(ct_hu, MetaTensor):
            raise ValueError("a CT without affine has no voxel size and position: give a MetaTensor or an affine")
        affine = ct_hu.affine
    matrix = np.asarray(affine, dtype=float)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-9:
        raise ValueError(f"the CT's affine must be an invertible (4, 4) matrix, got {matrix.tolist()}")
    volume, matrix = to_ras(ct_hu.as_subclass(Tensor)[0], matrix)
    padding = volume < PADDING_HU
    if bool(padding.any()):
        volume = torch.where(padding, volume.new_tensor(AIR_HU), volume)  # in the same order in memory
    if not is_aligned(matrix, volume.shape):
        return to_world_axes(volume, matrix, AIR_HU)
    diagonal = np.diag(np.diag(matrix))
    diagonal[:3, 3] = matrix[:3, 3]
    return volume, diagonal


def _without_table(volume: Tensor, affine: np.ndarray) -> Tensor:
    body = find_body(volume, affine)
    if body is None:
        logger.warning("no body found: the table is not removed")
        return volume
    outside = outside_body(body, tuple(volume.shape), affine)
    dense = outside & (volume > AIR_HU / 2)
    litres = float(np.diag(affine)[:3].prod()) * 1e-6
    logger.info(
        "outside the body: %.2f l set to %d HU, of which %.2f l were denser than %d HU",
        int(outside.sum()) * litres,
        AIR_HU,
        int(dense.sum()) * litres,
        AIR_HU / 2,
    )
    return volume.masked_fill(outside, AIR_HU)


def as_case(volume: Tensor, affine: np.ndarray, meta: Mapping[str, Any]) -> MetaTensor:
    """A MetaTensor whose metadata has the same few keys for every case, so that batches can be collated."""
    matrix = torch.as_tensor(affine, dtype=torch.float64)
    fields: dict[str, Any] = {
        # SaveImage resamples to `original_affine` by default; this makes it save this grid.
        "original_affine": matrix.clone(),
        "spatial_shape": np.array(volume.shape[1:]),
        "space": "RAS",
    }
    if ImageMetaKey.FILENAME_OR_OBJ in meta:
        fields[str(ImageMetaKey.FILENAME_OR_OBJ)] = meta[ImageMetaKey.FILENAME_OR_OBJ]
    return MetaTensor(volume, affine=matrix, meta=fields)
