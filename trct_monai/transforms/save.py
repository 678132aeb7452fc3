"""Writing predicted CTs."""

import os
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey


class SaveCTd(MapTransform):
    """Write each CT as OUTPUT_DIR/NAME.nii.gz, in HU with its affine, to a temporary name first.

    MONAI's SaveImage writes in place: a reconstruction that is interrupted would leave a file cut short.

    Args:
        keys: Keys of MetaTensors (C, X, Y, Z) in HU, named by their metadata, as `UnitToHUd` gives them; several
            channels become a fourth axis.
        output_dir: Folder, made if need be.
        postfix: Written as NAME_POSTFIX.nii.gz.
        allow_missing_keys: Do nothing for a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection,
        output_dir: str | os.PathLike[str],
        postfix: str = "",
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.output_dir, self.postfix = Path(output_dir), postfix

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Write the volumes; the items stay as they are.

        Raises:
            ValueError: If a volume has no name or affine, or holds NaN.
        """
        for key in self.key_iterator(data):
            volume = data[key]
            if not isinstance(volume, MetaTensor) or ImageMetaKey.FILENAME_OR_OBJ not in volume.meta:
                raise ValueError(f"{key!r} has no affine and name to be saved with: put UnitToHUd before SaveCTd")
            name = Path(str(volume.meta[ImageMetaKey.FILENAME_OR_OBJ])).name.removesuffix(".gz").removesuffix(".nii")
            name = f"{name}_{self.postfix}" if self.postfix else name
            hu = volume.as_tensor().detach().cpu().float().movedim(0, -1).numpy()
            hu = hu[..., 0] if hu.shape[-1] == 1 else hu
            if not np.isfinite(hu).all():
                raise ValueError(f"the reconstruction of {name} holds values that are not finite; nothing was written")
            save_nifti(hu, volume.affine.double().numpy(), self.output_dir / f"{name}.nii.gz")
        return dict(data)


def save_nifti(values: np.ndarray, affine: np.ndarray, path: Path) -> None:
    """Write a volume in mm, to a temporary name first; folders are made if need be.

    Args:
        values: Numbers (X, Y, Z) or (X, Y, Z, C).
        affine: From voxel index to world mm in RAS.
        path: Where to write, ending in .nii.gz or .nii.
    """
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    nibabel.save(image, partial)
    partial.replace(path)
