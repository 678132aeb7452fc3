"""The way back: predictions in [0, 1] to HU with their place in the patient, and to files."""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, ScaleIntensityRanged
from monai.utils import ImageMetaKey
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT, voxel_to_world
from trct_monai.intensity import HU_INT16, HU_WINDOW, check_hu_window, unit_to_hu
from trct_monai.io.ct import read_ct
from trct_monai.io.nifti import read_nifti_grid, write_hu
from trct_monai.metrics.uncertainty import QUANTILES
from trct_monai.preprocessing.cube import as_case


class ScaleToHUd(ScaleIntensityRanged):
    """Numbers in [0, 1] as HU of a window, whatever they lie on; `UnitToHUd` also gives predictions their place.

    Args:
        keys: Keys of the items.
        hu_window: HU of 0 and of 1.
    """

    def __init__(self, keys: KeysCollection, hu_window: Sequence[float] = HU_WINDOW) -> None:
        low, high = check_hu_window(hu_window)
        super().__init__(keys, a_min=0.0, a_max=1.0, b_min=low, b_max=high)


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


class SaveCTd(MapTransform):
    """Write each CT as OUTPUT_DIR/NAME.nii.gz, HU as int16 with its affine, whole or not at all.

    A prediction with intervals has the CT as its first channel and its quantiles as the others: they are written as
    NAME_quantiles.nii.gz, (X, Y, Z, 4).

    Args:
        keys: Keys of MetaTensors (C, X, Y, Z) in HU, named by their metadata, as `UnitToHUd` gives them.
        output_dir: Folder, made if need be.
        extension: ``.nii.gz`` or ``.nii``.
        postfix: Must be None: 0.1.0 wrote quantiles by a second `SaveCTd` with this.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        extension: str = ".nii.gz",
        postfix: None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if postfix is not None:
            raise ValueError(
                "SaveCTd writes the channels after the first as NAME_quantiles by itself: remove the SaveCTd with a "
                "postfix, as bundles/any_view/configs/intervals.json does"
            )
        if extension not in (".nii.gz", ".nii"):
            raise ValueError(f"extension must be .nii.gz or .nii, got {extension!r}")
        self.output_dir, self.extension = Path(output_dir), extension

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the volumes; the items stay as they are.

        Raises:
            ValueError: If a volume has no name or affine, another number of channels, or holds NaN.
        """
        for key in self.key_iterator(data):
            volume = data[key]
            if not isinstance(volume, MetaTensor) or ImageMetaKey.FILENAME_OR_OBJ not in volume.meta:
                raise ValueError(f"{key!r} has no affine and name to be saved with: put UnitToHUd before SaveCTd")
            if volume.shape[0] not in (1, 1 + len(QUANTILES)):
                raise ValueError(
                    f"{key!r} must have 1 channel, or 5 with its quantiles, got shape {tuple(volume.shape)}"
                )
            name = Path(str(volume.meta[ImageMetaKey.FILENAME_OR_OBJ])).name.removesuffix(".gz").removesuffix(".nii")
            hu, affine = volume.as_tensor().detach().cpu().float().numpy(), volume.affine.double().numpy()
            if not np.isfinite(hu).all():
                raise ValueError(f"the reconstruction of {name} holds values that are not finite; nothing was written")
            if len(hu) > 1:
                quantiles = np.moveaxis(hu[1:], 0, -1)
                write_hu(self.output_dir / f"{name}_quantiles{self.extension}", quantiles, affine)
            write_hu(self.output_dir / f"{name}{self.extension}", hu[0], affine)
        return dict(data)


class SaveChangedCTd(MapTransform):
    """Write a changed CT as OUTPUT_DIR/CASE_ID.nii.gz: shape, axes and affine of the CT, HU as int16.

    What is written is the CT in its own HU, and what the network changed in it: beyond the window's ends, and where
    nothing was changed, the values are those of the file.

    Args:
        keys: Keys of predictions (1, X, Y, Z) in [0, 1], axes in RAS order.
        output_dir: Folder, made if need be.
        hu_window: Lowest and highest HU.
        source_key: Key of the CT's path.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        hu_window: Sequence[float] = HU_WINDOW,
        source_key: str = "source",
    ) -> None:
        super().__init__(keys)
        self.output_dir, self.hu_window, self.source_key = Path(output_dir), hu_window, source_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the volumes; the items stay as they are.

        Raises:
            ValueError: If a prediction holds NaN.
        """
        for key in self.key_iterator(dict(data)):
            ct = read_ct(data[self.source_key])
            original = ct.ct_hu[0].float()
            predicted = unit_to_hu(data[key].as_subclass(Tensor)[0].float().cpu(), self.hu_window)
            changed = original + predicted - original.clamp(*self.hu_window)
            if bool(predicted.isfinite().all()):
                changed = changed.clamp(*HU_INT16)
            write_hu(self.output_dir / f"{Path(data['case_id']).name}.nii.gz", *ct.as_stored(changed.numpy()))
        return dict(data)
