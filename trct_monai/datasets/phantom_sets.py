"""`phantoms`: thorax phantoms as cases, in the same layout as patients."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from trct_monai.arguments import parse_counts, parse_names
from trct_monai.datasets.cases import CaseFolder, write_ct, write_radiographs
from trct_monai.datasets.checksum import describe_checksum
from trct_monai.datasets.driver import Job, Product, Recipe, make_data_set
from trct_monai.datasets.phantom_phases import other_version, phantom_name, write_phases
from trct_monai.datasets.split import DATALIST, Sections
from trct_monai.datasets.workers import parse_shard
from trct_monai.geometry import DEFAULT_EXTENT, preset
from trct_monai.intensity import STORED_HU
from trct_monai.io.case import Case
from trct_monai.io.datalist import SECTIONS, read_datalist
from trct_monai.io.nifti import write_nifti
from trct_monai.phantoms import Phantom, thorax_phantom
from trct_monai.phantoms.findings import FINDINGS
from trct_monai.phantoms.patient import VERSIONS
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.projector import project_hu
from trct_monai.registration.orientation import measure
from trct_monai.resampling import resample

OVERSAMPLING = 2
"""The phantom is drawn this much finer than its label, so that radiographs do not come from the label itself."""

DEFAULT_COUNT = 500
DEFAULT_SHARES = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class PhantomOptions:
    """What makes a phantom's case; see `phantoms` for each."""

    size: int
    extent: float
    geometry: str
    radiograph_size: int
    findings: tuple[str, ...] | None
    version: int = 1

    def __post_init__(self) -> None:
        preset(self.geometry, self.radiograph_size)
        if self.version not in VERSIONS:
            raise ValueError(f"version must be {' or '.join(map(str, VERSIONS))}, got {self.version}")
        unknown = [name for name in self.findings or () if name not in FINDINGS]
        if unknown:
            raise ValueError(f"findings must be out of {', '.join(FINDINGS)}, got {', '.join(unknown)}")
        if self.size < 8 or self.radiograph_size < 8:
            raise ValueError(f"size and radiograph_size must be at least 8, got {self.size} and {self.radiograph_size}")


def phantoms(
    output: str,
    count: int | None = None,
    size: int = 64,
    seed: int = 0,
    geometry: str = "x2ct",
    radiograph_size: int = 128,
    extent: float = DEFAULT_EXTENT,
    findings: str | Sequence[str] | None = None,
    split: str | None = None,
    phases: int | None = None,
    version: int = 1,
    num_workers: int = 2,
    shard: str = "1/1",
) -> None:
    """Make thorax phantoms with radiographs, labels, masks of their findings, and a datalist.

    With `phases` it makes pairs for the phase generator instead: trainA, valA and testA hold the average over so many
    phases of heart beat and breath, trainB, valB and testB phase 0.

    The same arguments give the same files. The run can be interrupted; the same command goes on where it stopped.
    Phantoms rank methods and catch mistakes; nothing clinical can be read from them.

    Args:
        output: Folder to write.
        count: Number of phantoms; the sum of `split` if not given, else 500.
        size: Voxels along each side of the label.
        seed: Seed of the first phantom; the others have the next numbers.
        geometry: parallel, x2ct, clinic or circle-N.
        radiograph_size: Rows and columns of the radiographs.
        extent: Side of the cube in mm.
        findings: Findings to show in every phantom, separated by commas; none for healthy; drawn if not given.
        split: Numbers of training/validation/test phantoms in the order of their seeds; 80, 10 and 10 % if not given.
        version: 1, the anatomy of the benchmark PhantomThorax-64; or 2, chests and spines shaped more like patients'.
        phases: Phases of a cycle, for pairs of an average and phase 0 in place of radiographs.
        num_workers: Number of processes.
        shard: Part i/n of the phantoms, to share the work between n machines.
    """
    counts = split_counts(split, count)
    count = sum(counts)
    if count < 1 or seed < 0:
        raise ValueError(f"count must be positive and seed not negative, got {count} and {seed}")
    options = PhantomOptions(size, float(extent), geometry, radiograph_size, _findings(findings), version)
    parse_shard(shard)
    target, bounds = Path(output), [seed, seed + counts[0], seed + counts[0] + counts[1], seed + count]
    seeds = {section: range(*bounds[i : i + 2]) for i, section in enumerate(SECTIONS)}
    if phases is not None:
        write_phases(
            target, seeds, phases=phases, size=size, extent=options.extent, findings=options.findings,
            version=version, num_workers=num_workers, shard=shard,
        )  # fmt: skip
        return

    def arrange(cases: list[Case]) -> tuple[Sections, dict[str, Any]]:
        made = {case["case_id"]: case for case in cases}
        sections: Sections = {
            section: [made[name] for name in map(phantom_name, numbers) if name in made]
            for section, numbers in seeds.items()
        }
        return sections, {
            "name": f"PhantomThorax-{size}" + (f" version {version}" if version != 1 else ""),
            "description": f"{count} thorax phantoms from seed {seed}; no clinical claim can be read from them",
            "geometry": geometry,
            "extent": options.extent,
            "label_size": size,
            "hu_window": list(STORED_HU),
            "split": {"by": "index", "counts": list(counts), "seed": seed},
        }

    jobs = [Job((phantom_name(number),), number) for numbers in seeds.values() for number in numbers]
    products = partial(_products, options=options, output=target)
    stamped = {key: value for key, value in asdict(options).items() if key != "version"} | other_version(version)
    recipe = Recipe(products, stamped, "phantoms", "phantoms")
    make_data_set(target, jobs, recipe, arrange, num_workers=num_workers, shard=shard)
    print(describe_checksum(read_datalist(target / DATALIST)))


def split_counts(split: str | Sequence[int] | None, count: int | None) -> tuple[int, int, int]:
    """Numbers of training, validation and test phantoms.

    Raises:
        ValueError: If they do not add up to `count`.
    """
    if split is None:
        count = DEFAULT_COUNT if count is None else count
        validation, test = (int(share * count + 0.5) for share in DEFAULT_SHARES[1:])
        return count - validation - test, validation, test
    training, validation, test = parse_counts(split, 3, "split", "400/50/50")
    if count is not None and training + validation + test != count:
        raise ValueError(f"split must add up to count {count}, got {split!r}")
    return training, validation, test


def make_phantom(number: int, options: PhantomOptions, folder: Path) -> dict[str, Any]:
    """Draw one phantom and write its files.

    Args:
        number: Its seed.
        options: How to make it.
        folder: The case's folder.

    Returns:
        The fields of `Case` but for the digests of the files.
    """
    case_id = phantom_name(number)
    size, version = OVERSAMPLING * options.size, options.version
    phantom = thorax_phantom(number, size, options.extent, findings=options.findings, version=version)
    fine = MetaTensor(torch.from_numpy(phantom.ct_hu)[None], affine=torch.from_numpy(phantom.affine))
    cube = CTPreprocessing(options.size, options.extent).cubes(fine, [options.size])[0]
    cameras = list(preset(options.geometry, options.radiograph_size))
    images = project_hu(fine, cameras, options.extent / fine.shape[-1])
    orientation = [measure(image, cube, options.extent, camera).orientation for image, camera in zip(images, cameras)]
    return {
        "case_id": case_id,
        "patient_id": case_id,
        **write_ct(folder, case_id, cube, cube.affine),
        **write_radiographs(folder, case_id, images, cameras, orientation),
        "masks": _write_masks(phantom, case_id, cube, folder),
        "provenance": {"format": "phantom", "seed": number, "description": phantom.description},
    }


def _products(number: int, options: PhantomOptions, output: Path) -> Iterator[Product]:
    place = CaseFolder(output / phantom_name(number))
    yield Product(place, {"seed": number}, partial(make_phantom, number, options))


def _write_masks(phantom: Phantom, case_id: str, cube: MetaTensor, folder: Path) -> dict[str, str]:
    """The findings' masks at the label's resolution, by name."""
    files = {}
    for name in FINDINGS:
        if name in phantom.masks:
            fine = torch.from_numpy(phantom.masks[name]).float()
            mask = resample(fine, phantom.affine, tuple(cube.shape[1:]), cube.affine.numpy(), 0.0) >= 0.5
            files[name] = f"{case_id}_mask_{name}.nii.gz"
            write_nifti(folder / files[name], mask.numpy().astype(np.uint8), cube.affine.numpy())
    return files


def _findings(findings: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if findings is None:
        return None
    return tuple(name for name in parse_names(findings) if name.lower() != "none")
