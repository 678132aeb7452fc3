"""`reconstruct`: radiographs in, a CT with its intervals out, and what speaks against believing it."""

from pathlib import Path

from trct_monai import __version__
from trct_monai.bundles.find import bundle_files
from trct_monai.figures import reconstruction_figure, save_figure
from trct_monai.intensity import BODY_HU
from trct_monai.io.dicom.header import common_study
from trct_monai.io.dicom.writer import check_series_folder, write_ct_series
from trct_monai.io.files import write_json
from trct_monai.io.nifti import write_hu
from trct_monai.io.provenance import digest_file
from trct_monai.reconstruction.inputs import read_views, refuse_overwriting
from trct_monai.reconstruction.method import choose_device, load_method

ENDINGS = {"quantiles": "_quantiles.nii.gz", "figure": ".png", "page": ".json"}
"""What is written beside OUT, and how its name ends."""


NOTICE = "Research software, not a medical device: the result is a guess from training data, not an examination."


def reconstruct(
    out: str,
    pa: str | None = None,
    lat: str | None = None,
    radiographs: str | None = None,
    geometry: str = "clinic",
    size: int = 64,
    method: str = "any_view+small",
    device: str = "auto",
    dicom: str | None = None,
) -> None:
    """Make a CT from radiographs: a frontal and a lateral one, or any that say where they were taken.

    Writes the CT in HU as NIfTI, its 5, 25, 75 and 95 % quantiles in each voxel (_quantiles.nii.gz), a picture (.png),
    and how well the CT explains the radiographs, with all warnings (.json), all beside OUT. Radiographs may be PNG,
    DICOM, NIfTI or .npy; one without side-car is brought to line integrals by a fit, and seen as bright where it
    attenuates. Research software, not a medical device.

    Args:
        out: The CT to write, ending in .nii.gz or .nii.
        pa: Frontal radiograph, the patient's right side on the left of the picture.
        lat: Lateral radiograph, the patient facing left.
        radiographs: In place of pa and lat, files with cameras in their side-cars, separated by commas.
        geometry: Where radiographs without side-car were taken: clinic, x2ct or parallel.
        size: Voxels along each side: 64, or refined in windows 128 or 256; intervals are interpolated.
        method: Bundle and overlays whose weights are used.
        device: cpu, cuda, or auto for a GPU where there is one.
        dicom: A folder to which the CT is also written as a DICOM series, of the patient and study of DICOM
            radiographs.
    """
    target = Path(out)
    stem = target.name.removesuffix(".gz").removesuffix(".nii")
    if not target.name.endswith((".nii", ".nii.gz")) or not stem:
        raise ValueError(f"out must end in .nii.gz or .nii, got {out!r}")
    places = {kind: target.with_name(stem + ending) for kind, ending in ENDINGS.items()}
    views = read_views(pa, lat, radiographs, geometry)
    refuse_overwriting([target, *places.values()], views)
    study = common_study(view.path for view in views)
    if dicom is not None:
        check_series_folder(Path(dicom))
    loaded = load_method(method, choose_device(device), size)
    result = loaded.reconstruct(views)

    target.parent.mkdir(parents=True, exist_ok=True)
    write_hu(places["quantiles"], result.quantiles_hu.numpy(), result.affine)
    width = result.quantiles_hu[..., -1] - result.quantiles_hu[..., 0]
    mean_width = float(width[result.volume_hu > BODY_HU].mean().nan_to_num())
    title = f"{stem}: relative residual {result.residual:.3f}" + "".join(f"\n{line}" for line in result.warnings)
    figure = reconstruction_figure(
        *(result.volume_hu, width, result.radiographs, result.reprojections),
        view_names=[view.camera.name for view in views],
        voxel_spacing=result.extent / len(result.volume_hu),
        title=title,
    )
    save_figure(figure, places["figure"])
    page = {
        "notice": NOTICE,
        "warnings": result.warnings,
        "relative_residual": round(result.residual, 4),
        "largest_residual_in_validation": round(result.usual_residual, 4),
        "mean_width_of_90_percent_interval_in_the_body_hu": round(mean_width, 1),
        "radiographs": [
            {"file": str(v.path), "line_integrals": v.quantitative, "gain": gain, "offset": offset}
            | {"camera": v.camera.to_dict()}
            for v, (gain, offset) in zip(views, result.intensities)
        ],
        "method": method,
        "weights_sha256": digest_file(bundle_files(method)[1][1]),
        "software": f"trct_monai {__version__}",
    }
    write_json(places["page"], page)
    if dicom is not None:
        write_ct_series(result.volume_hu.numpy(), result.affine, Path(dicom), study)
    write_hu(target, result.volume_hu.numpy(), result.affine)
    for line in result.warnings:
        print(f"warning: {line}")
    print(
        f"relative residual {result.residual:.3f}; the largest of the validation cases was {result.usual_residual:.3f}"
    )
    print(f"mean width of the 90 % interval in the body: {mean_width:.0f} HU")
    print(f"wrote {target}, and beside it {', '.join(place.name for place in places.values())}")
    if dicom is not None:
        print(f"wrote {dicom}, a DICOM series of {len(result.volume_hu)} slices")
    print(NOTICE)
