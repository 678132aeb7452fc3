"""One CT into one case: its cube, its radiographs, and how those lie."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.datasets.cases import write_label, write_page
from trct_monai.datasets.sources import LAYOUTS, Source
from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import preset
from trct_monai.intensity import check_hu_window
from trct_monai.io.ct import CT, read_ct
from trct_monai.io.datalist import Intensity, Orientation
from trct_monai.io.dicom.writer import RESAMPLED, write_ct_series
from trct_monai.io.files import replacing_folder, write_array, write_picture
from trct_monai.io.nifti import write_nifti
from trct_monai.io.radiograph import read_radiograph, save_radiograph
from trct_monai.io.x2ct import read_x2ct_radiographs
from trct_monai.physics import degrade
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.projector import project_hu
from trct_monai.registration.orientation import measure, save_comparison

RENDER_SPACING = 1.25
"""Voxel side in mm of the CT from which radiographs are rendered, unless it is coarser itself: finer than the label, or
the task were too easy."""


@dataclass(frozen=True)
class Options:
    """What makes a case; see `prepare` for each."""

    size: int
    extent: float
    geometry: str
    radiograph_size: int
    hu_window: Sequence[float]
    remove_table: bool
    nifti: bool
    dicom: bool
    photons: float | None
    scatter_fraction: float
    min_correlation: float
    h5_axes: str

    def __post_init__(self) -> None:
        check_hu_window(self.hu_window)
        preset(self.geometry, self.radiograph_size)
        if self.size < 8 or self.radiograph_size < 8 or self.extent <= 0:
            raise ValueError(
                f"size, radiograph_size (at least 8) and extent must be positive, got {self.size}, "
                f"{self.radiograph_size} and {self.extent} mm"
            )


def prepare_case(source: Source, options: Options, root: Path, output: Path) -> None:
    """Read one CT, make its cube and its radiographs, and write the case.

    Args:
        source: The case.
        options: How to make it.
        root: Folder to which the recorded source is relative.
        output: Folder of the cases.

    Raises:
        ValueError: If the CT or a radiograph is refused.
    """
    ct = read_ct(source.path, source.files, options.h5_axes)
    protocol = CTPreprocessing(options.size, options.extent, remove_table=options.remove_table)
    rendered = not source.radiographs and source.format != "HDF5"
    fine_size = max(options.size, round(options.extent / max(RENDER_SPACING, min(ct.spacing))))
    try:
        cube, *fine = protocol.cubes(ct.ct_hu, [options.size, *([fine_size] if rendered else [])], ct.affine)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    with replacing_folder(output / source.case_id) as folder:
        label = f"{source.case_id}.nii.gz"
        voxels = write_label(folder / label, cube, cube.affine, options.hu_window)
        if options.dicom:
            stored = cube[0].as_tensor().clamp(*options.hu_window).numpy()
            study = {"PatientID": source.patient_id}
            write_ct_series(stored, cube.affine.numpy(), folder / f"{source.case_id}_dicom", study, RESAMPLED)
        if rendered:
            views = _render(source, fine[0], options, folder)
        else:
            views = _keep(source, ct, cube, options, folder)
        measured = [_measure(source, folder / name, cube, cameras, options, output) for name, cameras in views]
        _check_upright(source, measured, options)
        case = {
            "case_id": source.case_id,
            "patient_id": source.patient_id,
            "label": label,
            "image": [name for name, _ in views],
            "views": [view.camera.name for view in measured],
            "cameras": [view.camera.to_dict() for view in measured],
            "orientation": [view.orientation for view in measured],
            "intensity": [view.intensity for view in measured],
            "voxels": voxels,
            "provenance": {
                **source.fingerprint(root),
                "format": source.format,
                "layout": LAYOUTS[source.layout],
                "shape": list(ct.ct_hu.shape[1:]),
                "spacing_mm": [round(side, 6) for side in ct.spacing],
                "radiographs": "rendered" if rendered else "given",
                **ct.header,
            },
        }
        write_page(folder, case, asdict(options), source.fingerprint(root))


def _render(source: Source, fine: MetaTensor, options: Options, folder: Path) -> list[tuple[str, list[Camera]]]:
    """Radiographs of the CT at `RENDER_SPACING`, written with their side-cars."""
    cameras = list(preset(options.geometry, options.radiograph_size))
    images = project_hu(fine, cameras, options.extent / fine.shape[-1])
    generator = torch.Generator().manual_seed(int(hashlib.sha256(source.case_id.encode()).hexdigest()[:12], 16))
    images = degrade(
        images[None],
        cameras[0].pixel_spacing,
        scatter_fraction=options.scatter_fraction,
        photons=inf if options.photons is None else options.photons,
        generator=generator,
    )[0]
    views = []
    for image, camera in zip(images, cameras):
        name = f"{source.case_id}_{camera.name}_drr.png"
        save_radiograph(folder / name, image, camera)
        if options.nifti:
            height, width = camera.pixel_spacing
            nifti = name.replace(".png", ".nii.gz")
            write_nifti(folder / nifti, image.T[:, :, None].numpy(), np.diag([width, height, 1.0, 1.0]))
        views.append((name, [camera]))
    return views


def _keep(source: Source, ct: CT, cube: MetaTensor, options: Options, folder: Path) -> list[tuple[str, list[Camera]]]:
    """The radiographs that came with the CT, as they are, with the cameras that may have taken them.

    Cameras are in the cube's coordinates; the given CT's centre is taken as the isocentre of the radiographs.
    """
    cameras = {camera.name: camera for camera in preset(options.geometry)}
    shift = _center(ct.affine, ct.ct_hu.shape[1:]) - _center(cube.affine, cube.shape[1:])
    offset = (float(shift[0]), float(shift[1]), float(shift[2]))
    views = []
    pictures = read_x2ct_radiographs(source.path) if source.format == "HDF5" else {}
    missing = [view for view in cameras if view not in pictures and view not in source.radiographs]
    if missing:
        raise ValueError(f"{source.path}: no radiograph of the view {', '.join(missing)} beside it")
    for view, camera in cameras.items():
        if view in pictures:
            name = _write_picture(folder / f"{source.case_id}_{view}_drr", pictures[view])
        else:
            original = source.radiographs[view]
            name = f"{source.case_id}_{view}_drr{original.suffix}"
            shutil.copyfile(original, folder / name)
            if original.with_suffix(".json").is_file():
                shutil.copyfile(original.with_suffix(".json"), (folder / name).with_suffix(".json"))
        radiograph = read_radiograph(folder / name)
        if radiograph.camera is not None:
            candidates = [radiograph.camera]
        else:
            camera = camera.resized((radiograph.image.shape[0], radiograph.image.shape[1]))
            candidates = [camera, camera.opposite()]
        views.append((name, [candidate.shifted(offset) for candidate in candidates]))
    return views


def _write_picture(stem: Path, picture: Tensor) -> str:
    """Write whole numbers up to 255 as 8-bit PNG, and anything else as .npy."""
    if torch.equal(picture, picture.round().clamp(0, 255)):
        write_picture(path := stem.with_name(stem.name + ".png"), picture.numpy().astype(np.uint8))
    else:
        write_array(path := stem.with_name(stem.name + ".npy"), picture.numpy())
    return path.name


@dataclass(frozen=True)
class _MeasuredView:
    camera: Camera
    orientation: Orientation
    intensity: Intensity


def _measure(
    source: Source, path: Path, cube: MetaTensor, cameras: Sequence[Camera], options: Options, output: Path
) -> _MeasuredView:
    """The camera and the orientation in which a radiograph fits the CT best.

    Raises:
        ValueError: If it fits in none; a picture of the best is written.
    """
    radiograph = read_radiograph(path)
    matches = [(measure(radiograph.image, cube, options.extent, camera), camera) for camera in cameras]
    match, camera = max(matches, key=lambda pair: abs(pair[0].orientation["correlation"]))
    correlation = match.orientation["correlation"]
    if abs(correlation) < options.min_correlation:
        picture = output / "refused" / f"{source.case_id}_{camera.name}.png"
        save_comparison(picture, match)
        original = source.radiographs.get(camera.name, source.path)
        raise ValueError(
            f"{original}: no flip or turn fits our projection of the CT in the view {camera.name}, the best is "
            f"{match.orientation['transform']} with a correlation of {correlation:.2f}; see {picture}"
        )
    certain = radiograph.camera is not None and radiograph.quantitative
    if certain or match.intensity["quantitative"]:
        return _MeasuredView(camera, match.orientation, {"quantitative": True, "gain": None, "offset": None})
    return _MeasuredView(camera, match.orientation, match.intensity)


def _check_upright(source: Source, views: Sequence[_MeasuredView], options: Options) -> None:
    """X2CT's pictures are upright: if all fit upside down, it is the array that was taken the wrong way round."""
    if source.format == "HDF5" and all(v.orientation["transform"] in ("flip_rows", "rotate_180") for v in views):
        turned = options.h5_axes.translate(str.maketrans("SI", "IS"))
        raise ValueError(
            f"{source.path}: all radiographs fit upside down, so the array's axes are not {options.h5_axes}; "
            f"try --h5_axes {turned}"
        )


def _center(affine: Tensor, shape: Sequence[int]) -> np.ndarray:
    matrix = affine.double().numpy()
    return np.asarray(matrix[:3, :3] @ ((np.array(shape) - 1) / 2) + matrix[:3, 3])
