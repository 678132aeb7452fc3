"""Radiographs to reconstruct from, each with its camera."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import preset
from trct_monai.io.dicom.radiograph import OPPOSITE, VIEW_POSITIONS
from trct_monai.io.radiograph import read_radiograph, side_car_of


@dataclass(frozen=True)
class View:
    """One radiograph to reconstruct from.

    Attributes:
        path: Its file.
        image: Line integrals (H, W) if quantitative, else the file's own scale.
        quantitative: Whether `image` holds line integrals.
        camera: Where it was taken.
        notes: What its header says against that.
    """

    path: Path
    image: Float[Tensor, "H W"]
    quantitative: bool
    camera: Camera
    notes: tuple[str, ...] = ()


def read_views(pa: str | None, lat: str | None, radiographs: str | None, geometry: str) -> list[View]:
    """The radiographs, each with its camera.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If none is given, pa or lat beside other radiographs, or a camera is not known.
    """
    named = {name: path for name, path in (("pa", pa), ("lat", lat)) if path}
    others = [part.strip() for part in (radiographs or "").split(",") if part.strip()]
    if bool(named) == bool(others):
        raise ValueError("give --pa and --lat (one of them will do), or --radiographs A.png,B.png,... with side-cars")
    cameras = {camera.name: camera for camera in preset(geometry)}
    if named and not set(named) <= set(cameras):
        raise ValueError(f"geometry must have the views pa and lat: clinic, x2ct or parallel, got {geometry!r}")
    views = []
    for name, path in [*named.items(), *(("", path) for path in others)]:
        radiograph = read_radiograph(path)
        camera = radiograph.camera
        if camera is None and not name:
            raise ValueError(f"{path} has no side-car that says where it was taken; give it as --pa or --lat")
        image, position = radiograph.image, radiograph.view_position
        if camera is None:
            camera = cameras[name].for_picture(
                (radiograph.image.shape[0], radiograph.image.shape[1]), radiograph.pixel_spacing
            )
            if position in OPPOSITE:
                camera, image = camera.opposite(), image.flip(-1)
        # A file of floats may hold anything: only a side-car can say that it is line integrals.
        quantitative = radiograph.quantitative and radiograph.camera is not None
        notes: tuple[str, ...] = ()
        if name and position and VIEW_POSITIONS.get(position) != name:
            notes = (f"{path} is given as view {name!r}, while its header calls it {position}",)
        views.append(View(Path(path), image, quantitative, camera, notes))
    return views


def refuse_overwriting(outputs: Sequence[Path], views: Sequence[View]) -> None:
    """Raise ValueError if a file to be written is a radiograph, or may be the side-car of one."""
    inputs = {path.resolve() for view in views for path in (view.path, side_car_of(view.path))}
    for path in outputs:
        if path.resolve() in inputs:
            raise ValueError(f"{path} would be written over a radiograph or its side-car; give --out another name")
