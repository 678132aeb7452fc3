"""`phantoms --phases`: time averages and phase 0 of breathing, beating phantoms, in pix2pix's layout."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from trct_monai.datasets.driver import in_shard, run_cases
from trct_monai.datasets.phases import AVERAGE, FOLDERS, PHASE
from trct_monai.geometry import voxel_to_world
from trct_monai.io.files import read_json, write_json
from trct_monai.io.nifti import write_nifti
from trct_monai.phantoms import phantom_series


def write_phases(
    output: Path,
    seeds: Mapping[str, Sequence[int]],
    *,
    phases: int,
    size: int,
    extent: float,
    findings: Sequence[str] | None = None,
    num_workers: int = 2,
    shard: str = "1/1",
) -> None:
    """Write the data set; phantoms that are there are left alone.

    Args:
        output: Folder to write.
        seeds: Seeds of each section.
        phases: Phases of a cycle, over which the average goes: 2 or more.
        size: Voxels along each side.
        extent: Side of the cube in mm.
        findings: Findings to show; drawn if None.
        num_workers: Number of processes.
        shard: Part i/n of the phantoms.

    Raises:
        ValueError: If there are fewer than two phases, or the folder holds phantoms of other options.
    """
    if phases < 2:
        raise ValueError(f"phases must be 2 or more, got {phases}")
    made_with = {"phases": phases, "size": size, "extent": extent, "findings": findings and list(findings)}
    note = output / ".made_with.json"
    if note.is_file() and read_json(note) != made_with:
        raise ValueError(f"{output} holds phantoms that were made with other options; use another output folder")
    output.mkdir(parents=True, exist_ok=True)
    write_json(note, made_with)
    jobs = []
    for section, numbers in seeds.items():
        for number in numbers:
            name = f"phantom_{number:06d}"
            files = [output / f"{FOLDERS[section]}{side}" / f"{name}.nii.gz" for side in (AVERAGE, PHASE)]
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
            if in_shard(name, shard) and not all(file.is_file() for file in files):
                jobs.append((name, (number, files)))
    work = partial(_make, phases=phases, size=size, extent=extent, findings=findings)
    run_cases(work, jobs, num_workers=num_workers, description="phantoms")
    folders = sorted(path.name for path in output.iterdir() if path.is_dir())
    print(f"wrote {output}: {', '.join(folders)}")


def _make(job: tuple[int, list[Path]], phases: int, size: int, extent: float, findings: Sequence[str] | None) -> str:
    number, files = job
    series = phantom_series(number, size, phases, extent, findings)
    affine = voxel_to_world((size,) * 3, extent / size).numpy()
    for file, volume in zip(files, (series.mean(axis=0), series[0])):
        partial_file = file.with_name(f".{file.name}")
        write_nifti(partial_file, np.round(volume).astype(np.int16), affine)
        partial_file.replace(file)
    return ""
