"""`reconstruct`: radiographs in, a CT with its intervals out, and what speaks against believing it."""

from pathlib import Path

from trct_monai.figures import reconstruction_figure, save_figure
from trct_monai.io.dicom import check_series_folder, common_study, write_ct_series
from trct_monai.io.files import write_json
from trct_monai.reconstruction.checks import USUAL_OF_REAL_PAIRS
from trct_monai.reconstruction.inputs import AUTO, choose_device, read_radiographs, refuse_overwriting
from trct_monai.reconstruction.loading import load_reconstructor
from trct_monai.reconstruction.result import NOTICE
from trct_monai.transforms.save import SaveCTd


def reconstruct(
    out: str,
    pa: str | None = None,
    lat: str | None = None,
    radiographs: str | None = None,
    geometry: str = AUTO,
    size: int | None = None,
    method: str = "any_view+small",
    device: str = "auto",
    dicom: str | None = None,
    force: bool = False,
) -> None:
    """Make a CT from radiographs: a frontal and a lateral one, or any that state where they were taken.

    Writes the CT in HU as NIfTI, its 5, 25, 75 and 95 % quantiles in each voxel if the method gives them (_quantiles),
    a picture (.png), and the residual between the radiographs and the projections of the CT with all warnings (.json),
    all beside OUT.
    Radiographs may be PNG, JPEG, TIFF, DICOM, NIfTI or .npy. Of those without side-car the field width, the position,
    the side to which a lateral faces, and the exposure are measured by what chests look like. A picture that does not
    look like what it is given as is refused. Research software, not a medical device.

    Args:
        out: The CT to write, ending in .nii.gz or .nii.
        pa: Frontal radiograph, the patient's right side on the left of the picture.
        lat: Lateral radiograph, the patient facing left or right.
        radiographs: In place of pa and lat, files with cameras in their side-cars, separated by commas.
        geometry: Where radiographs without side-car were taken: auto to measure it, or clinic, x2ct or parallel.
        size: Voxels along each side; 64 of any_view if not given, or refined in windows 128 or 256, intervals
            interpolated.
        method: Bundle and overlays whose weights are used.
        device: cpu, cuda, or auto for a GPU where there is one.
        dicom: A folder to which the CT is also written as a DICOM series, of the patient and study of DICOM
            radiographs.
        force: Go on where a picture does not look like what it is given as, with a warning.
    """
    target = Path(out)
    stem = target.name.removesuffix(".gz").removesuffix(".nii")
    if not target.name.endswith((".nii", ".nii.gz")) or not stem:
        raise ValueError(f"out must end in .nii.gz or .nii, got {out!r}")
    extension = target.name.removeprefix(stem)
    picture, report, quantiles = (target.with_name(stem + end) for end in (".png", ".json", f"_quantiles{extension}"))
    views = read_radiographs(pa, lat, radiographs, geometry)
    refuse_overwriting([target, picture, report, quantiles], views)
    study = common_study(view.path for view in views)
    if dicom is not None:
        check_series_folder(Path(dicom))
    reconstructor = load_reconstructor(method, choose_device(device), size)
    if any(view.camera is None for view in views):
        names = [name for name, path in (("pa", pa), ("lat", lat)) if path]
        result = reconstructor.from_pictures(dict(zip(names, views)), stem, force)
    else:
        result = reconstructor(views, stem)

    shown = result.warnings  # a picture is handed on, and needs no path
    for view in views:
        shown = [line.replace(str(view.path), view.path.name) for line in shown]
    figure = reconstruction_figure(
        *(result.volume_hu, result.width_hu, result.radiographs, result.reprojections),
        view_names=[camera.name for camera in result.cameras],
        cameras=result.cameras,
        voxel_spacing=reconstructor.extent / len(result.volume_hu),
        title=f"{stem}: relative residual {result.residual:.3f}" + "".join(f"\n{line}" for line in shown),
    )
    report.unlink(missing_ok=True)  # the report is last: where it is, the others belong to it
    SaveCTd("pred", target.parent, extension)({"pred": result.pred})
    save_figure(figure, picture)
    if dicom is not None:
        write_ct_series(result.volume_hu.numpy(), result.affine, Path(dicom), study)
    write_json(report, reconstructor.record(views, result))
    for line in result.notes:
        print(line)
    for line in result.warnings:
        print(f"warning: {line}")
    usual = "" if result.usual_residual is None else f"; largest of the validation cases {result.usual_residual:.3f}"
    usual = f"; {USUAL_OF_REAL_PAIRS}" if result.notes else usual
    print(f"relative residual {result.residual:.3f}{usual}")
    written = [picture.name, report.name]
    if result.mean_width_hu is not None:
        print(f"mean width of the 90 % interval in the body: {result.mean_width_hu:.0f} HU")
        written.insert(0, quantiles.name)
    print(f"wrote {target}, and beside it {', '.join(written)}")
    if dicom is not None:
        print(f"wrote {dicom}, a DICOM series of {len(result.volume_hu)} slices")
    print(NOTICE)
