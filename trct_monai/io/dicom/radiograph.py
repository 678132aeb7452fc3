"""DICOM radiographs: CR, DX and RF images as numbers that grow with attenuation."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trct_monai.io.dicom.header import header_numbers, header_rescale, header_text, last_line

VIEW_POSITIONS = {"PA": "pa", "AP": "pa", "LL": "lat", "RL": "lat", "LAT": "lat"}
"""The library's view of a ViewPosition. LLD and RLD have none: they are frontal views in lateral decubitus."""


OPPOSITE = ("AP", "RL")
"""ViewPositions whose source and detector are on the other side."""


@dataclass(frozen=True)
class DicomRadiograph:
    """A CR, DX or RF image.

    Attributes:
        values: Values (rows, columns) from 0 on that grow with attenuation, in the library's orientation where the
            header has PatientOrientation.
        top: Their greatest possible value.
        view_position: ViewPosition of the header; empty if it has none.
        pixel_spacing: Height and width of a pixel on the detector in mm; None if the header has none.
    """

    values: np.ndarray
    top: float
    view_position: str
    pixel_spacing: tuple[float, float] | None


def read_dicom_radiograph(path: Path, turn: bool = True) -> DicomRadiograph:
    """A CR, DX or RF image.

    Bright pixels stand for attenuation: MONOCHROME1, which shows large values dark, is inverted. Pixels proportional to
    the exposure (PixelIntensityRelationship LIN, such as in FOR PROCESSING images) are replaced by their logarithm. No
    header gives the gain and the offset from there to line integrals. An image with PatientOrientation is flipped and
    turned so that rows run to the patient's left or back, and columns to the feet.

    Args:
        path: A DICOM file with one frame of grey pixels.
        turn: Whether to apply PatientOrientation.

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
    slope, intercept = header_rescale(header)  # which ITK has applied
    signed = (header_numbers(header, "0028|0103") or [0.0])[0] == 1
    values = (pixels.squeeze().astype(np.float64) - intercept) / slope + ((top + 1) / 2 if signed else 0.0)
    if values.min() < -0.5 or values.max() > top + 0.5:
        raise ValueError(
            f"pixels from {values.min():g} to {values.max():g} do not fit the header's 0 to {top:g}; write it as PNG"
        )
    if header_text(header, "0028|1040").upper() == "LIN":
        stored = top - values if colours == "MONOCHROME1" else values  # ITK has turned MONOCHROME1 round
        exposure = stored if (header_numbers(header, "0028|1041") or [1.0])[0] > 0 else top - stored
        values = top * (1 - np.log1p(exposure) / np.log1p(top))
    spacing = header_numbers(header, "0018|1164") or header_numbers(header, "0028|0030")
    patient_orientation = header_text(header, "0020|0020").upper() if turn else ""
    along_rows, along_columns = (patient_orientation.split("\\") + ["", ""])[:2]
    if along_rows[:1] in ("H", "F") and along_columns[:1] in tuple("LRAP"):
        values, spacing = values.T, spacing[::-1]
        along_rows, along_columns = along_columns, along_rows
    values = values[:, ::-1] if along_rows[:1] in ("R", "A") else values
    values = values[::-1] if along_columns[:1] == "H" else values
    known = len(spacing) == 2 and min(spacing) > 0
    return DicomRadiograph(
        np.ascontiguousarray(values),
        top,
        header_text(header, "0018|5101").upper(),
        (spacing[0], spacing[1]) if known else None,
    )
