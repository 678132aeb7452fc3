"""Radiograph files: 16-bit PNG of line integrals with a side-car that states their scale, and those of others.

A radiograph of ours is two files: ``NAME.png`` with 16-bit integers n, and its side-car ``NAME.json`` with

    line integral = n * scale + offset        (no unit: 1/mm times mm)

the camera, ``"quantitative": true`` and the digest of the picture. A side-car is ours if it states its `FORMAT`; JSON
files of others beside a picture are not read. Pictures without side-car (8-bit PNG, mostly divided by their own
maximum, DICOM, floats) hold numbers on a scale of their own. They become line integrals only by a gain and an offset
that are fitted, and recorded in a datalist or in the report of a reconstruction; what `save_picture` writes is such a
picture, whose side-car says that its exposure is no fact.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.io.dicom.header import is_dicom
from trct_monai.io.dicom.radiograph import OPPOSITE, VIEW_POSITIONS, DicomRadiograph, read_dicom_radiograph
from trct_monai.io.files import read_array, read_json, write_json, write_picture
from trct_monai.io.nifti import read_raw
from trct_monai.io.picture import Picture, read_picture
from trct_monai.io.provenance import digest_numbers

FORMAT = "trct-radiograph"
FORMAT_VERSION = 2
QUANTITY = "line integral of linear attenuation, without unit"

OWN_KEYS = frozenset({"scale", "offset", "quantitative", "camera"})
"""What a side-car states: another JSON file with one of these keys must say what it is."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Radiograph:
    """One radiograph as it was read.

    Attributes:
        image: Line integrals (H, W) without unit if quantitative, else numbers on the file's own scale.
        quantitative: Whether a side-car states that `image` holds line integrals.
        camera: The view, if it is known.
        path: The file.
        floats: Whether the file holds floating-point numbers, which a datalist may know to be line integrals.
        view_position: What a DICOM header calls the view, such as PA or LL.
        pixel_spacing: Height and width of a pixel on the detector in mm, if a DICOM header states it.
        valid: The pixels that hold a measurement, not those that are padding, transparent or marked with a colour; None
            for all of them. Padding and transparent pixels are as dark as the darkest of the others.
        exposed: Whether the exposure of line integrals is a fact; not if their scale was estimated from the picture, or
            a side-car says ``"exposed": false``, as of a beam that has hardened or scattered.
    """

    image: Float[Tensor, "H W"]
    quantitative: bool
    camera: Camera | None
    path: Path
    floats: bool = False
    view_position: str = ""
    pixel_spacing: tuple[float, float] | None = None
    valid: Bool[Tensor, "H W"] | None = None
    exposed: bool = True

    def taken_by(self, camera: Camera) -> "Radiograph":
        """The radiograph with its camera: its own if it has one, else this one with the picture's pixels.

        A DICOM header's ViewPosition AP or RL puts source and detector of that view on the other side, and the picture
        is mirrored to our convention.

        Args:
            camera: Where a picture that does not state it was taken; see `Camera.for_picture`.
        """
        if self.camera is not None:
            return self
        camera = camera.for_picture((self.image.shape[0], self.image.shape[1]), self.pixel_spacing)
        # A header may call both pictures AP: that of another view tells nothing.
        if self.view_position in OPPOSITE and VIEW_POSITIONS[self.view_position] == camera.name:
            valid = None if self.valid is None else self.valid.flip(-1)
            return replace(self, camera=camera.opposite(), image=self.image.flip(-1), valid=valid)
        return replace(self, camera=camera)


def save_radiograph(
    path: str | os.PathLike[str], line_integrals: Float[Tensor, "H W"], camera: Camera, *, exposed: bool = True
) -> None:
    """Write line integrals as 16-bit PNG with its side-car JSON.

    The rounding error is at most half of the range / 65535. The side-car is written last and holds the digest of the
    pixels: after a kill between the two, `read_radiograph` refuses the pair.

    Args:
        path: Where to write, ending in ``.png``; the side-car has the same name and ends in ``.json``.
        line_integrals: One radiograph (H, W), row 0 superior, without unit.
        camera: The view; its size must be (H, W).
        exposed: Whether they are line integrals of one energy as they are: not if the beam has hardened, or scattered.

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
    write_picture(path, stored)
    side_car = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "quantity": QUANTITY,
        "quantitative": True,
        "scale": scale,
        "offset": offset,
        "pixels_sha256": _digest_pixels(stored),
        "camera": camera.to_dict(),
        **({} if exposed else {"exposed": False}),
    }
    write_json(path.with_suffix(".json"), side_car)


def save_picture(
    path: str | os.PathLike[str], image: Float[Tensor, "H W"], valid: Bool[Tensor, "H W"] | None = None
) -> None:
    """Write a picture on a scale of its own, whose exposure nobody knows, as 16-bit PNG with a side-car that says so.

    Args:
        path: Where to write, ending in ``.png``.
        image: Numbers in [0, 1]; what is outside is clipped.
        valid: As in `Radiograph`: the other pixels become transparent, and are read as not valid.
    """
    stored = (image.double() * 65535).round().clamp(0, 65535)
    if valid is not None:
        stored = stored.clamp(min=1) * valid
    write_picture(path, stored.numpy().astype(np.uint16), transparent=None if valid is None else 0)
    side_car = {"format": FORMAT, "format_version": FORMAT_VERSION, "quantitative": False, "exposed": False}
    write_json(Path(path).with_suffix(".json"), side_car)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """One radiograph from a file: a grey picture, DICOM, ``.npy`` or a 2-D NIfTI, with or without a side-car.

    A picture is what its content says, whatever its name ends in; see `trct_monai.io.picture.read_picture` and, for
    DICOM, `trct_monai.io.dicom.radiograph.read_dicom_radiograph`. With a side-car that states a scale it holds line
    integrals. Without one, integers are divided by their greatest possible value and floats are as they are. A NIfTI
    holds (columns, rows). Orientations of EXIF data or a DICOM header are applied, unless a side-car states the camera.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no single grey picture, is damaged, holds values that are not finite, or its side-car is
            damaged or belongs to another picture.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    side_car = read_side_car(path) or {}
    camera = _camera_of(side_car, path)
    try:
        picture = _read_numbers(path, turn=camera is None)  # a known camera is that of the picture as it is stored
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{path}: not a radiograph that can be read ({error})") from error
    stored, full_scale = picture.values, picture.top
    # Of floats, such as the NIfTI that prepare writes beside a PNG, the side-car states the camera alone.
    if full_scale is not None and side_car.get("pixels_sha256", "") not in ("", _digest_pixels(stored)):
        raise ValueError(
            f"{path}: its side-car {side_car_of(path).name} belongs to another picture (this one was changed, or half "
            "written); make both again"
        )
    stored = stored.squeeze()
    if stored.ndim != 2 or min(stored.shape) < 2:
        raise ValueError(f"{path}: a radiograph has two dimensions and one channel, got shape {stored.shape}")
    image = torch.from_numpy(stored.astype(np.float64))
    if not bool(torch.isfinite(image).all()):
        raise ValueError(f"{path}: the radiograph holds values that are not finite (NaN or infinite)")
    if camera is not None and camera.size != tuple(image.shape):
        raise ValueError(f"{path}: the picture is {tuple(image.shape)}, its side-car states {camera.size}")
    quantitative = bool(side_car.get("quantitative", False))
    if full_scale is not None:  # a float file beside a side-car holds the values themselves
        scaled = quantitative or side_car.get("format_version") == 1  # 0.1.0 applied them to every picture
        scale, offset = side_car.get("scale", 1.0), side_car.get("offset", 0.0)
        image = image * float(scale) + float(offset) if scaled else image / full_scale
    header = picture if isinstance(picture, DicomRadiograph) and camera is None else None
    position, spacing = (header.view_position, header.pixel_spacing) if header else ("", None)
    valid = None if picture.valid is None or picture.valid.all() else torch.from_numpy(picture.valid)
    exposed = bool(side_car.get("exposed", True))
    return Radiograph(image.float(), quantitative, camera, path, full_scale is None, position, spacing, valid, exposed)


def digest_radiograph(path: str | os.PathLike[str]) -> str:
    """Digest of a radiograph's stored numbers and their scale, whatever the file's compression."""
    stored = _read_numbers(Path(path)).values
    side_car = read_side_car(Path(path)) or {}
    scale = [f"{float(side_car.get(key, default)):.6e}" for key, default in (("scale", 1.0), ("offset", 0.0))]
    return digest_numbers(stored, f"{stored.shape} {stored.dtype.kind} {scale}")


def side_car_of(path: Path) -> Path:
    """Where the side-car of a radiograph lies, if it has one."""
    return path.with_name(path.name.removesuffix(".gz")).with_suffix(".json")


def read_side_car(path: Path) -> dict[str, Any] | None:
    """The side-car of a radiograph; None if there is none, or the JSON file beside it is somebody else's.

    Raises:
        ValueError: If it is damaged, of another version, lacks a field, belongs to another picture, or looks like a
            side-car and does not state its format.
    """
    place = side_car_of(path)
    if not place.is_file():
        return None
    content = read_json(place)
    written_by_0_1_0 = isinstance(content, dict) and content.get("quantity") == QUANTITY and "format" not in content
    if not isinstance(content, dict) or (content.get("format") != FORMAT and not written_by_0_1_0):
        if isinstance(content, dict) and OWN_KEYS & set(content):
            raise ValueError(
                f'{place} has {", ".join(sorted(OWN_KEYS & set(content)))}, but does not state "format": "{FORMAT}"; '
                f'if it is the side-car of {path.name} add that and "format_version": {FORMAT_VERSION}, else move it'
            )
        logger.warning("%s is no side-car of ours: %s is read without it", place, path.name)
        return None
    if content.get("format_version") not in (1, FORMAT_VERSION):
        version = content.get("format_version")
        raise ValueError(f"{place}: version {version} of a side-car; this software reads 1 and {FORMAT_VERSION}")
    quantitative = content.get("quantitative")
    if not isinstance(quantitative, bool):
        raise ValueError(f"{place}: quantitative must be true or false, got {quantitative!r}")
    numbers = [content.get(key) for key in ("scale", "offset")] if quantitative else []
    if not all(isinstance(number, int | float) and isfinite(number) for number in numbers):
        raise ValueError(f"{place}: a quantitative radiograph needs the numbers scale and offset, got {numbers}")
    return content


def _camera_of(side_car: Mapping[str, Any], path: Path) -> Camera | None:
    if not side_car.get("camera"):
        return None
    try:
        return Camera.from_dict(side_car["camera"])
    except (TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: the camera in its side-car {side_car_of(path).name} is none ({error})") from error


def _digest_pixels(stored: np.ndarray) -> str:
    """SHA-256 of a picture's stored numbers and shape, whatever the compression."""
    return digest_numbers(stored, f"{stored.shape} {stored.dtype.kind}{stored.dtype.itemsize} ")


def _read_numbers(path: Path, turn: bool = True) -> Picture | DicomRadiograph:
    """The stored numbers (rows, columns), and the value of a full pixel; None for floats."""
    name = path.name.lower()
    if name.endswith(".npy"):
        stored = read_array(path)
    elif name.endswith((".nii", ".nii.gz")):
        stored = read_raw(path).squeeze().T
    elif is_dicom(path):
        return read_dicom_radiograph(path, turn)
    else:
        return read_picture(path, turn)
    kind = getattr(getattr(stored, "dtype", None), "kind", "")
    if kind not in ("f", "u", "i"):
        raise ValueError(f"the file holds no array of numbers, but {type(stored).__name__}")
    return Picture(stored, None if kind == "f" else float(np.iinfo(stored.dtype).max))
