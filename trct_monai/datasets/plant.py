"""`plant`: spheres of known size and contrast in the lungs of a data set's patients, in CT and radiographs alike."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.arguments import parse_numbers
from trct_monai.datasets.cases import CaseFolder, write_ct, write_radiographs
from trct_monai.datasets.driver import Job, Product, Recipe, make_data_set
from trct_monai.datasets.spheres import check_shows, choose_place, chord_lengths, find_lung_tissue
from trct_monai.datasets.split import Sections
from trct_monai.geometry import Camera
from trct_monai.intensity import MU_WATER, STORED_HU
from trct_monai.io.case import Case
from trct_monai.io.datalist import FIELDS, RADIOGRAPHS, load_datalist, read_datalist
from trct_monai.io.nifti import read_volume
from trct_monai.io.provenance import digest_file, digest_values
from trct_monai.io.radiograph import side_car_of
from trct_monai.metrics.sphere import Sphere
from trct_monai.transforms import LoadRadiographsd


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
    patients = load_datalist(datalist, section, task=RADIOGRAPHS, fields=FIELDS[RADIOGRAPHS])[:cases]
    if not patients or (cases is not None and cases < 1):
        raise ValueError(f"{datalist}: section {section!r} has no case to plant spheres in, or cases is not positive")
    target = Path(output)
    sources = {Path(datalist).resolve().parent, *(Path(case["label"]).resolve().parent.parent for case in patients)}
    if target.resolve() in sources:
        raise ValueError(f"{target} holds the patients themselves, who would be written over; give another --output")
    kept = {key: value for key, value in read_datalist(datalist).items() if key in ("geometry", "extent", "label_size")}

    def arrange(made: list[Case]) -> tuple[Sections, dict[str, Any]]:
        what = f"each without and with spheres of {diameters} mm and {contrasts} HU"
        return {"training": [], "validation": [], "test": made}, {
            "name": "planted spheres",
            "description": f"{len(patients)} patients, {what}",
            **kept,
            "hu_window": list(STORED_HU),
        }

    jobs = [Job((case["case_id"], *_spheres(case["case_id"], options)), case) for case in patients]
    products = partial(_products, options=options, output=target)
    recipe = Recipe(products, asdict(options), "plant", "patients")
    make_data_set(target, jobs, recipe, arrange, num_workers=num_workers)


def _positive(text: str, name: str) -> tuple[float, ...]:
    numbers = parse_numbers(text, None, name, "10/20/40")
    if min(numbers) <= 0 or len({f"{number:g}" for number in numbers}) < len(numbers):
        raise ValueError(f"{name} must be different positive numbers, got {text!r}")
    return numbers


def _spheres(case_id: str, options: PlantOptions) -> dict[str, tuple[float, float]]:
    """Diameter and contrast by the planted case's name."""
    return {f"{case_id}_d{d:g}_c{c:g}": (d, c) for d in options.diameters for c in options.contrasts}


class _Patient:
    """A case of a datalist, read when the first sphere needs it."""

    def __init__(self, case: Mapping[str, Any], options: PlantOptions) -> None:
        self.case, self.options = case, options

    @cached_property
    def truth(self) -> MetaTensor:
        """The CT in HU (1, X, X, X)."""
        return read_volume(self.case["label"])

    @cached_property
    def radiographs(self) -> Float[Tensor, "V H W"]:
        """Line integrals in our convention."""
        loaded: Tensor = LoadRadiographsd()({key: self.case[key] for key in self.case if key != "label"})["image"]
        return loaded

    @cached_property
    def cameras(self) -> list[Camera]:
        """The views, with the radiographs' pixels."""
        rows, columns = (int(n) for n in self.radiographs.shape[-2:])
        return [Camera.from_dict(camera).resized((rows, columns)) for camera in self.case["cameras"]]

    @cached_property
    def spheres(self) -> dict[str, Sphere]:
        """All spheres, by the names of their cases.

        Raises:
            ValueError: If the patient cannot take all of them.
        """
        if not all(one["quantitative"] for one in self.case["intensity"]):
            raise ValueError("its radiographs are not quantitative: nobody knows how dark a sphere would be in them")
        spacing, shape = float(self.truth.pixdim[0]), self.truth.shape[1:]
        case_id, radius = self.case["case_id"], max(self.options.diameters) / 2
        lungs = find_lung_tissue(self.truth[0].numpy(), spacing)
        center = choose_place(lungs, spacing, radius, case_id, self.options.seed)
        spheres = {name: Sphere(center, *numbers) for name, numbers in _spheres(case_id, self.options).items()}
        for sphere in spheres.values():
            check_shows(sphere, shape, spacing)
        return spheres

    def write(self, case_id: str, folder: Path) -> dict[str, Any]:
        """Write the patient with the sphere of a case, or as it is; the fields of `Case` but for the files' digests."""
        case = self.case
        try:
            sphere = self.spheres.get(case_id)
            truth, radiographs, cameras = self.truth, self.radiographs, self.cameras
        except (ValueError, OSError) as error:
            raise ValueError(f"{case['case_id']} cannot take a sphere: {error}") from error
        if sphere is not None:
            share = torch.from_numpy(sphere.share(truth.shape[1:], float(truth.pixdim[0]))).float()
            chords = torch.stack([chord_lengths(sphere, camera) for camera in cameras])
            truth = truth + sphere.contrast_hu * share
            radiographs = radiographs + chords * (MU_WATER * sphere.contrast_hu / 1000)
        return {
            "case_id": case_id,
            "patient_id": case["patient_id"],
            **write_ct(folder, case_id, truth, truth.affine),
            **write_radiographs(folder, case_id, radiographs, cameras, case["orientation"]),
            "provenance": {"format": "planted", "from": case["case_id"]},
            **({} if sphere is None else {"planted": {"base": case["case_id"], **asdict(sphere)}}),
        }


def _products(case: Mapping[str, Any], options: PlantOptions, output: Path) -> Iterator[Product]:
    """The patient as it is, and with each sphere."""
    patient, case_id = _Patient(case, options), case["case_id"]
    files = [Path(file) for file in (case["label"], *case["image"])]
    files += [side_car for file in files[1:] if (side_car := side_car_of(file)).is_file()]
    inputs = {file.name: digest_file(file) for file in files}
    inputs["views"] = digest_values([case[key] for key in ("patient_id", "cameras", "orientation", "intensity")])
    for name in (case_id, *_spheres(case_id, options)):
        yield Product(CaseFolder(output / name), {"case": name, **inputs}, partial(patient.write, name))
