"""Radiograph files: 16-bit PNG of line integrals with a side-car that says what the numbers mean, and what others have.

A radiograph of ours is two files: ``NAME.png`` with 16-bit integers n, and ``NAME.json`` with

    line integral = n * scale + offset        (no unit: 1/mm times mm)

and with the camera and ``"quantitative": true``. Pictures from elsewhere (8-bit PNG, mostly divided by their own
maximum) have no such page. They are read as numbers in [0, 1] and turn into line integrals only by a gain and an
offset that somebody fitted and recorded (`trct_monai.data.prepare` does).
"""

import hashlib
import json
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from jaxtyping import Float
from monai.config import KeysCollection
from monai.transforms import MapTransform
from nibabel.filebasedimages import ImageFileError
from PIL import Image
from torch import Tensor

from trct_monai.geometry import Camera, follows_preset
from trct_monai.transforms.dicom import is_dicom, read_dicom_radiograph
from trct_monai.transforms.resampling import resampling_matrix

FORMAT_VERSION = 1

ORIENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda image: image,
    "flip_columns": lambda image: image.flip(-1),
    "flip_rows": lambda image: image.flip(-2),
    "rotate_180": lambda image: image.flip(-2, -1),
    "transpose": lambda image: image.transpose(-2, -1),
    "rotate_90": lambda image: image.transpose(-2, -1).flip(-2),
    "rotate_270": lambda image: image.transpose(-2, -1).flip(-1),
    "transpose_anti": lambda image: image.transpose(-2, -1).flip(-2, -1),
}
"""The eight flips and turns, by the name of what has to be done to a stored picture to bring it to our convention.
Turns are counter-clockwise."""


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
    temporary = path.with_name(path.name + ".partial")
    Image.fromarray(stored).save(temporary, format="PNG")
    temporary_page = path.with_name(path.stem + ".json.partial")
    temporary_page.write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")
    temporary_page.replace(path.with_suffix(".json"))
    temporary.replace(path)


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """One radiograph from a file: PNG, DICOM, ``.npy`` or a 2-D NIfTI, with or without a side-car.

    PNG with a side-car gives line integrals; PNG without, and DICOM, give integers divided by their greatest possible
    value; see `trct_monai.transforms.dicom.read_dicom_radiograph`.
    Float files without a side-car are taken as line integrals in our convention. A NIfTI holds (columns, rows).

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no picture of one channel, is damaged, or holds values that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        page = _read_side_car(path)
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


def resize_radiographs(images: Float[Tensor, "*batch H W"], size: int | Sequence[int]) -> Float[Tensor, "*batch H2 W2"]:
    """The same detector read out with other pixels: area averaging down, linear interpolation up; edges stay.

    Args:
        images: Radiographs.
        size: Rows and columns (H2, W2); one number for a square.
    """
    rows, columns = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    for axis, target in ((-2, rows), (-1, columns)):
        if images.shape[axis] != target:
            step = images.shape[axis] / target
            matrix = resampling_matrix((images.shape[axis], 1.0, 0.0), (target, step, (step - 1) / 2), images.dtype)
            images = torch.tensordot(images, matrix.to(images.device), dims=([axis], [1])).movedim(-1, axis)
    return images.contiguous()


class LoadRadiographsd(MapTransform):
    """Radiographs of a datalist's case as one tensor (V, H, W) of line integrals, views in the datalist's order.

    The item's ``orientation`` (what to do to each stored picture) and ``intensity`` (gain and offset of pictures that
    are not quantitative) are applied where they are given; `trct_monai.data.load_datalist` brings both along.
    Nothing happens to a value that is a tensor already. An item without ``cameras`` gets those of the files' side-cars,
    if they have any.

    Args:
        keys: Keys of lists of file names.
        size: Rows and columns of the result, one number for a square; None keeps the files' size.
        allow_unquantitative: Accept pictures that nobody fitted to line integrals, in their own scale.
        allow_missing_views: Accept None in place of a file: that view is NaN, for a network that takes missing views.
        geometry: Preset that cameras of side-cars must follow: that of a network which knows no other.
        allow_missing_keys: Do nothing for a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        size: int | Sequence[int] | None = None,
        allow_unquantitative: bool = False,
        allow_missing_views: bool = False,
        geometry: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.geometry = size, geometry
        self.allow_unquantitative, self.allow_missing_views = allow_unquantitative, allow_missing_views

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, each list of files as float32 tensor (V, H, W).

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is damaged or not quantitative, the views' sizes differ and no size is set, a view is
                missing where none may be, or side-cars have other cameras than those of the geometry.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            if not isinstance(result[key], Tensor):
                cameras = None if "cameras" in data else self._cameras(result[key])
                self._check_cameras(cameras, result[key])
                result[key] = self._load(result[key], data.get("orientation"), data.get("intensity"))
                if cameras is not None:
                    result["cameras"] = cameras
        return result

    def _load(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | None],
        orientation: Sequence[Mapping[str, Any]] | None,
        intensity: Sequence[Mapping[str, Any]] | None,
    ) -> Tensor:
        paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        present = [path for path in paths if path is not None]
        if not present or (len(present) < len(paths) and not self.allow_missing_views):
            raise ValueError(
                f"{len(paths) - len(present)} of {len(paths)} views are missing; give a file for each"
                + (", or for one at least" if self.allow_missing_views else "")
            )
        images = []
        for view, path in enumerate(paths):
            if path is None:
                continue
            image = self._line_integrals(path, intensity[view] if intensity else {})
            if orientation:
                image = orient(image, orientation[view]["transform"])
            images.append(image if self.size is None else resize_radiographs(image, self.size))
        if len({image.shape for image in images}) != 1:
            sizes = ", ".join(f"{Path(path).name} {tuple(image.shape)}" for path, image in zip(present, images))
            raise ValueError(f"the views have different sizes ({sizes}); set size to resize them")
        result = images[0].new_full((len(paths), *images[0].shape), torch.nan)
        result[[path is not None for path in paths]] = torch.stack(images)
        return result

    @staticmethod
    def _cameras(
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | None],
    ) -> list[dict[str, Any] | None] | None:
        """The cameras of the files' side-cars, None for a missing view; None if no file has one."""
        files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        pages = [None if path is None else (_read_side_car(Path(path)) or {}).get("camera") for path in files]
        without = [str(path) for path, page in zip(files, pages) if path is not None and page is None]
        if len(without) == sum(path is not None for path in files):
            return None
        if without:
            raise ValueError(
                f"some radiographs have a camera in their side-car, {', '.join(without)} not; give all or none"
            )
        return pages

    def _check_cameras(self, cameras: Sequence[dict[str, Any] | None] | None, paths: Any) -> None:
        if cameras is None or self.geometry is None:
            return
        if not follows_preset([Camera.from_dict(camera) for camera in cameras if camera is not None], self.geometry):
            raise ValueError(
                f"the side-cars of {paths} have other cameras than geometry {self.geometry!r}, which is all that this "
                "network knows: check the order of the views, or take a network for any cameras"
            )

    def _line_integrals(self, path: str | os.PathLike[str], intensity: Mapping[str, Any]) -> Tensor:
        radiograph = read_radiograph(path)
        gain, offset = intensity.get("gain"), intensity.get("offset")
        if gain is not None and offset is not None:
            return radiograph.image * float(gain) + float(offset)
        if not (radiograph.quantitative and intensity.get("quantitative", True)) and not self.allow_unquantitative:
            raise ValueError(
                f"{path}: not quantitative, and no gain and offset are recorded for it; "
                "run prepare on its folder, or set allow_unquantitative=True to take it as it is"
            )
        return radiograph.image


def orient(image: Float[Tensor, "*batch H W"], transform: str) -> Float[Tensor, "*batch H2 W2"]:
    """A picture flipped or turned by the name of one of `ORIENTATIONS`.

    Raises:
        ValueError: If there is no such name.
    """
    if transform not in ORIENTATIONS:
        raise ValueError(f"orientation must be one of {', '.join(ORIENTATIONS)}, got {transform!r}")
    return ORIENTATIONS[transform](image)


def digest_radiograph(path: str | os.PathLike[str]) -> str:
    """Digest of a radiograph's stored numbers and their scale, whatever the file's compression."""
    stored, _ = _read_numbers(Path(path))
    page = _read_side_car(Path(path)) or {}
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


def _read_side_car(path: Path) -> dict[str, Any] | None:
    side_car = side_car_of(path)
    if not side_car.is_file():
        return None
    try:
        page = json.loads(side_car.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{side_car}: not JSON ({error})") from error
    if not isinstance(page, dict) or page.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(f"{side_car}: not a side-car of format version {FORMAT_VERSION}")
    return page
