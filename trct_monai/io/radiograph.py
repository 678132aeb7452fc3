"""Radiograph files: 16-bit PNG of line integrals with a side-car that says what the numbers mean, and what others have.

A radiograph of ours is two files: ``NAME.png`` with 16-bit integers n, and ``NAME.json`` with

    line integral = n * scale + offset        (no unit: 1/mm times mm)

and with the camera and ``"quantitative": true``. Pictures from elsewhere (8-bit PNG, mostly divided by their own
maximum) have no such page. They are read as numbers in [0, 1] and turn into line integrals only by a gain and an
offset that somebody fitted and recorded (`trct_monai.datasets.prepare_case` does).
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from jaxtyping import Float
from nibabel.filebasedimages import ImageFileError
from PIL import Image
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.io.dicom.header import is_dicom
from trct_monai.io.dicom.radiograph import read_dicom_radiograph
from trct_monai.io.files import read_json, write_json, write_picture

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Radiograph:
    """One radiograph as it was read.

    Attributes:
        image: Line integrals (H, W) without unit if quantitative, else the file's own scale.
        quantitative: Whether `image` holds line integrals.
        camera: The view, if the file says it.
        view_position: What a DICOM header calls the view, such as PA or LL.
        pixel_spacing: Height and width of a pixel in mm, if a DICOM header says it.
    """

    image: Float[Tensor, "H W"]
    quantitative: bool
    camera: Camera | None
    view_position: str = ""
    pixel_spacing: tuple[float, float] | None = None


def save_radiograph(path: str | os.PathLike[str], line_integrals: Float[Tensor, "H W"], camera: Camera) -> None:
    """Write line integrals as 16-bit PNG with its side-car JSON, each to a temporary name first.

    The rounding error is at most half of the range / 65535.

    Args:
        path: Where to write, ending in ``.png``; the side-car has the same name and ends in ``.json``.
        line_integrals: One radiograph (H, W), row 0 superior, without unit.
        camera: The view; its size must be (H, W).

    Raises:
        ValueError: If the shape is not the camera's, a value is not finite, or the name does not end in ``.png``.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise ValueError(f"a radiograph is written as .png with a side-car .json, got {path.name}")
    if tuple(line_integrals.shape) != camera.size:
        raise ValueError(f"the radiograph must have the camera's size {camera.size}, got {tuple(line_integrals.shape)}")
    if not bool(torch.isfinite(line_integrals).all()):
        raise ValueError(f"{path}: the radiograph holds values that are not finite (NaN or infinite)")
    values = line_integrals.detach().as_subclass(Tensor).double().cpu()
    offset = min(0.0, float(values.min()))
    scale = max(float(values.max()) - offset, 1e-6) / 65535
    stored = ((values - offset) / scale).round().numpy().astype(np.uint16)
    page = {
        "format_version": FORMAT_VERSION,
        "quantity": "line integral of linear attenuation, without unit",
        "quantitative": True,
        "scale": scale,
        "offset": offset,
        "camera": camera.to_dict(),
    }
    write_json(path.with_suffix(".json"), page)
    write_picture(path, stored)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """One radiograph from a file: PNG, DICOM, ``.npy`` or a 2-D NIfTI, with or without a side-car.

    PNG with a side-car gives line integrals; PNG without, and DICOM, give integers divided by their greatest possible
    value; see `trct_monai.io.dicom.radiograph.read_dicom_radiograph`.
    Float files without a side-car are taken as line integrals in our convention. A NIfTI holds (columns, rows).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture of one channel, is damaged, or holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        page = read_side_car(path)
        placed = bool(page and page.get("camera"))  # a camera that is known is that of the picture as it is stored
        dicom = read_dicom_radiograph(path, turn=not placed) if is_dicom(path) else None
        stored, full_scale = (dicom.values, dicom.top) if dicom else _read_numbers(path)
    except (OSError, EOFError, SyntaxError, ValueError, ImageFileError) as error:
        raise ValueError(f"{path}: not a radiograph that can be read ({error})") from error
    stored = stored.squeeze()
    if stored.ndim != 2 or min(stored.shape) < 2:
        raise ValueError(f"{path}: a radiograph has two dimensions and one channel, got shape {stored.shape}")
    image = torch.from_numpy(stored.astype(np.float64))
    if not bool(torch.isfinite(image).all()):
        raise ValueError(f"{path}: the radiograph holds values that are not finite (NaN or infinite)")
    if page is None:
        header = (dicom.view_position, dicom.pixel_spacing) if dicom else ("", None)
        return Radiograph((image / full_scale).float(), full_scale == 1.0, None, *header)
    try:
        camera = Camera.from_dict(page["camera"]) if page.get("camera") else None
        scale, offset = float(page.get("scale", 1.0)), float(page.get("offset", 0.0))
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: its side-car is not that of a radiograph ({error})") from error
    if camera is not None and camera.size != tuple(image.shape):
        raise ValueError(f"{path}: the picture is {tuple(image.shape)}, its side-car says {camera.size}")
    if full_scale != 1.0:  # the scale is that of the PNG's integers; a float file beside it holds the values
        image = image * scale + offset
    return Radiograph(image.float(), bool(page.get("quantitative", True)), camera)


def digest_radiograph(path: str | os.PathLike[str]) -> str:
    """Digest of a radiograph's stored numbers and their scale, whatever the file's compression."""
    stored, _ = _read_numbers(Path(path))
    page = read_side_car(Path(path)) or {}
    scale = [f"{float(page.get(key, default)):.6e}" for key, default in (("scale", 1.0), ("offset", 0.0))]
    head = f"{stored.shape} {stored.dtype.kind} {scale}"
    return hashlib.sha256(
        head.encode() + np.ascontiguousarray(stored, stored.dtype.newbyteorder("<")).tobytes()
    ).hexdigest()


def _read_numbers(path: Path) -> tuple[np.ndarray, float]:
    """The stored numbers (rows, columns), and the value of a full pixel (1 for floats)."""
    name = path.name.lower()
    if name.endswith(".npy"):
        stored = np.load(path, allow_pickle=False)
    elif name.endswith((".nii", ".nii.gz")):
        stored = np.asanyarray(nibabel.load(path).dataobj).squeeze().T
    elif is_dicom(path):
        dicom = read_dicom_radiograph(path)
        return dicom.values, dicom.top
    elif name.endswith(".png"):
        with Image.open(path) as picture:
            if picture.mode not in ("L", "I;16", "I"):
                raise ValueError(f"the picture has the mode {picture.mode}, a radiograph is 8- or 16-bit grey")
            full_scale = 255.0 if picture.mode == "L" else 65535.0
            return np.asarray(picture), full_scale
    else:
        raise ValueError("a radiograph is .png, .npy, .nii, .nii.gz or DICOM")
    if stored.dtype.kind == "f":
        return stored, 1.0
    if stored.dtype.kind in "ui":
        return stored, float(np.iinfo(stored.dtype).max)
    raise ValueError(f"the numbers are of type {stored.dtype}")


def side_car_of(path: Path) -> Path:
    """Where the side-car of a radiograph lies, if it has one."""
    return path.with_name(path.name.removesuffix(".gz")).with_suffix(".json")


def read_side_car(path: Path) -> dict[str, Any] | None:
    side_car = side_car_of(path)
    if not side_car.is_file():
        return None
    page = read_json(side_car)
    if not isinstance(page, dict) or page.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(f"{side_car}: not a side-car of format version {FORMAT_VERSION}")
    return page
