"""DICOM radiographs in, CT series out, and what every reader of DICOM needs; ITK and GDCM do the work."""

import hashlib
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trct_monai import __version__

RESCALE = (("0028|1053", 1.0), ("0028|1052", 0.0))
"""Slope and intercept, which ITK applies, and what they are where they are missing."""

STUDY = {
    "StudyDate": "0008|0020",
    "StudyTime": "0008|0030",
    "AccessionNumber": "0008|0050",
    "ReferringPhysicianName": "0008|0090",
    "StudyDescription": "0008|1030",
    "PatientName": "0010|0010",
    "PatientID": "0010|0020",
    "PatientBirthDate": "0010|0030",
    "PatientSex": "0010|0040",
    "StudyInstanceUID": "0020|000d",
    "StudyID": "0020|0010",
}
"""What a series shares with the others of its patient and study."""

DERIVED_CT = {
    "0008|0008": "DERIVED\\SECONDARY\\AXIAL",
    "0008|0016": "1.2.840.10008.5.1.4.1.1.2",  # CT Image Storage
    "0008|0060": "CT",
    "0008|0005": "ISO_IR 192",  # UTF-8
    "0008|0070": "trct_monai",
    "0018|0060": "",
    "0018|1020": __version__,
    "0018|5100": "HFS",
    "0018|9004": "RESEARCH",
    "0028|1050": "40",
    "0028|1051": "400",
    "0028|1052": "0",
    "0028|1053": "1",
    "0028|1054": "HU",
}
"""What every file of a written series says of itself: an image that was derived, for research."""

RECONSTRUCTED = (
    "CT from radiographs, RESEARCH ONLY",
    "Computed from radiographs by trct_monai: research only, not an examination, not for diagnosis",
)
RESAMPLED = ("Resampled CT, RESEARCH ONLY", "CT cropped and resampled by trct_monai: research only, not for diagnosis")
"""SeriesDescription and DerivationDescription."""

CHARACTER_SETS = {
    "ISO_IR 100": "latin-1",
    "ISO_IR 101": "iso8859-2",
    "ISO_IR 109": "iso8859-3",
    "ISO_IR 144": "iso8859-5",
    "ISO_IR 192": "utf-8",
}
"""Python's names of SpecificCharacterSet; any other is read as ASCII."""

VIEW_POSITIONS = {"PA": "pa", "AP": "pa", "LL": "lat", "RL": "lat", "LAT": "lat"}
"""Which of our views a ViewPosition means. LLD and RLD are none: frontal views of a patient who lies on the side."""

OPPOSITE = ("AP", "RL")
"""Those with source and detector on the other side."""


@dataclass(frozen=True)
class DicomRadiograph:
    """What a CR, DX or RF image holds.

    Attributes:
        values: Numbers (rows, columns) from 0 on that grow with attenuation, turned as our views are where the header
            says how the picture lies.
        top: Their greatest possible value.
        view_position: ViewPosition as the header has it; empty if it does not say.
        pixel_spacing: Height and width of a pixel on the detector in mm, if the header says it.
    """

    values: np.ndarray
    top: float
    view_position: str
    pixel_spacing: tuple[float, float] | None


def is_dicom(path: Path) -> bool:
    """Whether a file bears the mark of DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_dicom_radiograph(path: Path, turn: bool = True) -> DicomRadiograph:
    """A CR, DX or RF image.

    What is shown bright attenuates: MONOCHROME1, which shows large numbers dark, is turned round. Pixels proportional
    to the exposure (PixelIntensityRelationship LIN, such as in FOR PROCESSING images) go through the logarithm. What
    gain and offset lead from there to line integrals no header says. PatientOrientation, where it is given, tells how
    the picture lies: it is flipped and turned so that rows run to the patient's left or back, and columns to the feet.

    Args:
        path: A DICOM file with one frame of grey pixels.
        turn: Whether PatientOrientation counts.

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
        values = top * (1 - np.log1p(exposure) / np.log1p(top))
    spacing = header_numbers(header, "0018|1164") or header_numbers(header, "0028|0030")
    lies = header_text(header, "0020|0020").upper() if turn else ""
    along_rows, along_columns = (lies.split("\\") + ["", ""])[:2]
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


def read_study(path: Path) -> dict[str, str]:
    """Patient and study of a DICOM file, by the keywords of `STUDY`; what is empty is left out."""
    characters, *texts = read_header(path, ["0008|0005", *STUDY.values()])
    encoding = CHARACTER_SETS.get(characters.split("\\")[-1].strip(), "ascii")
    texts = [text.encode("utf-8", "surrogateescape").decode(encoding, "replace") for text in texts]
    return {keyword: text for keyword, text in zip(STUDY, texts) if text}


def common_study(paths: Iterable[Path]) -> dict[str, str]:
    """Patient and study of the DICOM files among some files; empty if there are none.

    Raises:
        ValueError: If they are of two patients or studies.
    """
    studies = {path: read_study(path) for path in paths if is_dicom(path)}
    for keyword in ("PatientID", "StudyInstanceUID"):
        if len({study.get(keyword, "") for study in studies.values()}) > 1:
            raise ValueError(f"{' and '.join(map(str, studies))} differ in {keyword}")
    return next(iter(studies.values()), {})


def read_header(path: Path, tags: Sequence[str]) -> list[str]:
    """Texts of a DICOM file's header by their tags, such as ``0018|5101``; empty where it has none."""
    import itk

    image_io = itk.GDCMImageIO.New()
    image_io.SetFileName(str(path))
    image_io.ReadImageInformation()
    header = image_io.GetMetaDataDictionary()
    return [header_text(header, tag) for tag in tags]


def header_text(header: Any, tag: str) -> str:
    return str(header[tag]).strip().rstrip("\x00") if header.HasKey(tag) else ""


def header_numbers(header: Any, tag: str) -> list[float]:
    text = header_text(header, tag)
    return [float(part) for part in text.split("\\")] if text else []


def last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def write_ct_series(
    volume_hu: np.ndarray,
    affine: np.ndarray,
    folder: Path,
    study: Mapping[str, str] | None = None,
    descriptions: tuple[str, str] = RECONSTRUCTED,
) -> list[Path]:
    """Write a CT as a DICOM series, one file for each axial slice, marked as derived and for research only.

    Rows run to the patient's left and columns to the back, as in a scanner's images. The same volume gives the same
    files. They are written to another folder first.

    Args:
        volume_hu: HU (X, Y, Z) from -32768 to 32767; rounded.
        affine: From voxel index to world mm in RAS; its axes run along those of the world.
        folder: Where to write; made if need be, and empty or absent.
        study: Patient and study by the keywords of `STUDY`; what is missing is empty, and a StudyInstanceUID is made.
        descriptions: SeriesDescription and DerivationDescription.

    Returns:
        The files, from the feet to the head.

    Raises:
        ValueError: If the axes are oblique, a value does not fit 16 bits, the folder holds files, or `study` has an
            unknown keyword.
    """
    import itk

    study = {} if study is None else study
    if unknown := sorted(set(study) - set(STUDY)):
        raise ValueError(f"study may hold {', '.join(STUDY)}, got {', '.join(unknown)}")
    sides = np.diag(affine)[:3]
    if volume_hu.ndim != 3 or not np.allclose(affine[:3, :3], np.diag(sides)) or not (sides > 0).all():
        raise ValueError(f"a series needs a volume (X, Y, Z) with axes along R, A and S, got {affine.tolist()}")
    if not np.isfinite(volume_hu).all() or np.abs(volume_hu).max(initial=0) > 32767:
        raise ValueError("a series holds HU from -32767 to 32767, got a value that is not finite or beyond")
    check_series_folder(folder)
    slices = np.ascontiguousarray(volume_hu[::-1, ::-1].T.round().astype(np.int16))  # (Z, rows, columns)
    corner = affine @ [*(np.array(volume_hu.shape) - 1), 1.0]  # the most right and anterior voxel, top slice
    said = DERIVED_CT | {"0008|103e": descriptions[0], "0008|2111": descriptions[1]}
    content = (slices.tobytes(), affine.tobytes(), repr((sorted(study.items()), sorted(said.items()))).encode())
    common = said | {
        "0018|0050": f"{sides[2]:g}",
        "0018|0088": f"{sides[2]:g}",
        "0020|000e": uid_of(b"series", *content),
        "0020|0052": uid_of(b"frame", *content),
        **{tag: study.get(keyword, "") for keyword, tag in STUDY.items()},
    }
    common["0020|000d"] = common["0020|000d"] or uid_of(b"study", *content)
    partial = folder.with_name(f".partial.{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for number, pixels in enumerate(slices):
            image = itk.image_from_array(pixels[None])
            image.SetSpacing([float(side) for side in sides])
            image.SetOrigin([-float(corner[0]), -float(corner[1]), float(affine[2, 3] + number * sides[2])])  # LPS
            header = image.GetMetaDataDictionary()
            for tag, text in {**common, "0008|0018": uid_of(b"%d" % number, *content)}.items():
                header[tag] = text
            header["0020|0013"] = str(number + 1)
            image_io = itk.GDCMImageIO.New()
            image_io.KeepOriginalUIDOn()
            itk.imwrite(image, str(partial / f"{number + 1:04d}.dcm"), imageio=image_io)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(folder.iterdir())


def check_series_folder(folder: Path) -> None:
    """Raise ValueError if a series cannot be written there: files of another would become part of it."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; a DICOM series gets a new one")


def uid_of(*parts: bytes) -> str:
    """A unique identifier of what it is made from, the same whenever it is made (DICOM PS3.5, annex B.2)."""
    return f"2.25.{uuid.UUID(bytes=hashlib.sha256(b'|'.join(parts)).digest()[:16], version=5).int}"
