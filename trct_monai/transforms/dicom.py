"""DICOM radiographs, and what every reader of DICOM needs; ITK and GDCM do the reading."""

from pathlib import Path
from typing import Any

import numpy as np

RESCALE = (("0028|1053", 1.0), ("0028|1052", 0.0))
"""Slope and intercept, which ITK applies, and what they are where they are missing."""


def is_dicom(path: Path) -> bool:
    """Whether a file bears the mark of DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom_radiograph(path: Path) -> tuple[np.ndarray, float]:
    """A CR, DX or RF image as numbers that grow with attenuation, and their greatest possible value.

    What is shown bright attenuates: MONOCHROME1, which shows large numbers dark, is turned round. Pixels proportional
    to the exposure (PixelIntensityRelationship LIN, such as in FOR PROCESSING images) go through the logarithm. What
    gain and offset lead from there to line integrals no header says.

    Args:
        path: A DICOM file with one frame of grey pixels.

    Returns:
        Numbers (rows, columns) from 0 on, and their greatest possible value.

    Raises:
        ValueError: If it cannot be read, is no single grey image, or is a CT slice.
    """
    import itk

    image_io = itk.GDCMImageIO.New()
    image_io.SetFileName(str(path))
    try:
        image_io.ReadImageInformation()
        pixels = itk.array_from_image(itk.imread(str(path), imageio=image_io))
    except RuntimeError as error:
        raise ValueError(f"not a DICOM file that can be read ({last_line(error)})") from error
    header = image_io.GetMetaDataDictionary()
    colours, modality = header_text(header, "0028|0004"), header_text(header, "0008|0060")
    if not colours.startswith("MONOCHROME") or modality in ("CT", "MR", "PT") or pixels.squeeze().ndim != 2:
        raise ValueError(
            f"expected one grey radiograph (CR, DX, RF), got {modality or 'no modality'}, {colours or 'no colours'}, "
            f"shape {pixels.squeeze().shape}"
        )
    top = 2.0 ** float((header_numbers(header, "0028|0101") or [16.0])[0]) - 1
    slope, intercept = ((header_numbers(header, tag) or [neutral])[0] for tag, neutral in RESCALE)
    signed = (header_numbers(header, "0028|0103") or [0.0])[0] == 1
    values = (pixels.squeeze().astype(np.float64) - intercept) / slope + ((top + 1) / 2 if signed else 0.0)
    if values.min() < -0.5 or values.max() > top + 0.5:
        raise ValueError(
            f"pixels from {values.min():g} to {values.max():g} do not fit the header's 0 to {top:g}; write it as PNG"
        )
    if header_text(header, "0028|1040").upper() == "LIN":
        stored = top - values if colours == "MONOCHROME1" else values  # ITK has turned MONOCHROME1 round
        exposure = stored if (header_numbers(header, "0028|1041") or [1.0])[0] > 0 else top - stored
        return top * (1 - np.log1p(exposure) / np.log1p(top)), top
    return values, top


def header_text(header: Any, tag: str) -> str:
    return str(header[tag]).strip().rstrip("\x00") if header.HasKey(tag) else ""


def header_numbers(header: Any, tag: str) -> list[float]:
    text = header_text(header, tag)
    return [float(part) for part in text.split("\\")] if text else []


def last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
