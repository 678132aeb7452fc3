"""Radiographs to reconstruct from, each with its camera, and the device to work on."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from trct_monai.arguments import parse_names
from trct_monai.bundles.checks import check_device
from trct_monai.geometry import preset
from trct_monai.io.radiograph import Radiograph, read_radiograph, side_car_of

PLAUSIBLE_SIDE = (200.0, 480.0)
"""A picture whose longer side at the detector would be outside of this, in mm, has a wrong PixelSpacing."""

AUTO = "auto"
"""The geometry of radiographs whose cameras are to be measured."""

logger = logging.getLogger(__name__)


def read_radiographs(pa: str | None, lat: str | None, radiographs: str | None, geometry: str) -> list[Radiograph]:
    """The radiographs, each with its camera if it is known: its side-car's, or the geometry's with its own pixels.

    Args:
        pa: A frontal radiograph.
        lat: A lateral one.
        radiographs: In place of these, files with cameras in their side-cars, separated by commas.
        geometry: Preset with the views ``pa`` and ``lat`` for pictures without side-car; ``auto`` leaves them without a
            camera, which is to be measured.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If none is given, pa or lat beside other radiographs, or a camera is not known.
    """
    named = {name: path for name, path in (("pa", pa), ("lat", lat)) if path}
    others = parse_names(radiographs)
    if bool(named) == bool(others):
        raise ValueError("give --pa and --lat (one of them will do), or --radiographs A.png,B.png,... with side-cars")
    if geometry == AUTO:
        result = [read_radiograph(path) for path in named.values()]
        if len({one.camera is None for one in result}) > 1:
            raise ValueError(
                "one radiograph has a side-car with its camera and the other has none: give --geometry, too"
            )
    else:
        cameras = {camera.name: camera for camera in preset(geometry)}
        if named and not set(named) <= set(cameras):
            raise ValueError(
                f"geometry must be auto, or have the views pa and lat: clinic, x2ct or parallel; got {geometry!r}"
            )
        result = [_read_plausible(path).taken_by(cameras[name]) for name, path in named.items()]
    for path in others:
        radiograph = read_radiograph(path)
        if radiograph.camera is None:
            raise ValueError(f"{path} has no side-car that states where it was taken; give it as --pa or --lat")
        result.append(radiograph)
    return result


def implausible_pixels(radiograph: Radiograph) -> str:
    """One line if a header's pixel size would make a picture that is no chest radiograph's; empty otherwise."""
    if radiograph.pixel_spacing is None:
        return ""
    height, width = (n * side for n, side in zip(radiograph.image.shape, radiograph.pixel_spacing))
    if PLAUSIBLE_SIDE[0] <= max(height, width) <= PLAUSIBLE_SIDE[1]:
        return ""
    return (
        f"{radiograph.path}: its pixels of {radiograph.pixel_spacing[0]:g} x {radiograph.pixel_spacing[1]:g} mm would "
        f"make a picture of {height:.0f} x {width:.0f} mm; they were not used"
    )


def _read_plausible(path: str) -> Radiograph:
    radiograph = read_radiograph(path)
    implausible = implausible_pixels(radiograph)
    if not implausible or radiograph.camera is not None:
        return radiograph
    logger.warning(implausible)
    return replace(radiograph, pixel_spacing=None)


def refuse_overwriting(outputs: Sequence[Path], radiographs: Sequence[Radiograph]) -> None:
    """Raise ValueError if a file to be written is a radiograph, or may be the side-car of one."""
    inputs = {path.resolve() for one in radiographs for path in (one.path, side_car_of(one.path))}
    for path in outputs:
        if path.resolve() in inputs:
            raise ValueError(f"{path} would be written over a radiograph or its side-car; give --out another name")


def choose_device(name: str) -> torch.device:
    """A device by its name; ``auto`` for a GPU where there is one.

    Raises:
        ValueError: If there is no such device, or it is in use.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    check_device(name)
    return torch.device(name)
