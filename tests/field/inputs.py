"""Files as people have them, made of one phantom, and what the commands make of them."""

import contextlib
import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence

from trct_monai import commands
from trct_monai.io.ct import read_ct
from trct_monai.io.datalist import SECTIONS, read_datalist
from trct_monai.phantoms import Phantom

PREPARE = {"size": 40, "radiograph_size": 32, "num_workers": 1}
"""Flags that keep the phantom's voxels."""


@dataclass
class Ran:
    """What a command did.

    Attributes:
        code: Its exit code.
        text: What it printed, on both streams.
        error: The one line of an error.
        output: Its output folder.
    """

    code: int
    text: str
    error: str
    output: Path

    def cases(self) -> dict[str, dict]:
        """All cases of the datalist by their names."""
        content = read_datalist(self.output / "datalist.json")
        return {case["case_id"]: case for section in SECTIONS for case in content[section]}

    def labels(self) -> dict[str, np.ndarray]:
        """The label of each case in HU."""
        return {name: read_ct(self.output / case["label"]).ct_hu[0].numpy() for name, case in self.cases().items()}


def run(command: str, place: Path, **flags: object) -> Ran:
    """A command, with what it says on the terminal; `place` is its output folder."""
    texts = io.StringIO(), io.StringIO()
    arguments = [command, *(part for key, value in flags.items() for part in (f"--{key}", str(value)))]
    with contextlib.redirect_stdout(texts[0]), contextlib.redirect_stderr(texts[1]):
        code = commands.main(arguments)
    errors = [line for line in texts[1].getvalue().splitlines() if line.startswith("error: ")]
    if code:
        assert len(errors) == 1 and "Traceback" not in texts[1].getvalue()
    return Ran(code, texts[0].getvalue() + texts[1].getvalue(), errors[0] if errors else "", place)


def prepare(source: Path, **flags: object) -> Ran:
    """`prepare` of a folder, into a folder beside it."""
    output = source.parent / f"{source.name}_out"
    return run("prepare", output, input=source, output=output, **{**PREPARE, **flags})


def hu_off(ran: Ran, phantom: Phantom) -> float:
    """Mean absolute difference of the one case's label from the phantom in HU."""
    assert ran.code == 0, ran.text
    (label,) = ran.labels().values()
    return float(np.abs(label - phantom.ct_hu).mean())


def write_series(
    folder: Path,
    ct_hu: np.ndarray,
    affine: np.ndarray,
    change: Callable[[FileDataset, int], str | None] | None = None,
    *,
    uid: str = "2.25.7",
    patient_id: str = "p1",
    intercept: float = -1024.0,
    signed: bool = True,
) -> list[Path]:
    """A RAS volume as DICOM slices in explicit little endian.

    Args:
        folder: Where to write.
        ct_hu: HU (X, Y, Z).
        affine: From voxel index to world mm, its axes along those of the world.
        change: Given each slice's data set and its number before it is written; a text it gives is the file's name.
        uid: SeriesInstanceUID.
        patient_id: PatientID.
        intercept: RescaleIntercept.
        signed: Whether pixels have a sign.
    """
    paths = []
    for number in range(ct_hu.shape[2]):
        stored = np.round(ct_hu[:, :, number].T - intercept)
        data = _slice_of(stored, affine, number, uid, patient_id, signed)
        data.RescaleSlope, data.RescaleIntercept = "1", f"{intercept:g}"
        name = (change(data, number) if change else None) or f"IM{number:04d}.dcm"
        paths.append(folder / name)
        save(data, paths[-1])
    return paths


def write_enhanced(path: Path, ct_hu: np.ndarray, affine: np.ndarray, frame_order: list[int] | None = None) -> Path:
    """The same volume as one enhanced CT file of many frames."""
    order = frame_order or list(range(ct_hu.shape[2]))
    stored = np.stack([np.round(ct_hu[:, :, k].T + 1024) for k in order])
    data = _slice_of(stored[0], affine, 0, "2.25.8", "p1", True)
    position, orientation, spacing = data.ImagePositionPatient, data.ImageOrientationPatient, data.PixelSpacing
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(data, keyword)
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    data.NumberOfFrames = len(order)
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([_with(ImageOrientationPatient=orientation)])
    shared.PixelMeasuresSequence = Sequence([_with(PixelSpacing=spacing, SliceThickness=str(affine[2, 2]))])
    shared.PixelValueTransformationSequence = Sequence(
        [_with(RescaleSlope="1", RescaleIntercept="-1024", RescaleType="HU")]
    )
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    frames = []
    for k in order:
        place = [position[0], position[1], float(affine[2, 3] + k * affine[2, 2])]
        frame = Dataset()
        frame.PlanePositionSequence = Sequence([_with(ImagePositionPatient=place)])
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.PixelData = stored.astype(np.int16).tobytes()
    save(data, path)
    return path


def save(data: FileDataset, path: Path) -> None:
    """Write a data set, whatever its values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data.save_as(path, enforce_file_format=True)


def edit(path: Path, **values: object) -> None:
    """Set elements of a DICOM file by their keywords; None removes one."""
    data = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(data, keyword)
        else:
            setattr(data, keyword, value)
    save(data, path)


def _with(**values: object) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def _slice_of(
    stored: np.ndarray, affine: np.ndarray, number: int, uid: str, patient_id: str, signed: bool
) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"{uid}.{number + 1}"
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.PatientID, data.Modality = "2.25.1", uid, patient_id, "CT"
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.InstanceNumber = number + 1
    data.ImagePositionPatient = [float(value) for value in lps[:3] @ np.array([0.0, 0.0, number, 1.0])]
    data.ImageOrientationPatient = [-1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    data.PixelSpacing = [float(affine[1, 1]), float(affine[0, 0])]
    data.SliceThickness = float(affine[2, 2])
    data.Rows, data.Columns = stored.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, int(signed)
    data.PixelData = stored.astype(np.int16 if signed else np.uint16).tobytes()
    return data
