"""One CT from a file or a series of any format, checked at the door: what comes out is a volume in HU."""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from torch import Tensor

from trct_monai.data.dicom import LPS_TO_RAS, read_series
from trct_monai.data.sources import Source

X2CT_OFFSET = 1024.0
"""X2CT's files store HU + 1024."""

MIN_SHARE = 0.01
"""Least share of the voxels that is air, and that is soft tissue, in anything that may be the CT of a trunk."""

SAMPLES = 2**20


@dataclass(frozen=True)
class CT:
    """One CT as it was read.

    Attributes:
        ct_hu: CT numbers (1, X, Y, Z).
        affine: From voxel index to world mm in RAS (float64).
        spacing: Voxel sides in mm in the order of the file's axes.
        header: What is worth keeping of the file's header.
    """

    ct_hu: Tensor
    affine: Tensor
    spacing: tuple[float, ...]
    header: dict[str, Any]


def read_ct(source: Source, h5_axes: str = "SPL") -> CT:
    """The CT of a source, in HU.

    Args:
        source: Where it lies.
        h5_axes: Where the axes of X2CT's array point, one letter for each.

    Raises:
        ValueError: If it is damaged, not three-dimensional, empty, constant, not finite, or no CT. The line names
            the file.
    """
    if source.format == "DICOM":
        volume, affine, header = read_series(source.files)
    elif source.format == "NIfTI":
        volume, affine, header = _read_nifti(source.path)
    elif source.format == "HDF5":
        volume, affine, header = _read_x2ct(source.path, h5_axes)
    else:
        volume, affine, header = _read_itk(source.path)
    check_ct(volume, affine, source.path)
    spacing = tuple(float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
    return CT(volume[None], torch.from_numpy(affine), spacing, header)


def read_x2ct_radiographs(path: Path) -> dict[str, Tensor]:
    """The two pictures of an X2CT file (H, W): ``xray1`` is the frontal one, ``xray2`` the lateral one."""
    import h5py

    with h5py.File(path, "r") as file:
        pictures = {view: np.asarray(file[key]).squeeze() for view, key in (("pa", "xray1"), ("lat", "xray2"))}
    for view, picture in pictures.items():
        if picture.ndim != 2 or not np.isfinite(picture).all():
            raise ValueError(
                f"{path}: the {view} radiograph has the shape {picture.shape} or values that are not finite"
            )
    return {view: torch.from_numpy(picture.astype(np.float32)) for view, picture in pictures.items()}


def check_ct(volume: Tensor, affine: np.ndarray, path: Path) -> None:
    """Refuse what cannot be the CT of a trunk.

    Args:
        volume: Values (X, Y, Z).
        affine: From voxel index to world mm.
        path: The file, for the message.

    Raises:
        ValueError: With one line that names the file and what is wrong.
    """
    if volume.numel() == 0:
        raise ValueError(f"{path}: empty, shape {tuple(volume.shape)}")
    if volume.ndim != 3:
        raise ValueError(f"{path}: a CT has three dimensions, got shape {tuple(volume.shape)}")
    if min(volume.shape) < 8:
        raise ValueError(f"{path}: too thin for a volume, shape {tuple(volume.shape)}")
    if volume.is_floating_point() and not bool(torch.isfinite(volume).all()):
        raise ValueError(f"{path}: holds values that are not finite (NaN or infinite)")
    low, high = (float(value) for value in volume.aminmax())
    if low == high:
        raise ValueError(f"{path}: all values are {low:g}")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() < 0.05 or spacing.max() > 30:
        raise ValueError(f"{path}: voxel sides of {np.round(spacing, 4).tolist()} mm; is the unit mm?")
    step = max(1, round((volume.numel() / SAMPLES) ** (1 / 3)))
    sample = volume[::step, ::step, ::step].float()
    air, tissue = float((sample < -300).float().mean()), float(((sample > -200) & (sample < 400)).float().mean())
    if air < MIN_SHARE or tissue < MIN_SHARE:
        hint = "; HU + 1024 or MR?" if low >= 0 else ""
        raise ValueError(
            f"{path}: no CT in HU, values {low:g} to {high:g} with {air:.1%} air and {tissue:.1%} soft tissue{hint}"
        )


def _read_nifti(path: Path) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    try:
        image = _load_packed(path) if path.name.lower().endswith(".gz") else nibabel.load(path)
        numbers = np.asanyarray(image.dataobj)
    except (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError) as error:
        raise ValueError(f"{path}: damaged NIfTI ({error})") from error
    numbers = numbers.reshape(numbers.shape[:3]) if numbers.ndim > 3 and set(numbers.shape[3:]) == {1} else numbers
    if image.header["qform_code"] == 0 and image.header["sform_code"] == 0:
        raise ValueError(f"{path}: the header does not say where right and left are (qform and sform codes are 0)")
    return _as_tensor(numbers, path), np.asarray(image.affine, dtype=float), {}


def _load_packed(path: Path) -> Any:
    """A compressed NIfTI, unpacked to the end first: only there does gzip's checksum tell of damage."""
    with gzip.open(path) as file:
        content = file.read()
    header_sizes = [int.from_bytes(content[:4], "little"), int.from_bytes(content[:4], "big")]
    return (nibabel.Nifti2Image if 540 in header_sizes else nibabel.Nifti1Image).from_bytes(content)


def _read_itk(path: Path) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    import itk

    try:
        image = itk.imread(str(path))
    except (RuntimeError, TypeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"{path}: damaged file ({lines[-1] if lines else type(error).__name__})") from error
    if image.GetImageDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = [*image.GetLargestPossibleRegion().GetSize()]
        raise ValueError(f"{path}: a CT has three dimensions and one value a voxel, got shape {shape}")
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(np.array(image.GetSpacing()))
    affine[:3, 3] = np.array(image.GetOrigin())
    return _as_tensor(itk.array_from_image(image).transpose(2, 1, 0), path), LPS_TO_RAS @ affine, {}


def _read_x2ct(path: Path, axes: str) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    """X2CT's array with the affine that its size, its spacing and the named axes give; centred on the origin."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in ("ct", "xray1", "xray2") if key not in file]
            if missing:
                raise ValueError(f"{path}: not X2CT's layout, {', '.join(missing)} missing")
            numbers = np.asarray(file["ct"])
            original = np.asarray(file["ori_size"], dtype=float) if "ori_size" in file else np.array(320.0)
            spacing = np.asarray(file["spacing"], dtype=float) if "spacing" in file else np.array(1.0)
    except OSError as error:
        raise ValueError(f"{path}: damaged HDF5 ({error})") from error
    if numbers.ndim != 3:
        raise ValueError(f"{path}: a CT has three dimensions, got shape {numbers.shape}")
    extent = np.broadcast_to((original * spacing).squeeze(), 3)
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
    volume = _as_tensor(numbers, path)
    stored_offset = volume.numel() > 0 and float(volume.min()) > -100
    header = {"axes": axes, "stored_value": "HU + 1024" if stored_offset else "HU"}
    return volume.float() - X2CT_OFFSET if stored_offset else volume, affine, header


def _as_tensor(numbers: np.ndarray, path: Path) -> Tensor:
    if numbers.dtype.kind not in "iuf":
        raise ValueError(f"{path}: the values are of type {numbers.dtype}, not one number a voxel")
    small = numbers.dtype.kind in "iu" and numbers.dtype.itemsize <= 2 and numbers.dtype != np.uint16
    dtype = np.int16 if small else np.float32
    return torch.from_numpy(np.array(numbers, dtype=dtype))
