"""One CT from a file, a folder or a series of any format, checked at the door: what comes out is a volume in HU."""

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nibabel import orientations
from torch import Tensor

from trct_monai.io.dicom.header import is_dicom
from trct_monai.io.dicom.series import LPS_TO_RAS, find_series, read_series
from trct_monai.io.hounsfield import check_hounsfield
from trct_monai.io.limits import check_ct_size
from trct_monai.io.nifti import as_numbers, read_nifti, read_nifti_grid
from trct_monai.io.x2ct import read_x2ct
from trct_monai.resampling import to_ras

EXTENSIONS = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".hdr": "NIfTI",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".nrrd": "NRRD",
    ".nhdr": "NRRD",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
}
"""Formats of CT files by the end of their names."""

MAX_LINE, MAX_HEADER = 2**16, 2**24
"""Bytes of the longest line of a header, and of the longest header."""

NRRD_SPACES = {
    "right-anterior-superior", "ras", "left-anterior-superior", "las", "left-posterior-superior", "lps",
}  # fmt: skip
"""Values of NRRD's ``space`` that say where the axes of the world point."""

DICOM = "DICOM"

MIN_SLICES = 4
"""A series in a folder of one CT has at least so many slices."""


@dataclass(frozen=True)
class CT:
    """One CT as it was read.

    Attributes:
        ct_hu: CT numbers (1, X, Y, Z), axes in RAS order.
        affine: From voxel index to world mm in RAS (4, 4), float64.
        spacing: Voxel sides in mm.
        header: What is worth keeping of the file's header.
        stored: Where the axes of the file's array point, as `nibabel.orientations.io_orientation` says it.
    """

    ct_hu: Tensor
    affine: Tensor
    spacing: tuple[float, ...]
    header: dict[str, Any]
    stored: np.ndarray

    def as_stored(self, volume: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A volume on the CT's grid with its axes in the order of the CT's file, and the affine of that order.

        Args:
            volume: Values (X, Y, Z), axes in RAS order.
        """
        ras = np.array([[0, 1], [1, 1], [2, 1]])
        back = orientations.ornt_transform(ras, self.stored)
        affine = self.affine.numpy() @ orientations.inv_ornt_aff(back, volume.shape)
        return orientations.apply_orientation(volume, back), affine


def read_ct(
    path: str | os.PathLike[str],
    files: Sequence[Path] = (),
    h5_axes: str = "SPL",
    rescale: tuple[float, float] | None = None,
) -> CT:
    """A CT in HU.

    Args:
        path: A file of any of `EXTENSIONS`, or a folder with one DICOM series or one such file.
        files: The CT's files if they are known: one, or those of a series, sorted along its slices.
        h5_axes: Where the axes of X2CT's array point, one letter for each.
        rescale: Slope and intercept from the file's numbers to HU, for files that hold something else.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, not three-dimensional, empty, constant, not finite, no CT, or not in HU. The line
            names the file.
    """
    path = Path(path)
    if files:
        kind = EXTENSIONS.get(extension_of(files[0].name) or "", DICOM)
    else:
        kind, files = ct_files(path)
    for header_file in files if kind != DICOM else ():
        _check_detached(header_file)
    if kind == DICOM:
        volume, affine, header = read_series(files)
    elif kind == "NIfTI":
        check_ct_size(prod(read_nifti_grid(files[0])[0]), files[0])
        read = read_nifti(files[0])
        volume, affine, header = torch.from_numpy(read.values), read.affine, {}
    elif kind == "HDF5":
        volume, affine, header = read_x2ct(files[0], h5_axes, raw=rescale is not None)
    else:
        volume, affine, header = _read_itk(files[0])
    place = path if kind == DICOM else files[0]
    if rescale is not None:
        volume = volume.float() * rescale[0] + rescale[1]
    check_ct(volume, affine, place)
    stored = read.stored if kind == "NIfTI" else orientations.io_orientation(affine)
    if kind != "NIfTI":
        volume, affine = to_ras(volume, affine)
    spacing = tuple(float(side) for side in np.linalg.norm(affine[:3, :3], axis=0))
    return CT(volume[None], torch.from_numpy(affine), spacing, header, stored)


def ct_files(path: str | os.PathLike[str], min_slices: int = MIN_SLICES) -> tuple[str, list[Path]]:
    """Format and files of the one CT that a path is.

    Args:
        path: A file of any of `EXTENSIONS`, or a folder with one DICOM series or one such file.
        min_slices: Shorter DICOM series do not count.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is no CT, or holds several.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.is_dir():
        series = [one for one in find_series(path, min_slices) if not one.reason]
        inside = [file for file in sorted(path.iterdir()) if extension_of(file.name)]
        if len(series) + len(inside) != 1:
            raise ValueError(
                f"{path}: a folder must hold one DICOM series or one CT, this has {len(series)} and {len(inside)}"
            )
        return (DICOM, list(series[0].files)) if series else ct_files(inside[0])
    extension = extension_of(path.name)
    if extension is None and is_dicom(path):
        return DICOM, [path]  # an enhanced CT
    if extension is None:
        raise ValueError(f"{path}: no CT; known are {', '.join(EXTENSIONS)} and folders with a DICOM series")
    return EXTENSIONS[extension], [path]


def detached_files(path: Path) -> list[Path]:
    """The files that hold the voxels of a MetaImage (.mhd), NRRD (.nhdr) or NIfTI (.hdr) header; none for other files.

    Raises:
        FileNotFoundError: If the header is missing.
        ValueError: If it names a file outside of its folder.
    """
    if extension_of(path.name) == ".hdr":
        return [voxels] if (voxels := path.with_suffix(".img")).exists() else []
    if extension_of(path.name) not in (".mhd", ".nhdr"):
        return []
    lines = _header_of(path)[0]
    pattern = re.compile(r"(?:ElementDataFile\s*=|data ?file:)\s*(\S.*)", re.IGNORECASE)
    found = [(number, match[1].strip()) for number, line in enumerate(lines) if (match := pattern.match(line))]
    number, named = found[0] if found else (0, "LOCAL")
    if named.upper() == "LOCAL":
        return []
    names = [line.strip() for line in lines[number + 1 :] if line.strip()] if named.startswith("LIST") else [named]
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ValueError(f"{path}: its voxels, {outside[0]}, are outside of its folder; put them beside it")
    # A series of names, such as slice%03d.raw 1 40 1.
    globs = [re.sub(r"%\d*d", "*", name.split()[0]) if "%" in name else glob.escape(name) for name in names]
    return sorted(file for name in globs for file in path.parent.glob(name))


def extension_of(name: str) -> str | None:
    """The one of `EXTENSIONS` that a file's name ends with, the longest first."""
    lower = name.lower()
    return next((one for one in sorted(EXTENSIONS, key=len, reverse=True) if lower.endswith(one)), None)


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
    low, high = float(volume.amin()), float(volume.amax())  # an order faster than aminmax on integers
    if low == high:
        raise ValueError(f"{path}: all values are {low:g}")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() < 0.05 or spacing.max() > 30:
        raise ValueError(f"{path}: voxel sides of {np.round(spacing, 4).tolist()} mm; is the unit mm?")
    check_hounsfield(volume, path)


def _check_detached(path: Path) -> None:
    """Refuse a header whose voxels are in files that are not there; a pipe would be waited for."""
    if extension_of(path.name) in (".hdr", ".mhd", ".nhdr") and path.is_file():
        voxels = detached_files(path)
        absent = [file for file in voxels if not file.is_file()]
        is_alone = not voxels and "LOCAL" not in "".join(_header_of(path)[0]).upper()
        if absent or is_alone:
            name = absent[0] if absent else f"the file with its voxels, such as {path.with_suffix('.img').name},"
            raise ValueError(f"{path}: damaged, {name} is missing or no regular file")


def _check_length(path: Path, num_bytes: int) -> None:
    """Refuse a MetaImage or NRRD whose voxels are not compressed and have other bytes than the header states."""
    lines, start = _header_of(path)
    stated = "\n".join(lines).lower()
    if re.search(
        r"compresseddata\s*=\s*true|headersize|encoding:\s*(gz|bz|hex|txt|text|asc)|(byte|line) ?skip:", stated
    ):
        return
    voxels = detached_files(path)
    if not voxels and not start:
        return  # the header has no end that we know
    found = sum(file.stat().st_size for file in voxels) if voxels else path.stat().st_size - start
    if found != num_bytes:
        raise ValueError(f"{path}: damaged, its header states {num_bytes} bytes of voxels, and there are {found}")


def _header_of(path: Path) -> tuple[list[str], int]:
    """The lines of a MetaImage's or NRRD's header, and where its voxels begin; 0 if they are in another file."""
    lines: list[str] = []
    with open(path, "rb") as file:
        while (line := file.readline(MAX_LINE)) and file.tell() < MAX_HEADER:
            lines.append(line.decode("latin-1").strip())
            is_nrrd = lines[0].startswith("NRRD")
            if not is_nrrd and "=" not in lines[0]:
                break  # neither
            if (is_nrrd and not lines[-1]) or re.fullmatch(r"ElementDataFile\s*=\s*LOCAL", lines[-1]):
                return lines, file.tell()
    return lines, 0


def _check_orientation(path: Path) -> None:
    """Refuse a MetaImage or NRRD whose header does not say where left is; ITK takes it for LPS."""
    lines = _header_of(path)[0]
    if not lines or ("=" not in lines[0] and not lines[0].startswith("NRRD")):
        return  # neither: ITK says what is wrong
    is_nrrd = lines[0].startswith("NRRD")
    stated = {
        key.strip().lower(): value.strip()
        for key, separator, value in (line.partition(":" if is_nrrd else "=") for line in lines)
        if separator
    }
    if not is_nrrd:
        lacking = "" if {"transformmatrix", "rotation", "orientation"} & set(stated) else "TransformMatrix"
    else:
        known = stated.get("space", "").lower() in NRRD_SPACES
        lacking = "space directions" if "space directions" not in stated else "" if known else "space"
    if lacking:
        raise ValueError(
            f"{path}: the header does not say where right and left are ({lacking} is missing); write it anew with its "
            "orientation"
        )


def _read_itk(path: Path) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    import itk

    _check_orientation(path)
    try:
        if reader := itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode):
            reader.SetFileName(str(path))
            reader.ReadImageInformation()
            check_ct_size(int(reader.GetImageSizeInPixels()), path)
        image = itk.imread(str(path))
    except (RuntimeError, TypeError, KeyError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"{path}: damaged file ({lines[-1] if lines else type(error).__name__})") from error
    if image.GetImageDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = [*image.GetLargestPossibleRegion().GetSize()]
        raise ValueError(f"{path}: a CT has three dimensions and one value a voxel, got shape {shape}")
    numbers = itk.array_from_image(image)
    _check_length(path, numbers.nbytes)
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) @ np.diag(np.array(image.GetSpacing()))
    affine[:3, 3] = np.array(image.GetOrigin())
    return torch.from_numpy(as_numbers(numbers.transpose(2, 1, 0), path)), LPS_TO_RAS @ affine, {}
