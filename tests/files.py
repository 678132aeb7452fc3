"""CT files of several formats, and pickles that call something, written for tests."""

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np

BITS = b"\x28\x00\x01\x01\x02\x00\x00\x00"  # BitsStored in implicit little endian


def save_nifti(path: Path, ct_hu: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(ct_hu, affine), path)


def touch_all(folder: Path, names: Sequence[str]) -> None:
    """Make empty files below a folder, and the folders that they are in."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def save_series(
    folder: Path,
    ct_hu: np.ndarray,
    affine: np.ndarray,
    *,
    uid: str = "1.2.3.4",
    patient_id: str = "patient",
    modality: str = "CT",
    image_type: str = "ORIGINAL\\PRIMARY\\AXIAL",
    skip: Sequence[int] = (),
    slopes: Sequence[float] = (1.0,),
    intercept: float = 0.0,
    dtype: type[np.integer] = np.int16,
    description: str = "",
    tags: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a RAS volume as DICOM slices, tilted as its affine says.

    Args:
        ct_hu: HU (X, Y, Z).
        affine: From voxel index to world mm.
        uid: SeriesInstanceUID.
        patient_id: PatientID.
        modality: Modality.
        image_type: ImageType.
        skip: Slices that are left out.
        slopes: RescaleSlope of the slices in turn.
        intercept: RescaleIntercept of all.
        dtype: Type of the stored pixels, which are (HU - intercept) / slope.
        description: SeriesDescription.
        tags: Further elements, such as 0018|0015.
    """
    import itk

    folder.mkdir(parents=True, exist_ok=True)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    row, column = (lps[:3, axis] / np.linalg.norm(lps[:3, axis]) for axis in (0, 1))
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    paths = []
    for k in range(ct_hu.shape[2]):
        if k in skip:
            continue
        position = lps[:3] @ np.array([0, 0, k, 1.0])
        slope = slopes[k % len(slopes)]
        stored = np.round((ct_hu[:, :, k : k + 1] - intercept) / slope).astype(dtype)
        image = itk.image_from_array(np.ascontiguousarray(stored.T))
        header = image.GetMetaDataDictionary()
        for tag, value in {
            "0008|0008": image_type,
            "0008|0060": modality,
            "0010|0020": patient_id,
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0008|0018": f"{uid}.{k + 1}",
            "0020|0013": str(k + 1),
            "0020|0032": "\\".join(f"{value:.6f}" for value in position),
            "0020|0037": "\\".join(f"{value:.6f}" for value in (*row, *column)),
            "0028|1052": "0",
            "0028|1053": "1",
            **({"0008|103e": description} if description else {}),
            **(tags or {}),
        }.items():
            header[tag] = value
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(position.tolist())
        image.SetDirection(itk.matrix_from_array(np.stack([row, column, np.cross(row, column)], axis=1)))
        image_io = itk.GDCMImageIO.New()
        image_io.KeepOriginalUIDOn()
        paths.append(folder / f"slice{uid.replace('.', '_')}_{k:03d}.dcm")
        writer = itk.ImageFileWriter[type(image)].New(image, FileName=str(paths[-1]), ImageIO=image_io)
        writer.Update()
        if (slope, intercept) != (1.0, 0.0):
            set_text(paths[-1], 0x0028, 0x1052, f"{intercept:g}")
            set_text(paths[-1], 0x0028, 0x1053, f"{slope:g}")
    return paths


def set_text(path: Path, group: int, element: int, text: str) -> None:
    """Replace the text of an element that a file in implicit little endian has."""
    tag = struct.pack("<HH", group, element)
    before, found, after = path.read_bytes().partition(tag)
    assert found
    (length,) = struct.unpack("<I", after[:4])
    value = text.encode() + b" " * (len(text) % 2)
    path.write_bytes(before + tag + struct.pack("<I", len(value)) + value + after[4 + length :])


def save_dx(
    path: Path,
    pixels: np.ndarray,
    colours: str = "MONOCHROME2",
    pixel_spacing: tuple[float, float] = (0.2, 0.1),
    **tags: str,
) -> Path:
    """Write a DX image of 12 bits; tags by their numbers, such as t0028_1040."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(pixels))
    image.SetSpacing(pixel_spacing[::-1])  # becomes ImagerPixelSpacing
    header = image.GetMetaDataDictionary()
    known = {
        "t0008_0016": "1.2.840.10008.5.1.4.1.1.1.1",
        "t0008_0060": "DX",
    }
    for tag, value in {**known, **tags}.items():
        header[tag[1:].replace("_", "|")] = value
    image_io = itk.GDCMImageIO.New()
    image_io.KeepOriginalUIDOn()
    writer = itk.ImageFileWriter[type(image)].New(image, FileName=str(path), ImageIO=image_io)
    writer.Update()
    written = path.read_bytes()  # ITK does not let these two be chosen
    for before, after in ((b"MONOCHROME2", colours.encode()), (BITS + b"\x10\x00", BITS + b"\x0c\x00")):
        assert written.count(before) == 1
        written = written.replace(before, after)
    path.write_bytes(written)
    return path


class Payload:
    """What a pickle may hold: a call, here of the function that makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)
