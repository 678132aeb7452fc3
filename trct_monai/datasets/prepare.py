"""`prepare`: any of the layouts understood becomes a folder of cases and a datalist."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_numbers
from trct_monai.datasets.cases import is_finished, load_cases
from trct_monai.datasets.driver import EARLY_STOP, in_shard, parse_shard, reason_if_refused, run_cases, too_many
from trct_monai.datasets.phases import is_phase_layout, prepare_phases
from trct_monai.datasets.prepare_case import Options, prepare_case
from trct_monai.datasets.sources import LAYOUTS, Found, find_sources
from trct_monai.datasets.split import DATALIST, check_fractions, split_by_hash, write_split
from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import STORED_HU
from trct_monai.io.files import remove_partial
from trct_monai.registration.orientation import MIN_CORRELATION


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
    low, high = parse_numbers(hu_window, 2, "hu_window", "-1000,500")
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


def _as_lists(page: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in page.items()}
