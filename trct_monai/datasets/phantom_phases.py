"""`phantoms --phases`: time averages and phase 0 of breathing, beating phantoms, in pix2pix's layout."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trct_monai.datasets.cases import FilePair
from trct_monai.datasets.driver import Job, Product, Recipe, run_jobs
from trct_monai.datasets.phases import AVERAGE, FOLDERS, PHASE
from trct_monai.datasets.workers import parse_shard
from trct_monai.geometry import voxel_to_world
from trct_monai.io.locks import alone_in
from trct_monai.io.nifti import write_hu
from trct_monai.io.provenance import make_stamp, read_stamp
from trct_monai.phantoms import phantom_series


def phantom_name(seed: int) -> str:
    """The case of a phantom."""
    return f"phantom_{seed:06d}"


def write_phases(
    output: Path,
    seeds: Mapping[str, Sequence[int]],
    *,
    phases: int,
    size: int,
    extent: float,
    findings: Sequence[str] | None = None,
    version: int = 1,
    num_workers: int = 2,
    shard: str = "1/1",
) -> None:
    """Write the data set; phantoms that are done are left alone.

    The layout has no datalist: every file in its folders belongs to the data set, so a folder with other files is
    refused.

    Args:
        output: Folder to write.
        seeds: Seeds of each section.
        phases: Phases of a cycle, over which the average goes: 2 or more.
        size: Voxels along each side.
        extent: Side of the cube in mm.
        findings: Findings to show; drawn if None.
        version: Of the anatomy; see `trct_monai.phantoms.thorax_phantom`.
        num_workers: Number of processes.
        shard: Part i/n of the phantoms.

    Raises:
        ValueError: If there are fewer than two phases, or the folder holds phantoms of other options or seeds.
    """
    if phases < 2:
        raise ValueError(f"phases must be 2 or more, got {phases}")
    options = {"phases": phases, "size": size, "extent": extent, "findings": findings, **other_version(version)}
    pairs = {number: _pair(output, section, number) for section, numbers in seeds.items() for number in numbers}
    recipe = Recipe(partial(_products, options=options), options, "phantoms", "phantoms")
    jobs = [Job((pair.name,), (number, pair)) for number, pair in pairs.items()]
    with alone_in(output, parse_shard(shard)):
        _refuse_others(output, pairs.values(), options)
        run_jobs(output, jobs, recipe, num_workers=num_workers, shard=shard)
    folders = sorted({Path(file).parts[0] for pair in pairs.values() for file in pair.files.values()})
    print(f"wrote {output}: {', '.join(folders)}")


def other_version(version: int) -> dict[str, int]:
    """What options say of the anatomy's version: nothing of the first, which had no number."""
    return {} if version == 1 else {"version": version}


def _pair(output: Path, section: str, number: int) -> FilePair:
    name = phantom_name(number)
    files = {f"{side}.nii.gz": f"{FOLDERS[section]}{side}/{name}.nii.gz" for side in (AVERAGE, PHASE)}
    return FilePair(output, name, files)


def _refuse_others(output: Path, pairs: Collection[FilePair], options: Mapping[str, Any]) -> None:
    """Refuse a folder in which phantoms of other seeds, sections or options would be taken for some of these."""
    expected = {output / file for pair in pairs for file in pair.files.values()}
    sides = [output / f"{prefix}{side}" for prefix in FOLDERS.values() for side in (AVERAGE, PHASE)]
    others = sorted({file for side in sides for file in side.glob("[!.]*")} - expected)
    if others:
        raise ValueError(f"{others[0]} is none of the phantoms of this command; use another output folder")
    options = make_stamp({}, options)["options"]
    for pair in pairs:
        stamp = read_stamp(pair.record)
        if stamp is not None and stamp["options"] != options:
            raise ValueError(f"{output} holds phantoms that were made with other options; use another output folder")


def _products(source: tuple[int, FilePair], options: Mapping[str, Any]) -> Iterator[Product]:
    number, pair = source
    yield Product(pair, {"seed": number}, partial(_make, number, options))


def _make(number: int, options: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    size, extent, version = options["size"], options["extent"], options.get("version", 1)
    series = phantom_series(number, size, options["phases"], extent, options["findings"], version)
    affine = voxel_to_world((size,) * 3, extent / size).numpy()
    for side, volume in ((AVERAGE, series.mean(axis=0)), (PHASE, series[0])):
        write_hu(folder / f"{side}.nii.gz", volume, affine)
    return {}
