"""`reconstruct`: radiographs in, a CT with its intervals out, and what speaks against believing it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from monai.bundle import ConfigParser
from torch import Tensor, nn

from trct_monai import __version__
from trct_monai.bundle import bundle_files, load_frozen
from trct_monai.data.cases import digest_file
from trct_monai.data.datalist import write_atomically
from trct_monai.data.orientation import MIN_CORRELATION, correlation, measure, opposite_camera
from trct_monai.figures import reconstruction_figure, save_figure
from trct_monai.geometry import Camera, preset, projection_matrices, voxel_to_world
from trct_monai.inferers import RefinementInferer
from trct_monai.intensity import hu_to_unit, unit_to_hu
from trct_monai.metrics.reprojection import relative_residual, reproject
from trct_monai.networks.intervals import IntervalNetwork, load_intervals
from trct_monai.networks.reconstruction import resize
from trct_monai.transforms import Radiograph, read_radiograph, resize_radiographs, save_nifti, side_car_of
from trct_monai.transforms.dicom import (
    OPPOSITE,
    VIEW_POSITIONS,
    check_series_folder,
    common_study,
    write_ct_series,
)

ENDINGS = {"quantiles": "_quantiles.nii.gz", "figure": ".png", "page": ".json"}
"""What is written beside OUT, and how its name ends."""

UNUSUAL = 1.5
"""A residual that is so many times the largest of the validation cases is called unlike the training."""

BODY_HU = -950.0
"""What is above counts as body."""

SURE = 0.02
"""A flip or turn must raise the correlation by so much to be called the better one."""

NOTICE = "Research software, not a medical device: the result is a guess from training data, not an examination."


@dataclass(frozen=True)
class View:
    """One radiograph to reconstruct from.

    Attributes:
        path: Its file.
        image: Line integrals (H, W) if quantitative, else the file's own scale.
        quantitative: Whether `image` holds line integrals.
        camera: Where it was taken.
        notes: What its header says against that.
    """

    path: Path
    image: Float[Tensor, "H W"]
    quantitative: bool
    camera: Camera
    notes: tuple[str, ...] = ()


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
    save_nifti(result.quantiles_hu.round().short().numpy(), result.affine, places["quantiles"])
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
    write_atomically(places["page"], json.dumps(page, indent=1) + "\n")
    if dicom is not None:
        write_ct_series(result.volume_hu.numpy(), result.affine, Path(dicom), study)
    save_nifti(result.volume_hu.round().short().numpy(), result.affine, target)
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


@dataclass(frozen=True)
class Result:
    """A reconstruction.

    Attributes:
        volume_hu: CT (X, Y, Z) in HU.
        quantiles_hu: Its `trct_monai.metrics.uncertainty.QUANTILES` (X, Y, Z, 4) in HU.
        radiographs: What it was made from (V, H, W), as line integrals.
        reprojections: Its own projections (V, H, W).
        residual: Relative residual between the two.
        usual_residual: The largest one of the validation cases.
        intensities: Gain and offset from each file's numbers to line integrals.
        warnings: What speaks against it.
        extent: Side of the volume in mm.
    """

    volume_hu: Float[Tensor, "X Y Z"]
    quantiles_hu: Float[Tensor, "X Y Z 4"]
    radiographs: Float[Tensor, "V H W"]
    reprojections: Float[Tensor, "V H W"]
    residual: float
    usual_residual: float
    intensities: list[tuple[float, float]]
    warnings: list[str]
    extent: float

    @property
    def affine(self) -> np.ndarray:
        """From voxel index to world mm in RAS, the isocentre at 0."""
        return voxel_to_world(self.volume_hu.shape, self.extent / len(self.volume_hu)).numpy()


def read_views(pa: str | None, lat: str | None, radiographs: str | None, geometry: str) -> list[View]:
    """The radiographs, each with its camera.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If none is given, pa or lat beside other radiographs, or a camera is not known.
    """
    named = {name: path for name, path in (("pa", pa), ("lat", lat)) if path}
    others = [part.strip() for part in (radiographs or "").split(",") if part.strip()]
    if bool(named) == bool(others):
        raise ValueError("give --pa and --lat (one of them will do), or --radiographs A.png,B.png,... with side-cars")
    cameras = {camera.name: camera for camera in preset(geometry)}
    if named and not set(named) <= set(cameras):
        raise ValueError(f"geometry must have the views pa and lat: clinic, x2ct or parallel, got {geometry!r}")
    views = []
    for name, path in [*named.items(), *(("", path) for path in others)]:
        radiograph = read_radiograph(path)
        camera = radiograph.camera
        if camera is None and not name:
            raise ValueError(f"{path} has no side-car that says where it was taken; give it as --pa or --lat")
        image, position = radiograph.image, radiograph.view_position
        if camera is None:
            camera = on_detector(cameras[name], radiograph)
            if position in OPPOSITE:
                camera, image = opposite_camera(camera), image.flip(-1)
        # A file of floats may hold anything: only a side-car can say that it is line integrals.
        quantitative = radiograph.quantitative and radiograph.camera is not None
        notes: tuple[str, ...] = ()
        if name and position and VIEW_POSITIONS.get(position) != name:
            notes = (f"{path} is given as view {name!r}, while its header calls it {position}",)
        views.append(View(Path(path), image, quantitative, camera, notes))
    return views


def refuse_overwriting(outputs: Sequence[Path], views: Sequence[View]) -> None:
    """Raise ValueError if a file to be written is a radiograph, or may be the side-car of one."""
    inputs = {path.resolve() for view in views for path in (view.path, side_car_of(view.path))}
    for path in outputs:
        if path.resolve() in inputs:
            raise ValueError(f"{path} would be written over a radiograph or its side-car; give --out another name")


def on_detector(camera: Camera, radiograph: Radiograph) -> Camera:
    """The camera with this picture: its pixels are those of its header, else its longer side fills the detector."""
    size = (radiograph.image.shape[0], radiograph.image.shape[1])
    pixel = max(n * spacing for n, spacing in zip(camera.size, camera.pixel_spacing)) / max(size)
    return replace(camera, size=size, pixel_spacing=radiograph.pixel_spacing or (pixel, pixel))


def choose_device(name: str) -> torch.device:
    """A device by its name; ``auto`` for a GPU where there is one.

    Raises:
        ValueError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r} here ({str(error).splitlines()[0]}); try --device cpu") from error
    return torch.device(name)


@dataclass(frozen=True)
class Method:
    """A bundle's networks with their weights, in evaluation mode.

    Attributes:
        network: Radiographs to a volume with intervals.
        radiograph_size: Rows and columns of the radiographs that the network takes.
        refiner: A volume to one twice as fine; None if the network's own size will do.
        inferer: How the refiner is applied.
        times: How often.
    """

    network: IntervalNetwork
    radiograph_size: int
    refiner: nn.Module | None
    inferer: RefinementInferer
    times: int

    def reconstruct(self, views: Sequence[View]) -> Result:
        """The CT of some radiographs.

        Raises:
            ValueError: If there are more views than the network takes.
        """
        return self.refined(solve(self.network, views, self.radiograph_size), views)

    def refined(self, result: Result, views: Sequence[View]) -> Result:
        """A result with as many voxels as were asked for; its intervals stay around it as they were, interpolated."""
        if self.refiner is None:
            return result
        model = self.network.network
        fine = hu_to_unit(result.volume_hu, model.hu_window)[None, None].to(model.initial_volume.device)
        with torch.inference_mode():
            for _ in range(self.times):
                fine = self.inferer(fine, self.refiner)
        around = (result.quantiles_hu - result.volume_hu[..., None]).movedim(-1, 0)[None]
        volume = unit_to_hu(fine[0, 0].cpu(), model.hu_window)
        quantiles = (resize(around, len(volume))[0].movedim(0, -1) + volume[..., None]).clamp(*model.hu_window)
        cameras = [view.camera.resized((self.radiograph_size,) * 2) for view in views]
        again = reproject(volume[None], cameras, model.extent / len(volume))
        residual = relative_residual(again, result.radiographs)
        return replace(result, volume_hu=volume, quantiles_hu=quantiles, reprojections=again, residual=residual)


def load_method(method: str, device: torch.device, size: int) -> Method:
    """A bundle's network with its intervals, and its refiner.

    Args:
        method: BUNDLE[+OVERLAY...].
        device: Where it shall be.
        size: Voxels along each side: those of the network, or two or four times as many.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If the bundle has no intervals or not that size, or weights are damaged.
    """
    _, (config, weights) = bundle_files(method)
    parser = ConfigParser()
    overlays = [config[0].with_name(name) for name in ("intervals.json", "finer.json")]
    if not all(path.is_file() for path in overlays):
        raise ValueError(f"bundle {method!r} gives no intervals; any_view does")
    parser.read_config([str(path) for path in [*config, *overlays]])
    network, channels = parser.get_parsed_content("network_def"), int(parser["interval_channels"])
    sizes = [network.volume_size * factor for factor in (1, 2, 4)]
    if size not in sizes:
        raise ValueError(f"size must be one of {', '.join(map(str, sizes))}, got {size}")
    refiner = None
    if size > network.volume_size:
        place = weights.parent / "refiner" / "model.pt"
        refiner = load_frozen(parser.get_parsed_content("refiner_def"), str(place), device)
    return Method(
        load_intervals(network, weights, weights.with_name("intervals.pt"), channels, device),
        int(parser["radiograph_size"]),
        refiner,
        RefinementInferer(parser["roi_size"], parser["overlap"]),
        sizes.index(size),
    )


def solve(network: IntervalNetwork, views: Sequence[View], size: int) -> Result:
    """Reconstruct; gain and offset of pictures that hold no line integrals are found together with the linear start.

    Args:
        network: The network, in evaluation mode.
        views: The radiographs.
        size: Rows and columns that the network takes.

    Raises:
        ValueError: If there are more views than the network takes.
    """
    model = network.network
    if len(views) > network.num_views:
        raise ValueError(f"this method takes up to {network.num_views} radiographs, got {len(views)}")
    device, spacing = model.initial_volume.device, model.extent / model.volume_size
    cameras = [view.camera.resized((size, size)) for view in views]
    pictures = [resize_radiographs(view.image, size) for view in views]
    matrices = projection_matrices(cameras)[None].to(device)
    known = unit_to_hu(model.initial_volume.detach()[0].cpu(), model.hu_window)
    warnings = [line for view in views for line in (*view.notes, *check_picture(view, known, model.extent))]
    sure = [view.quantitative for view in views]
    intensities = model.linear_start.fit_pictures(torch.stack(pictures), cameras, sure)
    image = torch.stack([picture * gain + offset for picture, (gain, offset) in zip(pictures, intensities)])
    with torch.inference_mode():
        unit = network(image[None].to(device), matrices)[0].cpu()
    again = reproject(unit_to_hu(unit[:1], model.hu_window), cameras, spacing)
    hu = unit_to_hu(unit, model.hu_window)
    residual, usual = relative_residual(again, image), float(network.usual_residual[len(views) - 1])
    if residual > UNUSUAL * usual:
        warnings.append(
            f"the reconstruction does not explain the radiographs: relative residual {residual:.3f}, while the largest "
            f"of the validation cases was {usual:.3f}; they look unlike what the network was trained on"
        )
    return Result(hu[0], hu[1:].movedim(0, -1), image, again, residual, usual, intensities, warnings, model.extent)


def check_picture(view: View, mean_hu: Float[Tensor, "1 X Y Z"], extent: float) -> list[str]:
    """What is odd about a radiograph beside the projection of the mean training volume."""
    match = measure(view.image, mean_hu, extent, view.camera)
    upright = correlation(resize_radiographs(view.image, match.expected.shape), match.expected)
    best, name = match.orientation, f"{view.path} as view {view.camera.name!r}"
    if abs(best["correlation"]) < MIN_CORRELATION:
        return [
            f"{name} does not look like the training's thoraces from there: correlation {upright:.2f} with their mean"
        ]
    if abs(best["correlation"]) > abs(upright) + SURE:
        return [
            f"{name} seems to lie wrong: after {best['transform']} its correlation with the training's mean would be "
            f"{best['correlation']:.2f} in place of {upright:.2f}; it was taken as it is"
        ]
    if upright < 0 and not view.quantitative:
        return [f"{name} shows bone dark; bright and dark were exchanged"]
    return []
