"""NIfTI files: volumes in RAS order with their place in the world; one reader, one writer.

Whatever the order of a file's axes, `read_nifti` gives them pointing right, anterior, superior, with the affine that
belongs to that order. What `write_nifti` writes is in mm, with equal sform and qform, and has the same bytes whenever
it is written.
"""

import gzip
import io
import os
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel import orientations
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from trct_monai.intensity import HU_INT16
from trct_monai.io.files import write_bytes
from trct_monai.io.limits import check_bytes

DAMAGED = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError)
"""What nibabel raises on a damaged file."""


UNITS = {"meter": 1000.0, "micron": 0.001}
"""Of a header, in mm; any other is mm."""


@dataclass(frozen=True)
class Volume:
    """A volume as it was read.

    Attributes:
        values: Numbers (X, Y, Z), or (X, Y, Z, C), axes in RAS order: int16 if the file has small integers, else
            float32.
        affine: From voxel index to world mm in RAS (4, 4), float64.
        stored: Where the axes of the file's array point, as `nibabel.orientations.io_orientation` says it.
    """

    values: np.ndarray
    affine: np.ndarray
    stored: np.ndarray


def read_nifti(path: str | os.PathLike[str]) -> Volume:
    """A NIfTI volume; axes of length one at the end are dropped.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged (of a compressed one the checksum is verified), does not say where right and left
            are, or holds no numbers.
    """
    image = _load(Path(path))
    try:
        numbers = np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise ValueError(f"{path}: damaged NIfTI ({' '.join(str(error).split())})") from error
    while numbers.ndim > 3 and numbers.shape[-1] == 1:
        numbers = numbers[..., 0]
    affine = _affine(image, path)
    stored = _orientation(affine, path)
    values = numbers if numbers.ndim < 3 else orientations.apply_orientation(numbers, stored)
    matrix = affine if numbers.ndim < 3 else affine @ orientations.inv_ornt_aff(stored, numbers.shape[:3])
    return Volume(as_numbers(values, path), matrix, stored)


def read_nifti_grid(path: str | os.PathLike[str]) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape (X, Y, Z) and affine of a volume with its axes in RAS order, from the header alone.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the header is damaged, of no volume, or does not say where right and left are.
    """
    image = _load(Path(path), header_only=True)
    if len(image.shape) < 3:
        raise ValueError(f"{path}: a CT has three dimensions, got shape {image.shape}")
    affine, shape = _affine(image, path), tuple(int(n) for n in image.shape[:3])
    stored = _orientation(affine, path)
    order = np.argsort(stored[:, 0])
    return tuple(shape[axis] for axis in order), affine @ orientations.inv_ornt_aff(stored, shape)


def read_raw(path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers of a NIfTI as they are stored, such as the (columns, rows) of a picture.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged.
    """
    image = _load(Path(path), oriented=False)
    try:
        return np.asanyarray(image.dataobj)
    except DAMAGED as error:
        raise ValueError(f"{path}: damaged NIfTI ({' '.join(str(error).split())})") from error


def read_volume(path: str | os.PathLike[str]) -> MetaTensor:
    """A CT in HU from a NIfTI file: float32 (1, X, Y, Z), axes in RAS order, with its affine.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read, is no single volume, or holds a value that is not finite.
    """
    volume = read_nifti(path)
    if volume.values.ndim != 3:
        raise ValueError(f"{path}: expected one volume (X, Y, Z) in HU, got shape {volume.values.shape}")
    values = volume.values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"{path}: the volume holds values that are not finite (NaN or infinite)")
    return MetaTensor(torch.from_numpy(values)[None], affine=torch.from_numpy(volume.affine))


def read_slices(path: str | os.PathLike[str], first: int, last: int) -> np.ndarray:
    """Axial slices first to last, both included, of a NIfTI that `write_nifti` wrote: (X, Y, S), nothing else is read.

    Args:
        path: A file that is not compressed.
        first: Index of the first slice.
        last: Index of the last one.
    """
    return np.asarray(_load(Path(path), header_only=True).dataobj[..., first : last + 1])


def write_nifti(path: str | os.PathLike[str], values: np.ndarray, affine: np.ndarray) -> None:
    """Write a volume, whole or not at all.

    Args:
        path: Where to write, ending in .nii.gz (compressed) or .nii; folders are made if need be.
        values: Numbers (X, Y, Z) or (X, Y, Z, C).
        affine: From voxel index to world mm in RAS.
    """
    image = nibabel.Nifti1Image(values, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    content = image.to_bytes()
    if str(path).endswith(".gz"):
        buffer = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=4, mtime=0) as file:
            file.write(content)
        content = buffer.getvalue()
    write_bytes(path, content)


def write_hu(path: str | os.PathLike[str], hu: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Write HU as every CT is stored here: rounded to int16.

    Args:
        path: As in `write_nifti`.
        hu: HU (X, Y, Z), or (X, Y, Z, C) such as quantiles.
        affine: As in `write_nifti`.

    Returns:
        The numbers that were written.

    Raises:
        ValueError: If a value is not finite, or beyond 16 bits; nothing is written.
    """
    if not np.isfinite(hu).all():
        raise ValueError(f"{path}: the volume holds values that are not finite (NaN or infinite); nothing was written")
    low, high = float(hu.min(initial=0)), float(hu.max(initial=0))
    if low < HU_INT16[0] or high > HU_INT16[1]:
        raise ValueError(f"{path}: HU from {low:g} to {high:g} do not fit 16 bits; nothing was written")
    numbers = np.round(hu).astype(np.int16)
    write_nifti(path, numbers, affine)
    return numbers


def as_numbers(numbers: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    """A file's numbers as int16 if all of its type fit, else as float32.

    Raises:
        ValueError: If they are no real numbers.
    """
    if numbers.dtype.kind not in "iuf":
        raise ValueError(f"{path}: the values are of type {numbers.dtype}, not one number a voxel")
    small = numbers.dtype.kind in "iu" and numbers.dtype.itemsize <= 2 and numbers.dtype != np.uint16
    return np.ascontiguousarray(numbers, dtype=np.int16 if small else np.float32)


def _load(path: Path, header_only: bool = False, oriented: bool = True) -> Any:
    """A NIfTI image. A compressed one is unpacked to the end: only there does gzip's checksum tell of damage."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if header_only or not path.name.lower().endswith(".gz"):
            image = nibabel.load(path)
            length = int(image.dataobj.offset) + _bytes_of(image.header)
            check_bytes(length, "its voxels")
            if not path.name.lower().endswith(".gz"):
                _check_length(Path(image.file_map["image"].filename).stat().st_size, length)
        else:
            with gzip.open(path) as file:
                head = file.read(540)
                sizes = [int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")]
                kind = nibabel.Nifti2Image if 540 in sizes else nibabel.Nifti1Image
                stated = kind.header_class(head[: 540 if 540 in sizes else 348])
                length = int(stated["vox_offset"]) + _bytes_of(stated)
                check_bytes(length, "its voxels")
                file.seek(0)
                content = file.read(length + 1)
                _check_length(len(content), length)
                file.read(1)  # at the end the checksum is verified
            image = kind.from_bytes(content)
        # Analyze, which is older than NIfTI, has neither.
        codes = [image.header[key] for key in ("qform_code", "sform_code") if key in image.header.keys()]
    except (*DAMAGED, KeyError, OverflowError) as error:
        raise ValueError(f"{path}: damaged NIfTI ({' '.join(str(error).split())})") from error
    if oriented and not any(codes):
        raise ValueError(f"{path}: the header does not say where right and left are (qform and sform codes are 0)")
    return image


def _check_length(found: int, stated: int) -> None:
    """Refuse a file that is cut, or in which bytes were put before the voxels."""
    if found != stated:
        more = "more" if found > stated else "fewer"
        raise ValueError(
            f"its header states {stated} bytes, and there are {more}{f', {found}' if found < stated else ''}"
        )


def _bytes_of(header: Any) -> int:
    """Bytes of the voxels that a header states."""
    shape = [int(n) for n in header.get_data_shape()]
    if min(shape, default=1) < 0:
        raise ValueError(f"its header states the shape {shape}")
    return prod(shape) * int(header.get_data_dtype().itemsize)


def _affine(image: Any, path: str | os.PathLike[str]) -> np.ndarray:
    """The affine of an image, on which sform and qform agree if both are there: to half a voxel at all corners."""
    try:
        qform, sform = image.get_qform(coded=True)[0], image.get_sform(coded=True)[0]
    except DAMAGED as error:
        raise ValueError(f"{path}: damaged NIfTI ({' '.join(str(error).split())})") from error
    if not all(np.isfinite(form).all() for form in (qform, sform) if form is not None):
        raise ValueError(f"{path}: damaged NIfTI (sform or qform hold values that are not finite)")
    mm = UNITS.get(image.header.get_xyzt_units()[0], 1.0) if hasattr(image.header, "get_xyzt_units") else 1.0
    affine = np.diag([mm, mm, mm, 1.0]) @ np.asarray(image.affine, dtype=np.float64)
    if qform is not None and sform is not None and np.isfinite(affine).all():
        corners = np.array(
            [[*np.multiply(corner, np.array(image.shape[:3]) - 1), 1.0] for corner in np.ndindex(2, 2, 2)]
        )
        apart = mm * np.linalg.norm((corners @ (qform - sform).T)[:, :3], axis=1).max()
        sides = np.linalg.norm(affine[:3, :3], axis=0)
        if not apart <= 0.5 * sides.min():
            raise ValueError(
                f"{path}: sform and qform disagree, by {apart:.1f} mm: the axes point to "
                f"{''.join(map(str, nibabel.aff2axcodes(sform)))} and {''.join(map(str, nibabel.aff2axcodes(qform)))}; "
                "find out which is right, and write it into both"
            )
    return affine


def _orientation(affine: np.ndarray, path: str | os.PathLike[str]) -> np.ndarray:
    if not np.isfinite(affine).all():
        raise ValueError(f"{path}: the affine holds values that are not finite")
    orientation: np.ndarray = orientations.io_orientation(affine)
    if np.isnan(orientation).any():
        raise ValueError(f"{path}: the affine maps an axis of the volume to nothing; the file's header is broken")
    return orientation
