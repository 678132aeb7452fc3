"""DICOM series: the series of a folder, and one series as a volume. ITK and GDCM do the reading."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trct_monai.intensity import HU_INT16
from trct_monai.io.dicom.header import header_numbers, header_rescale, header_text, last_line

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

SPACING_TOLERANCE = 0.1
"""Share of the slice distance by which a gap between two slices may differ from it."""


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder.

    Attributes:
        files: Its files, sorted along the slice normal.
        uid: SeriesInstanceUID.
        patient_id: PatientID; empty if it was removed.
        reason: Why the series is no CT volume; empty if it is one.
    """

    files: tuple[Path, ...]
    uid: str
    patient_id: str
    reason: str

    @property
    def digest(self) -> str:
        """Short name of the series, the same in every folder."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:6]


def find_series(folder: Path, min_slices: int) -> list[Series]:
    """The series of one folder, not of its subfolders.

    Args:
        folder: The folder.
        min_slices: A series of fewer files is no volume.
    """
    import itk

    names = itk.GDCMSeriesFileNames.New()
    names.SetUseSeriesDetails(True)  # a localizer under the same UID has another size or thickness
    names.SetDirectory(str(folder))
    return [_describe([Path(file) for file in names.GetFileNames(uid)], min_slices) for uid in names.GetSeriesUIDs()]


def read_series(files: Sequence[Path]) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    """A series as a volume.

    Args:
        files: Its files, sorted along the slice normal.

    Returns:
        HU (X, Y, Z), int16 where all are whole numbers that fit and float32 otherwise; the affine from voxel index to
        world mm in RAS (gantry tilt included); and the SeriesInstanceUID as ``series_uid``.

    Raises:
        ValueError: If a file is damaged, slices are missing or doubled, or RescaleSlope is 0.
    """
    import itk

    reader = _read(files, itk.SS)
    headers = list(reader.GetMetaDataDictionaryArray())
    volume = torch.from_numpy(itk.array_from_image(reader.GetOutput()))
    if not _is_exact(volume, headers, files):
        volume = torch.from_numpy(itk.array_from_image(_read(files, itk.F).GetOutput()))
        whole = volume.clamp(*HU_INT16).short()
        volume = whole if bool((whole == volume).all()) else volume
    image = reader.GetOutput()
    direction = itk.array_from_matrix(image.GetDirection())
    positions = np.array([header_numbers(header, "0020|0032") for header in headers])
    _check_positions(positions, direction, files)
    affine = np.eye(4)
    affine[:3, :3] = direction @ np.diag(np.array(image.GetSpacing()))
    affine[:3, 3] = np.array(image.GetOrigin())
    if len(positions) > 1:
        affine[:3, 2] = (positions[-1] - positions[0]) / (len(positions) - 1)
    return volume.permute(2, 1, 0), LPS_TO_RAS @ affine, {"series_uid": header_text(headers[0], "0020|000e")}


def _read(files: Sequence[Path], pixel_type: Any) -> Any:
    """ITK's reader, which has read the rescaled values and converted them to a type as C does it.

    It owns the headers: they do not outlive it.
    """
    import itk

    reader = itk.ImageSeriesReader[itk.Image[pixel_type, 3]].New(
        FileNames=[str(file) for file in files], ImageIO=itk.GDCMImageIO.New(), ForceOrthogonalDirection=False
    )
    reader.SetMetaDataDictionaryArrayUpdate(True)
    try:
        reader.Update()
    except RuntimeError as error:
        raise ValueError(f"{files[0].parent}: damaged DICOM series ({last_line(error)})") from error
    return reader


def _is_exact(volume: Tensor, headers: Sequence[Any], files: Sequence[Path]) -> bool:
    """Whether conversion to int16 has changed no value: none had a fraction to lose, and none was beyond the range.

    Values that the pixels could hold beyond the range would have come out at its other end, 65536 away.
    """
    low, high = (int(value) for value in volume.aminmax())
    for header, file in zip(headers, files):
        try:
            slope, intercept = header_rescale(header)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        bits = (header_numbers(header, "0028|0101") or [16.0])[0]
        signed = (header_numbers(header, "0028|0103") or [0.0])[0] == 1
        least = -(2 ** (bits - 1)) if signed else 0.0
        ends = sorted(slope * pixel + intercept for pixel in (least, least + 2**bits - 1))
        is_whole = slope.is_integer() and intercept.is_integer()
        beyond = (ends[0] < HU_INT16[0] and high >= ends[0] + 65536) or (
            ends[1] > HU_INT16[1] and low <= ends[1] - 65536
        )
        if not is_whole or beyond:
            return False
    return True


def _describe(files: list[Path], min_slices: int) -> Series:
    import itk

    image_io = itk.GDCMImageIO.New()
    image_io.SetFileName(str(files[0]))
    try:
        image_io.ReadImageInformation()
    except RuntimeError as error:
        return Series(tuple(files), str(files[0]), "", f"damaged ({last_line(error)})")
    header = image_io.GetMetaDataDictionary()
    modality, image_type = header_text(header, "0008|0060"), header_text(header, "0008|0008").upper()
    if "LOCALIZER" in image_type or "SCOUT" in image_type:
        reason = "localizer"
    elif modality != "CT":
        reason = f"modality {modality or 'unknown'}, not CT"
    elif len(files) < min_slices:
        reason = f"short series, {len(files)} slices of at least {min_slices}"
    else:
        reason = ""
    return Series(
        tuple(files), header_text(header, "0020|000e") or str(files[0].parent), header_text(header, "0010|0020"), reason
    )


def _check_positions(positions: np.ndarray, direction: np.ndarray, files: Sequence[Path]) -> None:
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"{files[0].parent}: the slices have no ImagePositionPatient")
    normal = np.cross(direction[:, 0], direction[:, 1])
    gaps = np.abs(np.diff(positions @ normal))
    usual = float(np.median(gaps))
    if usual <= 0 or gaps.min() < SPACING_TOLERANCE * usual:
        raise ValueError(f"{files[int(gaps.argmin()) + 1]}: two slices of the series at the same place")
    if np.abs(gaps / usual - 1).max() > SPACING_TOLERANCE:
        worst = int(np.abs(gaps / usual - 1).argmax())
        raise ValueError(
            f"{files[worst]}: slices are missing after this one, the gap is {gaps[worst]:.2f} mm instead of "
            f"{usual:.2f} mm"
        )
