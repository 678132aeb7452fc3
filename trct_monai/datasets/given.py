"""Radiographs that come with a CT: kept as they are, their cameras and orientations measured against it."""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.datasets.cases import QUANTITATIVE, view_fields
from trct_monai.datasets.sources import Source
from trct_monai.geometry.camera import Camera
from trct_monai.geometry.orientations import IN_WORDS
from trct_monai.io.ct import CT
from trct_monai.io.files import write_array, write_picture
from trct_monai.io.radiograph import Radiograph, read_radiograph, read_side_car, side_car_of
from trct_monai.io.x2ct import read_x2ct_radiographs
from trct_monai.preprocessing.cube import standardize
from trct_monai.registration.camera import MAX_ERROR, Registration, register
from trct_monai.registration.orientation import Match, find_camera, measure, save_comparison

TURNED = ("rotate_90", "rotate_270", "transpose", "transpose_anti")

UPSIDE_DOWN = ("flip_rows", "rotate_180")


def write_given_radiographs(
    source: Source,
    ct: CT,
    cube: MetaTensor,
    folder: Path,
    *,
    cameras: Sequence[Camera],
    measured: bool,
    extent: float,
    min_correlation: float,
    refused: Path,
) -> dict[str, Any]:
    """Copy a case's radiographs and find out how they were taken.

    A radiograph with a side-car has the camera that it states, and its orientation is measured. Without one the camera
    is measured, too, unless it is stated which geometry all radiographs have; X2CT's files have their own.

    Cameras are in the cube's coordinates; the middle of the given CT is the isocentre of the radiographs.

    Args:
        source: The CT with its radiographs.
        ct: The CT as it was given.
        cube: The case's cube in HU.
        folder: The case's folder.
        cameras: The views that are expected; of measured ones only the direction counts.
        measured: Measure the cameras of radiographs without side-car.
        extent: Side of the cube in mm.
        min_correlation: A radiograph that correlates less with our projection in every orientation is refused.
        refused: Folder for the picture of such a radiograph.

    Returns:
        The fields of `trct_monai.datasets.cases.view_fields`.

    Raises:
        ValueError: If a view is missing, or a radiograph cannot be read, does not fit, or its camera is not sure.
    """
    pictures = read_x2ct_radiographs(source.path) if source.format == "HDF5" else {}
    missing = [camera.name for camera in cameras if camera.name not in {**pictures, **source.radiographs}]
    if missing:
        raise ValueError(f"{source.path}: no radiograph of the view {', '.join(missing)} beside it")
    offset = (middle_of(ct.affine, ct.ct_hu.shape[1:]) - middle_of(cube.affine, cube.shape[1:])).tolist()
    names, matches, intensity = [], [], []
    for camera in cameras:
        stem = f"{source.case_id}_{camera.name}_drr"
        if camera.name in pictures:
            path = _write_picture(folder / stem, pictures[camera.name])
        else:
            path = _copy(source.radiographs[camera.name], folder / stem)
        radiograph = read_radiograph(path)
        match: Match
        if radiograph.camera is not None:
            match = measure(radiograph.image, cube, extent, radiograph.camera.shifted(offset))
        elif measured and source.format != "HDF5":
            match = _registered(source, ct, radiograph, camera, offset)
            check_sure(source, match, min_correlation, refused)
        else:
            match = find_camera(
                radiograph.image, cube, extent, camera, pixel_spacing=radiograph.pixel_spacing, offset=offset
            )
        check_fits(source, match, min_correlation, refused)
        certain = (radiograph.camera is not None and radiograph.quantitative) or match.intensity["quantitative"]
        names.append(path.name)
        matches.append(match)
        intensity.append(QUANTITATIVE if certain else match.intensity)
    if source.format == "HDF5":
        _check_upright(source, ct, matches)
    return view_fields(names, [match.camera for match in matches], [match.orientation for match in matches], intensity)


def check_fits(source: Source, match: Match, min_correlation: float, refused: Path) -> None:
    """Refuse a radiograph that fits the CT in no orientation.

    Args:
        source: The case.
        match: How its best orientation fits.
        min_correlation: Least correlation with our projection.
        refused: Folder for a picture of the match.

    Raises:
        ValueError: If it fits less.
    """
    best, correlation = match.orientation["transform"], match.orientation["correlation"]
    if abs(correlation) < min_correlation:
        view, (rows, columns), (height, width) = match.camera.name, match.camera.size, match.camera.pixel_spacing
        picture = refused / f"{source.case_id}_{view}.png"
        save_comparison(picture, match)
        raise ValueError(
            f"{source.radiographs.get(view, source.path)}: no flip or turn fits our projection of the CT in the view "
            f"{view} ({rows} x {columns} pixels of {height:.3g} x {width:.3g} mm), the best is {IN_WORDS[best]} with a "
            f"correlation of {correlation:.2f}; see {picture}"
        )


def check_sure(source: Source, found: Registration, min_correlation: float, refused: Path) -> None:
    """Refuse a radiograph whose camera could not be measured with certainty.

    Args:
        source: The case.
        found: Its registration.
        min_correlation: Least correlation with what the camera gives.
        refused: Folder for a picture of the match.

    Raises:
        ValueError: If it is not sure.
    """
    if not found.is_sure(min_correlation):
        view, correlation = found.camera.name, found.orientation["correlation"]
        save_comparison(picture := refused / f"{source.case_id}_{view}.png", found)
        raise ValueError(
            f"{source.radiographs.get(view, source.path)}: no camera fits the CT with certainty in the view {view}: "
            f"the best has a correlation of {correlation:.3f} and an error of about {found.error_mm:.1f} mm, at most "
            f"{MAX_ERROR:g} mm are allowed; is it a radiograph of this CT? See {picture}"
        )


def _registered(
    source: Source, ct: CT, radiograph: Radiograph, camera: Camera, offset: Sequence[float]
) -> Registration:
    volume, affine = standardize(ct.ct_hu, ct.affine)
    try:
        found = register(radiograph.image, volume[None], np.diag(affine)[:3].tolist(), camera, mask=radiograph.valid)
    except ValueError as error:
        raise ValueError(f"{source.radiographs.get(camera.name, source.path)}: {error}") from error
    return replace(found, camera=found.camera.shifted(offset))


def _copy(original: Path, stem: Path) -> Path:
    """A copy of a radiograph with its side-car, if it has one; a JSON file of others may hold anything."""
    path = stem.with_name(stem.name + original.suffix)
    shutil.copyfile(original, path)
    if read_side_car(original) is not None:
        shutil.copyfile(side_car_of(original), side_car_of(path))
    return path


def _write_picture(stem: Path, picture: Tensor) -> Path:
    """Write whole numbers up to 255 as 8-bit PNG, and anything else as .npy."""
    if torch.equal(picture, picture.round().clamp(0, 255)):
        write_picture(path := stem.with_name(stem.name + ".png"), picture.numpy().astype(np.uint8))
    else:
        write_array(path := stem.with_name(stem.name + ".npy"), picture.numpy())
    return path


def _check_upright(source: Source, ct: CT, matches: Sequence[Match]) -> None:
    """X2CT's pictures are upright: if all fit upside down, or one fits turned, the array's axes are not as assumed."""
    turned = [match for match in matches if match.orientation["transform"] in TURNED]
    if turned:
        how = IN_WORDS[turned[0].orientation["transform"]]
        raise ValueError(
            f"{source.path}: a radiograph fits only {how}, so the array's axes are not {ct.header['axes']}; give "
            "--h5_axes as they are"
        )
    if all(match.orientation["transform"] in UPSIDE_DOWN for match in matches):
        axes = str(ct.header["axes"])
        raise ValueError(
            f"{source.path}: all radiographs fit upside down, so the array's axes are not {axes}; "
            f"try --h5_axes {axes.translate(str.maketrans('SI', 'IS'))}"
        )


def middle_of(affine: Tensor, shape: Sequence[int]) -> np.ndarray:
    """The middle of a volume in world mm (3,), from its affine and its shape."""
    matrix = affine.double().numpy()
    return np.asarray(matrix[:3, :3] @ ((np.array(shape) - 1) / 2) + matrix[:3, 3])
