"""X2CT's ct_xray_data.h5: a CT and its two radiographs in one file."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from torch import Tensor

from trct_monai.io.limits import check_bytes
from trct_monai.io.nifti import as_numbers

X2CT_OFFSET = 1024.0
"""X2CT's files store HU + 1024."""


def read_x2ct_radiographs(path: Path) -> dict[str, Tensor]:
    """The two pictures of an X2CT file (H, W): ``xray1`` is the frontal one, ``xray2`` the lateral one."""
    import h5py

    with h5py.File(path, "r") as file:
        pictures = {view: _numbers(file, key).squeeze() for view, key in (("pa", "xray1"), ("lat", "xray2"))}
    for view, picture in pictures.items():
        if picture.ndim != 2 or not np.isfinite(picture).all():
            raise ValueError(
                f"{path}: the {view} radiograph has the shape {picture.shape} or values that are not finite"
            )
    return {view: torch.from_numpy(picture.astype(np.float32)) for view, picture in pictures.items()}


def read_x2ct(path: Path, axes: str, raw: bool = False) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    """X2CT's array with the affine that its size, its spacing and the named axes give; centred on the origin.

    Args:
        path: The file.
        axes: Where its axes point.
        raw: Give the numbers as they are stored, and not HU where they are `X2CT_OFFSET` more.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in ("ct", "xray1", "xray2") if key not in file]
            if missing:
                raise ValueError(f"{path}: not X2CT's layout, {', '.join(missing)} missing")
            numbers = _numbers(file, "ct")
            original = _numbers(file, "ori_size").astype(float) if "ori_size" in file else np.array(320.0)
            spacing = _numbers(file, "spacing").astype(float) if "spacing" in file else np.array(1.0)
        extent = np.broadcast_to((original * spacing).squeeze(), 3)
    except (OSError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path}: damaged HDF5 ({' '.join(str(error).split())})") from error
    if numbers.ndim != 3:
        raise ValueError(f"{path}: a CT has three dimensions, got shape {numbers.shape}")
    sides = extent / np.array(numbers.shape)
    # axcodes2ornt names where each axis points; its inverse is the affine, up to the place.
    orientation = nibabel.orientations.axcodes2ornt(axes)
    if np.isnan(orientation).any() or len(orientation) != 3:
        raise ValueError(f"h5_axes must name where three axes point, such as SPL, got {axes!r}")
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(orientation):
        affine[int(world), axis] = sign * sides[axis]
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(numbers.shape) - 1) / 2)
    volume = torch.from_numpy(as_numbers(numbers, path))
    stored_offset = not raw and volume.numel() > 0 and float(volume.min()) > -100 and float(volume.max()) > 300
    header = {"axes": axes, "stored_value": "HU + 1024" if stored_offset else "HU"}
    return volume.float() - X2CT_OFFSET if stored_offset else volume, affine, header


def _numbers(file: Any, key: str) -> np.ndarray:
    """An array of the file itself: HDF5 may name one of another file, any file's bytes, or more than is there.

    Raises:
        ValueError: If it does.
    """
    import h5py

    if not isinstance(file.get(key, getlink=True), h5py.HardLink) or not isinstance(file[key], h5py.Dataset):
        raise ValueError(f"{file.filename}: {key} is no array of this file, but a link or a group")
    data = file[key]
    if data.external or data.is_virtual:
        raise ValueError(f"{file.filename}: {key} lies in another file; copy its numbers into this one")
    check_bytes(data.size * data.dtype.itemsize, f"{file.filename}: {key}")
    return np.asarray(data)
