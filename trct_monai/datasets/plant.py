"""`plant`: spheres of known size and contrast in the lungs of a data set's patients, in CT and radiographs alike."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.data import MetaTensor
from scipy import ndimage
from torch import Tensor

from trct_monai.arguments import parse_numbers
from trct_monai.datasets.cases import is_finished, load_cases, write_label, write_page
from trct_monai.datasets.driver import run_cases
from trct_monai.datasets.split import DATALIST, write_split
from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU, MU_WATER, STORED_HU
from trct_monai.io.datalist import RADIOGRAPHS, load_datalist, read_datalist
from trct_monai.io.files import remove_partial, replacing_folder
from trct_monai.io.nifti import read_volume
from trct_monai.io.radiograph import save_radiograph
from trct_monai.metrics.anatomy import find_lungs
from trct_monai.metrics.detectability import Sphere
from trct_monai.transforms import LoadRadiographsd

NEEDED = ("patient_id", "label", "image", "views", "cameras", "orientation", "intensity", "voxels", "pixels")
"""What a case must have to take a sphere."""


SUBPIXELS = 4


AIRWAY = 7.0
"""Tissue is told from air by the mean over a cube of this side in mm: noise is no air, the trachea is."""


@dataclass(frozen=True)
class PlantOptions:
    """What is planted; see `plant` for each."""

    diameters: tuple[float, ...]
    contrasts: tuple[float, ...]
    seed: int


def plant(
    *,
    datalist: str,
    output: str,
    section: str = "test",
    diameters: str = "10/20/40",
    contrasts: str = "200/500/1000",
    cases: int | None = 10,
    seed: int = 0,
    num_workers: int = 2,
) -> None:
    """Make a data set that asks which lesions a method can show: contrast against size.

    Its test section holds the first cases of a section, and each of them again with every sphere, one at a time, at one
    place in the lungs. Reconstruct it with any method; `evaluate` then prints how often the spheres are seen. The run
    can be interrupted; the same command goes on where it stopped.

    Args:
        datalist: Datalist of the patients; their radiographs must hold line integrals.
        output: Folder to write.
        section: Section whose cases are taken.
        diameters: Diameters of the spheres in mm, as 10/20/40.
        contrasts: HU that a sphere adds to the lung, as 200/500/1000.
        cases: Number of patients; all of the section if None.
        seed: Another seed chooses other places.
        num_workers: Number of processes.
    """
    sizes, additions = (_positive(text, name) for text, name in ((diameters, "diameters"), (contrasts, "contrasts")))
    options = PlantOptions(sizes, additions, seed)
    patients = load_datalist(datalist, section, task=RADIOGRAPHS, fields=NEEDED)[:cases]
    if not patients or (cases is not None and cases < 1):
        raise ValueError(f"{datalist}: section {section!r} has no case to plant spheres in, or cases is not positive")
    target = Path(output)
    sources = {Path(datalist).resolve().parent, *(Path(case["label"]).resolve().parent.parent for case in patients)}
    if target.resolve() in sources:
        raise ValueError(f"{target} holds the patients themselves, who would be written over; give another --output")
    jobs = [(case["case_id"], case) for case in patients]
    names = [case_id for case in patients for case_id in (case["case_id"], *_spheres(case["case_id"], options))]
    remove_partial(target, names)
    refused = run_cases(
        partial(_plant_in, options=options, output=target), jobs, num_workers=num_workers, description="plant"
    )
    if refused:
        raise ValueError(f"{len(refused)} of {len(jobs)} cases cannot take a sphere; {refused[0][1]}")
    made = {case["case_id"]: case for case in load_cases(target)}
    kept = {"geometry", "extent", "label_size"}
    header = {
        "name": "planted spheres",
        "description": f"{len(patients)} patients, each without and with spheres of {diameters} mm and {contrasts} HU",
        **{key: value for key, value in read_datalist(datalist).items() if key in kept},
        "hu_window": list(STORED_HU),
    }
    sections: dict[str, list[Any]] = {"training": [], "validation": [], "test": [made[name] for name in names]}
    write_split(target / DATALIST, sections, header)


def chord_lengths(sphere: Sphere, camera: Camera) -> Float[Tensor, "H W"]:
    """Length in mm that each pixel's rays run inside a sphere, 2 sqrt(r^2 - d^2), the mean of 4 x 4 rays a pixel.

    Args:
        sphere: The sphere, its centre in mm from the isocentre.
        camera: The view.
    """
    fine = camera.resized((camera.size[0] * SUBPIXELS, camera.size[1] * SUBPIXELS))
    r, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in fine.size), indexing="ij")
    pixels = torch.stack([c, r, torch.ones_like(c)], dim=-1) @ fine.pixel_to_world().T
    if fine.source is None:
        direction = torch.tensor(fine.normal, dtype=torch.float64).expand_as(pixels)
    else:
        direction = torch.nn.functional.normalize(pixels - torch.tensor(fine.source, dtype=torch.float64), dim=-1)
    offset = torch.tensor(sphere.center_mm, dtype=torch.float64) - pixels
    squared_distance = offset.square().sum(-1) - (offset * direction).sum(-1).square()
    chords = 2 * ((sphere.diameter_mm / 2) ** 2 - squared_distance).clamp(min=0).sqrt()
    rows, columns = camera.size
    mean: Tensor = chords.reshape(rows, SUBPIXELS, columns, SUBPIXELS).mean((1, 3)).float()
    return mean


def find_lung_tissue(hu: np.ndarray, voxel_spacing: float) -> np.ndarray:
    """Where the lungs are neither airway nor another pocket of air.

    Args:
        hu: CT numbers (X, Y, Z), RAS.
        voxel_spacing: Voxel side in mm.
    """
    mean = ndimage.uniform_filter(hu, max(1, round(AIRWAY / voxel_spacing)))
    return np.asarray(find_lungs(hu, voxel_spacing) & (mean > BODY_HU))


def choose_place(
    lungs: np.ndarray, voxel_spacing: float, radius: float, case_id: str, seed: int
) -> tuple[float, float, float]:
    """A voxel of the lungs, drawn by the case's name, around which a sphere of this radius stays in the lungs.

    Args:
        lungs: True in the lungs (X, Y, Z).
        voxel_spacing: Voxel side in mm.
        radius: Radius in mm that must fit; where it fits nowhere, the place with the most room is taken.
        case_id: The case.
        seed: Another seed draws another place.

    Returns:
        Its centre in mm from the middle of the volume.

    Raises:
        ValueError: If there are no lungs.
    """
    if not lungs.any():
        raise ValueError(f"{case_id} has no lungs to plant a sphere in")
    # From the voxel's middle to the face of the nearest voxel that is not lung; beyond the volume there is none.
    room = (ndimage.distance_transform_edt(np.pad(lungs, 1))[1:-1, 1:-1, 1:-1] - 0.5) * voxel_spacing
    places = np.argwhere(room >= min(radius, float(room.max())))
    draw = int(hashlib.sha256(f"{seed} {case_id}".encode()).hexdigest(), 16)
    index = places[draw % len(places)]
    x, y, z = ((index - (np.array(lungs.shape) - 1) / 2) * voxel_spacing).tolist()
    return x, y, z


def _positive(text: str, name: str) -> tuple[float, ...]:
    numbers = parse_numbers(text, None, name, "10/20/40")
    if min(numbers) <= 0 or len({f"{number:g}" for number in numbers}) < len(numbers):
        raise ValueError(f"{name} must be different positive numbers, got {text!r}")
    return numbers


def _spheres(case_id: str, options: PlantOptions) -> dict[str, tuple[float, float]]:
    """Diameter and contrast by the planted case's name."""
    return {f"{case_id}_d{d:g}_c{c:g}": (d, c) for d in options.diameters for c in options.contrasts}


def _plant_in(case: dict[str, Any], options: PlantOptions, output: Path) -> str:
    """Write a patient and all that is planted in it; returns why that cannot be."""
    try:
        if not all(one["quantitative"] for one in case["intensity"]):
            raise ValueError("its radiographs are not quantitative: nobody knows how dark a sphere would be in them")
        truth = read_volume(case["label"])
        cameras = [Camera.from_dict(camera) for camera in case["cameras"]]
        radiographs = LoadRadiographsd()({key: case[key] for key in case if key != "label"})["image"]
        spacing, size = float(truth.pixdim[0]), (radiographs.shape[-2], radiographs.shape[-1])
        cameras = [camera.resized(size) for camera in cameras]
        lungs = find_lung_tissue(truth[0].numpy(), spacing)
        center = choose_place(lungs, spacing, max(options.diameters) / 2, case["case_id"], options.seed)
        spheres = {name: Sphere(center, *numbers) for name, numbers in _spheres(case["case_id"], options).items()}
        for sphere in spheres.values():
            _check_shows(sphere, truth.shape[1:], spacing)
    except (ValueError, OSError) as error:
        return f"{case['case_id']}: {error}"
    source = {"voxels": case.get("voxels"), "pixels": case.get("pixels"), "case_id": case["case_id"]}
    _write(output, case, case["case_id"], truth, radiographs, cameras, options, source, None)
    for name, sphere in spheres.items():
        share = torch.from_numpy(sphere.share(truth.shape[1:], spacing)).float()
        chords = torch.stack([chord_lengths(sphere, camera) for camera in cameras])
        shadows = chords * (MU_WATER * sphere.contrast_hu / 1000)
        planted = truth + sphere.contrast_hu * share
        _write(output, case, name, planted, radiographs + shadows, cameras, options, source, sphere)
    return ""


def _check_shows(sphere: Sphere, shape: Sequence[int], voxel_spacing: float) -> None:
    """Refuse a sphere that the cube cuts, and one that the observer cannot see in the label's whole HU either."""
    what = f"a sphere of {sphere.diameter_mm:g} mm and {sphere.contrast_hu:g} HU"
    if max(map(abs, sphere.center_mm)) + sphere.diameter_mm / 2 > min(shape) * voxel_spacing / 2:
        raise ValueError(f"{what} does not fit into the cube where there is lung; plant smaller ones")
    if sphere.response((sphere.contrast_hu * sphere.share(shape, voxel_spacing)).round(), voxel_spacing) <= 0:
        raise ValueError(f"{what} does not show in voxels of {voxel_spacing:g} mm; plant larger ones")


def _write(
    output: Path,
    case: Mapping[str, Any],
    case_id: str,
    truth: MetaTensor,
    radiographs: Tensor,
    cameras: Sequence[Camera],
    options: PlantOptions,
    source: Mapping[str, Any],
    sphere: Sphere | None,
) -> None:
    made_by, origin = asdict(options), {**source, "made": case_id}
    if is_finished(output / case_id, made_by, origin):
        return
    with replacing_folder(output / case_id) as folder:
        names = [f"{case_id}_{camera.name}_drr.png" for camera in cameras]
        for name, image, camera in zip(names, radiographs, cameras):
            save_radiograph(folder / name, image, camera)
        page: dict[str, Any] = {
            "case_id": case_id,
            "patient_id": case["patient_id"],
            "label": f"{case_id}.nii.gz",
            "image": names,
            "views": case["views"],
            "cameras": [camera.to_dict() for camera in cameras],
            # The radiographs were brought to our convention when they were read.
            "orientation": [{**one, "transform": "identity"} for one in case["orientation"]],
            "intensity": [{"quantitative": True, "gain": None, "offset": None} for _ in cameras],
            "voxels": write_label(folder / f"{case_id}.nii.gz", truth, truth.affine, STORED_HU),
            "provenance": {"format": "planted", "from": case["case_id"]},
        }
        if sphere is not None:
            page["planted"] = {"base": case["case_id"], **asdict(sphere)}
        write_page(folder, page, made_by, origin)
