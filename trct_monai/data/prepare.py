"""`prepare`: any of the layouts understood becomes a folder of cases and a datalist."""

import hashlib
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from PIL import Image
from torch import Tensor

from trct_monai.data.batch import (
    EARLY_STOP,
    in_shard,
    parse_numbers,
    parse_shard,
    reason_if_refused,
    run_cases,
    too_many,
)
from trct_monai.data.cases import (
    case_folder,
    is_finished,
    load_cases,
    remove_partial,
    write_label,
    write_nifti,
    write_page,
)
from trct_monai.data.datalist import Intensity, Orientation
from trct_monai.data.orientation import (
    MIN_CORRELATION,
    measure,
    opposite_camera,
    project_cube,
    save_comparison,
    shift_camera,
)
from trct_monai.data.phases import is_phase_layout, prepare_phases
from trct_monai.data.readers import CT, read_ct, read_x2ct_radiographs
from trct_monai.data.sources import LAYOUTS, Found, Source, find_sources
from trct_monai.data.split import DATALIST, check_fractions, split_by_hash, write_split
from trct_monai.geometry import DEFAULT_EXTENT, Camera, preset
from trct_monai.intensity import check_hu_window
from trct_monai.physics import degrade
from trct_monai.transforms import CTPreprocessing, read_radiograph, save_radiograph
from trct_monai.transforms.dicom import RESAMPLED, write_ct_series

RENDER_SPACING = 1.25
"""Voxel side in mm of the CT from which radiographs are rendered, unless it is coarser itself: finer than the label, or
the task were too easy."""

STORED_HU = (-1024.0, 3071.0)
"""Range of 12-bit CT numbers. Labels keep all of it; the network's window is chosen when they are loaded."""


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


def prepare(
    input: str,
    output: str,
    size: int = 128,
    geometry: str = "x2ct",
    views: int | None = None,
    radiograph_size: int = 512,
    extent: float = DEFAULT_EXTENT,
    hu_window: Sequence[float] | str = STORED_HU,
    remove_table: bool = False,
    nifti: bool = False,
    dicom: bool = False,
    photons: float | None = None,
    scatter_fraction: float = 0.0,
    min_correlation: float = MIN_CORRELATION,
    min_slices: int = 16,
    h5_axes: str = "SPL",
    num_workers: int = 2,
    shard: str = "1/1",
    max_skipped: float = 0.05,
    fractions: str = "0.7/0.15/0.15",
    seed: int = 0,
) -> None:
    """Turn a folder of CTs, with or without radiographs, into cases and a datalist.

    Understood, and found out by itself: DICOM (nested), NIfTI, MetaImage and NRRD; a CT with radiographs beside it
    (NAME_pa_drr.png, _lat_drr, _frontal, _lateral, _pa, _lat, also .npy and .dcm); X2CT's ct_xray_data.h5. Radiographs
    that come with a CT are kept and their orientation is measured; others are rendered. The run can be interrupted;
    the same command goes on where it stopped and does nothing twice.

    A folder with trainA, trainB, testA and testB holds pairs of a time average and phase 0 for the phase generator:
    they keep their voxels and their sections, and nothing of what is said here of cubes and radiographs applies.

    Args:
        input: Folder to read.
        output: Folder to write.
        size: Voxels along each side of the label.
        geometry: parallel, x2ct, clinic or circle-N.
        views: Number of views over 180 degrees, short for --geometry circle-N.
        radiograph_size: Rows and columns of rendered radiographs.
        extent: Side in mm of the cube around the body.
        hu_window: Labels are clipped to it, as low,high.
        remove_table: Replace all outside the body by air.
        nifti: Write rendered radiographs as float NIfTI too.
        dicom: Write the label as a DICOM series too, NAME_dicom.
        photons: Detected photons per pixel in the open beam, for quantum noise in rendered radiographs.
        scatter_fraction: Share of scatter in rendered radiographs.
        min_correlation: A radiograph that fits our projection less than this in every orientation is refused.
        min_slices: Shorter DICOM series are skipped and listed.
        h5_axes: Where the axes of X2CT's arrays point.
        num_workers: Number of processes.
        shard: Part i/n of the cases, to share the work between n machines.
        max_skipped: Share of refused cases above which the run fails.
        fractions: Shares of training / validation / test; `split` can redo it.
        seed: Seed of the split.
    """
    if views is not None:
        geometry = f"circle-{views}"
    low, high = parse_numbers(hu_window.replace(",", "/") if isinstance(hu_window, str) else hu_window, 2, "hu_window")
    options = Options(
        size, float(extent), geometry, radiograph_size, (low, high), remove_table, nifti, dicom, photons,
        scatter_fraction, min_correlation, h5_axes,
    )  # fmt: skip
    shares = check_fractions(fractions)
    parse_shard(shard)
    root, target = Path(input), Path(output)
    if target.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"output {target} must not lie in input {root}, which is searched for CTs")
    if is_phase_layout(root):
        prepare_phases(
            root, target, min_slices=min_slices, num_workers=num_workers, shard=shard, max_skipped=max_skipped,
            fractions=shares, seed=seed,
        )  # fmt: skip
        return
    found = find_sources(root, min_slices)
    _describe(root, found)
    total = len(found.sources) + len(found.refused)
    mine = [source for source in found.sources if in_shard(source.case_id, shard)]
    remove_partial(target, [source.case_id for source in mine])
    page = asdict(options)
    todo = [s for s in mine if not is_finished(target / s.case_id, page, s.fingerprint(root))]
    if len(todo) < len(mine):
        print(f"{len(mine) - len(todo)} of {len(mine)} cases are there already")
    refused = [(str(path), f"{path}: {reason}") for path, reason in found.refused]
    refused += run_cases(
        partial(reason_if_refused, partial(prepare_case, options=options, root=root, output=target)),
        [(source.case_id, source) for source in todo],
        num_workers=num_workers,
        description="prepare",
        stop=lambda list_: len(list_) >= EARLY_STOP and too_many(len(list_), total, max_skipped),
    )
    if too_many(len(refused), total, max_skipped):
        raise ValueError(
            f"{len(refused)} of {total} cases refused, more than --max_skipped {max_skipped:g}; "
            "the others are written, and no datalist"
        )
    cases = load_cases(target)
    if not cases:
        raise ValueError(f"{root}: no CT found")
    header = {
        "name": target.absolute().name,
        "description": f"{len(cases)} CTs with radiographs, prepared from {root.absolute().name}",
        "geometry": geometry,
        "extent": options.extent,
        "label_size": size,
        "hu_window": list(options.hu_window),
        "split": {"by": "hash", "fractions": list(shares), "seed": seed},
    }
    made_otherwise = [case["case_id"] for case in cases if case["provenance"]["options"] != _as_lists(page)]
    if made_otherwise:
        raise ValueError(
            f"{target}: {', '.join(made_otherwise[:5])} were made with other options; use another output folder"
        )
    print(f"{len(mine) - len(refused)} cases in this run, {len(refused)} refused, {len(cases)} in {target}")
    write_split(target / DATALIST, split_by_hash(cases, shares, seed), header)


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
    ct = read_ct(source, options.h5_axes)
    protocol = CTPreprocessing(options.size, options.extent, remove_table=options.remove_table)
    rendered = not source.radiographs and source.format != "HDF5"
    fine_size = max(options.size, round(options.extent / max(RENDER_SPACING, min(ct.spacing))))
    try:
        cube, *fine = protocol.cubes(ct.ct_hu, [options.size, *([fine_size] if rendered else [])], ct.affine)
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    with case_folder(output, source.case_id) as folder:
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
    images = project_cube(fine, options.extent, cameras)
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
            candidates = [camera, opposite_camera(camera)]
        views.append((name, [shift_camera(candidate, offset) for candidate in candidates]))
    return views


def _write_picture(stem: Path, picture: Tensor) -> str:
    """Write whole numbers up to 255 as 8-bit PNG, and anything else as .npy."""
    if torch.equal(picture, picture.round().clamp(0, 255)):
        path = stem.with_name(stem.name + ".png")
        Image.fromarray(picture.numpy().astype(np.uint8)).save(path)
    else:
        path = stem.with_name(stem.name + ".npy")
        np.save(path, picture.numpy())
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


def _describe(root: Path, found: Found) -> None:
    layouts = Counter((source.layout, source.format) for source in found.sources)
    for (layout, file_format), count in sorted(layouts.items()):
        print(f"{root}: {count} {LAYOUTS[layout]} in {file_format} (layout {layout})")
    for path, reason in found.skipped:
        print(f"skipped  {path}: {reason}")
    for path, reason in found.refused:
        print(f"refused  {path}: {reason}")
    if found.other_files:
        print(f"{found.other_files} files of other kinds left alone")


def _center(affine: Tensor, shape: Sequence[int]) -> np.ndarray:
    matrix = affine.double().numpy()
    return np.asarray(matrix[:3, :3] @ ((np.array(shape) - 1) / 2) + matrix[:3, 3])


def _as_lists(page: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in page.items()}
