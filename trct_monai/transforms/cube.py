"""`CTPreprocessing` of dictionary items, and the way back from a prediction to HU."""

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey
from torch import Tensor

from trct_monai.geometry.grids import voxel_to_world
from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW, check_hu_window, unit_to_hu
from trct_monai.io.nifti import read_nifti_grid
from trct_monai.preprocessing.cube import CTPreprocessing, as_case


class CTPreprocessingd(MapTransform):
    """`CTPreprocessing` of dictionary items.

    Args:
        keys: Keys of the CTs.
        size: As in `CTPreprocessing`.
        extent: As in `CTPreprocessing`.
        hu_window: As in `CTPreprocessing`.
        remove_table: As in `CTPreprocessing`.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int = 64,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        remove_table: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.protocol = CTPreprocessing(size, extent, hu_window, remove_table)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, each CT as `CTPreprocessing` gives it."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.protocol(result[key])
        return result


class UnitToHUd(MapTransform):
    """Predictions in [0, 1] as CT numbers in HU, with the affine and the file name that MONAI's SaveImaged needs.

    The prediction fills the cube of the reference, if the item has one, whatever its number of voxels; else a cube
    of `extent` mm around the origin. A reference is a CT, or the path of one, of which only the header is read. The
    file is named by the item's ``case_id``, else by the reference.

    Args:
        keys: Keys of the predictions (C, X, Y, Z).
        hu_window: The window in which they were trained.
        extent: Side in mm of the cube where there is no reference.
        reference_keys: Keys of the CTs of the same case, one or one for each prediction; ``label`` if None.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection = "pred",
        hu_window: Sequence[float] = HU_WINDOW,
        extent: float = DEFAULT_EXTENT,
        reference_keys: KeysCollection | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.hu_window = check_hu_window(hu_window)
        self.extent = float(extent)
        references = ("label",) if reference_keys is None else _as_tuple(reference_keys)
        if len(references) not in (1, len(self.keys)):
            raise ValueError(f"reference_keys must be one key or {len(self.keys)}, got {references}")
        self.reference_keys = references * len(self.keys) if len(references) == 1 else references

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with each prediction in HU.

        Raises:
            ValueError: If a prediction is not (C, X, Y, Z).
        """
        result = dict(data)
        for key, reference_key in self.key_iterator(result, self.reference_keys):
            unit = result[key]
            if unit.ndim != 4:
                raise ValueError(f"{key!r} must be (C, X, Y, Z), got shape {tuple(unit.shape)}")
            hu = unit_to_hu(unit.as_subclass(Tensor), self.hu_window)
            affine, name = self._place(tuple(hu.shape[1:]), data.get(reference_key))
            name = data.get("case_id", name)
            result[key] = as_case(hu, affine, {} if name is None else {ImageMetaKey.FILENAME_OR_OBJ: name})
        return result

    def _place(self, shape: tuple[int, ...], reference: Any) -> tuple[np.ndarray, str | None]:
        """Affine of a volume of this shape in the reference's cube, and the reference's name."""
        if isinstance(reference, MetaTensor) and reference.ndim == 4:
            name = reference.meta.get(ImageMetaKey.FILENAME_OR_OBJ)
            matrix, size = reference.affine.double().numpy().copy(), reference.shape[1:]
        elif isinstance(reference, str | os.PathLike):
            name, (size, matrix) = str(reference), read_nifti_grid(reference)
        else:
            return voxel_to_world(shape, [self.extent / n for n in shape]).numpy(), None
        ratio = np.array(size) / np.array(shape)
        matrix[:3, 3] += matrix[:3, :3] @ ((ratio - 1) / 2)
        matrix[:3, :3] = matrix[:3, :3] * ratio
        return matrix, name


def _as_tuple(keys: KeysCollection) -> tuple[Hashable, ...]:
    return (keys,) if isinstance(keys, str) or not isinstance(keys, Sequence) else tuple(keys)
