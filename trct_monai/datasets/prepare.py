"""`prepare`: any of the layouts understood becomes a folder of cases and a datalist."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_numbers
from trct_monai.datasets.driver import Job, Recipe, make_data_set
from trct_monai.datasets.patients import AUTO, describe_patients
from trct_monai.datasets.phases import is_phase_layout
from trct_monai.datasets.prepare_case import MEASURED, RENDERED, Options, products
from trct_monai.datasets.prepare_cycles import prepare_cycles
from trct_monai.datasets.prepare_phases import prepare_phases
from trct_monai.datasets.real_radiographs import MAX_ERROR, RealOptions, describe_real
from trct_monai.datasets.real_sources import describe_radiographs, pair_radiographs
from trct_monai.datasets.sources import LAYOUTS, Found, find_sources
from trct_monai.datasets.split import Sections, check_fractions, split_by_hash
from trct_monai.datasets.workers import parse_shard
from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import STORED_HU
from trct_monai.io.case import Case
from trct_monai.registration.orientation import MIN_CORRELATION

RADIOGRAPH_SIZE = 512
"""Rows and columns of rendered radiographs, where nothing else is asked for."""


def prepare(
    input: str,
    output: str,
    size: int = 128,
    geometry: str = MEASURED,
    views: int | None = None,
    radiograph_size: int = RADIOGRAPH_SIZE,
    extent: float = DEFAULT_EXTENT,
    hu_window: Sequence[float] | str = STORED_HU,
    remove_table: bool = False,
    nifti: bool = False,
    dicom: bool = False,
    photons: float | None = None,
    scatter_fraction: float = 0.0,
    kvp: float | None = None,
    center: str = "lungs",
    whole: bool = False,
    phases: bool = False,
    real_radiographs: bool = False,
    single_view: bool = False,
    max_error: float = MAX_ERROR,
    min_correlation: float = MIN_CORRELATION,
    min_slices: int = 16,
    h5_axes: str = "SPL",
    rescale: str | None = None,
    patients: str = AUTO,
    num_workers: int = 2,
    shard: str = "1/1",
    max_skipped: float = 0.05,
    fractions: str = "0.7/0.15/0.15",
    seed: int = 0,
) -> None:
    """Turn a folder of CTs, with or without radiographs, into cases and a datalist.

    Understood, and found out by itself: DICOM (nested), NIfTI, MetaImage and NRRD; a CT with radiographs beside it
    (NAME_pa_drr.png, _lat_drr, _frontal, _lateral, _pa, _lat, also .jpg, .tif, .npy, .dcm); X2CT's ct_xray_data.h5.
    Radiographs that come with a CT are kept, and how they were taken is measured against it: orientation, pixel sizes,
    distance of the source, shift, turn and tilt. A radiograph whose camera is not sure is refused. Others are rendered.
    The run can be interrupted; the same command goes on where it stopped and does nothing twice.

    A folder with trainA, trainB, testA and testB holds pairs of a time average and phase 0 for the phase generator:
    they keep their voxels and their sections, and the options of cubes and radiographs do not apply. Of 4-D CTs such
    pairs are made with --phases True.

    Args:
        input: Folder to read.
        output: Folder to write.
        size: Voxels along each side of the label.
        geometry: measured (cameras of radiographs that come with a CT are measured, except X2CT's, whose geometry is
            published; others are rendered as by x2ct), or what all of them have: parallel, x2ct, clinic or circle-N.
        views: Number of views over 180 degrees, short for --geometry circle-N.
        radiograph_size: Rows and columns of rendered radiographs.
        extent: Side in mm of the cube around the body.
        hu_window: Labels are clipped to it, as low,high.
        remove_table: Replace all outside the body by air.
        nifti: Write rendered radiographs as float NIfTI too.
        dicom: Write the label as a DICOM series too, NAME_dicom.
        photons: Detected photons per pixel in the open beam, for quantum noise in rendered radiographs.
        scatter_fraction: Share of scatter in rendered radiographs.
        kvp: Tube voltage in kV of rendered radiographs, for beam hardening; one energy of 60 keV without it.
        center: What the cube is centred on: lungs (a CT without any is refused), or body, as published protocols do.
        phases: The input holds 4-D CTs, all phases of a breath or heart beat each: make pairs of their time average and
            phase 0, for the phase generator.
        real_radiographs: Keep the radiographs (CR, DX) of the CTs' patients, found by PatientID, in place of rendered
            ones. Views and cameras are measured; what fits the CT neither as a frontal nor as a lateral,
            or does not show the middle of the lungs, is left out.
        single_view: Keep a CT with one of the two real views, for any_view, which takes any number; cases of one and of
            two are trained with --batch_size 1, or with the same --views of each.
        max_error: A real radiograph whose camera has a larger estimated error in mm is left out.
        whole: Render radiographs from all of the CT, as in life: what lies outside the cube casts its shadow, too.
        min_correlation: A radiograph that correlates less than this with our projection is refused.
        min_slices: Shorter DICOM series are skipped and listed.
        h5_axes: Where the axes of X2CT's arrays point.
        rescale: SLOPE,INTERCEPT for files that hold no HU: HU = SLOPE * number + INTERCEPT, 1,-1024 for HU + 1024.
        patients: The patient of each CT. auto: by PatientID, or by the folder; name: each file, and each folder of
            slices, is one patient's; else a CSV file with the columns path (of a file or a folder, relative to the
            input) and patient_id.
        num_workers: Number of processes.
        shard: Part i/n of the cases, to share the work between n machines.
        max_skipped: Share of refused cases above which the run fails.
        fractions: Shares of training / validation / test; `split` can redo it.
        seed: Seed of the split.
    """
    if views is not None:
        geometry = f"circle-{views}"
    window = parse_numbers(hu_window, 2, "hu_window", "-1000,500")
    slope, intercept = (1.0, 0.0) if rescale is None else parse_numbers(rescale, 2, "rescale", "1,-1024")
    options = Options(
        size, float(extent), geometry, radiograph_size, (window[0], window[1]), remove_table, nifti, dicom, photons,
        scatter_fraction, min_correlation, h5_axes, kvp, center, whole, None if rescale is None else (slope, intercept),
    )  # fmt: skip
    if real_radiographs:
        if geometry != MEASURED or phases:
            raise ValueError("--real_radiographs measures cameras: --geometry, --views and --phases do not go with it")
        rendering = photons, scatter_fraction, kvp, whole, radiograph_size, nifti
        if rendering != (None, 0, None, False, RADIOGRAPH_SIZE, False):
            raise ValueError(
                "--real_radiographs renders nothing: --photons, --scatter_fraction, --kvp, --whole, --radiograph_size "
                "and --nifti do not go with it"
            )
        options = replace(options, real=RealOptions(float(max_error), single_view))
    elif single_view or max_error != MAX_ERROR:
        raise ValueError("--single_view and --max_error are for real radiographs; give --real_radiographs True, too")
    shares = check_fractions(fractions)
    parse_shard(shard)
    root, target = Path(input), Path(output)
    if target.resolve().is_relative_to(root.resolve()):
        raise ValueError(f"output {target} must not be inside input {root}, which is searched for CTs")
    if phases or is_phase_layout(root):
        if rescale or patients != AUTO or real_radiographs:
            raise ValueError(
                "--rescale, --patients and --real_radiographs are for CTs with radiographs, not for phases"
            )
        prepare_pairs = prepare_cycles if phases else prepare_phases
        prepare_pairs(
            root, target, min_slices=min_slices, num_workers=num_workers, shard=shard, max_skipped=max_skipped,
            fractions=shares, seed=seed,
        )  # fmt: skip
        return
    found = find_sources(root, min_slices, patients)
    if real_radiographs:
        found = pair_radiographs(root, found, single_view)
    _describe(root, found)
    if not found.sources and not found.refused:
        raise ValueError(
            f"{root}: no CT found" + (f"; {found.skipped[0][0]} is {found.skipped[0][1]}" if found.skipped else "")
        )
    if geometry == MEASURED and not any(source.radiographs or source.unsorted for source in found.sources):
        geometry = RENDERED  # nothing to measure
        options = replace(options, geometry=geometry)

    def arrange(cases: list[Case]) -> tuple[Sections, dict[str, Any]]:
        for line in describe_real(cases):
            print(line)
        return split_by_hash(cases, shares, seed), {
            "name": target.absolute().name,
            "description": f"{len(cases)} CTs with radiographs, prepared from {root.absolute().name}",
            "geometry": geometry,
            "extent": options.extent,
            "label_size": size,
            "hu_window": list(options.hu_window),
            "split": {"by": "hash", "fractions": list(shares), "seed": seed},
        }

    refused = [f"{path}: {reason}" for path, reason in found.refused]
    recipe = Recipe(partial(products, options=options, root=root, output=target), options.recorded, "prepare")
    make_data_set(
        target, [Job((source.case_id,), source) for source in found.sources], recipe, arrange,
        num_workers=num_workers, shard=shard, max_skipped=max_skipped, refused=refused,
    )  # fmt: skip


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
    lines = describe_patients(source.patient_id for source in found.sources)
    for line in (*lines, *describe_radiographs(found)):
        print(line)
