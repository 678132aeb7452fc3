"""Made-up examinations: a phantom's CT as DICOM, and radiographs of it as CR and DX images."""

from pathlib import Path

import numpy as np
import pydicom
import torch

from tests.field.inputs import edit, save, write_series
from tests.files import save_dx
from trct_monai.geometry import make_camera
from trct_monai.phantoms import thorax_phantom
from trct_monai.physics import degrade
from trct_monai.projector import project_hu

SIZE, SPACING = 64, 5.0
AZIMUTH = {"pa": 0.0, "lat": 90.0, "ap": 180.0, "rl": 270.0}


def body(seed: int, phase: float = 0.0) -> np.ndarray:
    """A healthy phantom in HU."""
    return thorax_phantom(seed, size=SIZE, findings=[], phase=phase).ct_hu


def write_ct(folder: Path, seed: int, patient: str, day: str = "20000110") -> None:
    """The CT of a phantom as a series of slices."""

    def dated(data: pydicom.FileDataset, number: int) -> None:
        data.StudyDate, data.PatientName = day, "Doe^Jane"

    affine = np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] = -(SIZE - 1) / 2 * SPACING
    write_series(folder, body(seed), affine, dated, uid=f"2.25.7{seed}", patient_id=patient)  # type: ignore[arg-type]


def taken(ct_hu: np.ndarray, view: str, shift: float = 0.0, seed: int = 0) -> np.ndarray:
    """A picture (200, 190) of 12 bits as it is displayed: upright, right on the left, bright where it attenuates.

    Film at 1.8 m, the patient turned by some degrees, scatter, noise, a gamma.

    Args:
        ct_hu: The body.
        view: pa, ap, lat or rl; the two last face left.
        shift: Of the camera along z in mm.
        seed: Of turn and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    turn, tilt = ((torch.rand(2, generator=generator) - 0.5) * 6).tolist()
    camera = make_camera(
        view, AZIMUTH[view] + turn, elevation_deg=tilt, sod=1600.0, sdd=1800.0, detector_extent=(400.0, 380.0),
        size=(200, 190),
    ).shifted((0.0, 0.0, shift))  # fmt: skip
    line = project_hu(torch.from_numpy(ct_hu)[None], [camera], SPACING)[None]
    seen = degrade(line, camera.pixel_spacing, scatter_fraction=0.2, photons=20000, generator=generator)[0, 0]
    unit = ((seen - seen.min()) / (seen.max() - seen.min())) ** 0.8
    pixels = (unit * 4000).round().numpy().astype(np.uint16)
    return pixels[:, ::-1] if view in ("ap", "rl") else pixels


def write_radiograph(
    path: Path, pixels: np.ndarray, patient: str, day: str = "20000110", modality: str = "CR", **elements: object
) -> Path:
    """A CR or DX image with pixels of 2 mm; a MONOCHROME1 one shows the same picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colours = str(elements.pop("PhotometricInterpretation", "MONOCHROME2"))
    save_dx(path, 4095 - pixels if colours == "MONOCHROME1" else pixels, colours, pixel_spacing=(2.0, 2.0))
    data = pydicom.dcmread(path)
    data.PatientID, data.PatientName, data.StudyDate, data.Modality = patient, "Doe^Jane", day, modality
    data.StudyInstanceUID, data.SeriesInstanceUID = f"2.25.3{day}", f"2.25.4{day}"
    save(data, path)
    edit(path, **elements)
    return path
