"""A bundle's networks with their weights: radiographs in, a CT with its intervals out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from monai.bundle import ConfigParser
from torch import Tensor, nn

from trct_monai.bundles.find import bundle_files
from trct_monai.geometry.camera import projection_matrices
from trct_monai.geometry.grids import voxel_to_world
from trct_monai.intensity import hu_to_unit, unit_to_hu
from trct_monai.io.weights import load_frozen
from trct_monai.metrics.reprojection import relative_residual
from trct_monai.networks.intervals import IntervalNetwork, load_intervals
from trct_monai.networks.reconstruction import resize
from trct_monai.projector import project_hu
from trct_monai.reconstruction.inputs import View
from trct_monai.registration.orientation import MIN_CORRELATION, correlation, measure
from trct_monai.resampling import resize_radiographs
from trct_monai.training.inferers import RefinementInferer

UNUSUAL = 1.5
"""A residual that is so many times the largest of the validation cases is called unlike the training."""


SURE = 0.02
"""A flip or turn must raise the correlation by so much to be called the better one."""


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
        again = project_hu(volume[None], cameras, model.extent / len(volume))
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
    again = project_hu(unit_to_hu(unit[:1], model.hu_window), cameras, spacing)
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
