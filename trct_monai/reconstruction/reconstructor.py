"""A bundle's inference as an object: radiographs in, a CT in HU with its intervals out.

The pieces are those of the bundle's own inference.json: its preprocessing, its network with the weights, its inferer
and the transform back to HU. `monai.bundle run` puts them into an evaluator; here they are called one after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from monai.engines.utils import default_prepare_batch
from torch import Tensor, nn

from trct_monai import __version__
from trct_monai.bundles.errors import unwrapped
from trct_monai.bundles.find import bundle_files
from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU, fit_gain_offset, unit_to_hu
from trct_monai.io.provenance import digest_file
from trct_monai.io.radiograph import Radiograph
from trct_monai.io.weights import load_frozen
from trct_monai.metrics.reprojection import relative_residual
from trct_monai.networks import IntervalNetwork
from trct_monai.projector import project_hu
from trct_monai.reconstruction.checks import check_radiograph, check_residual
from trct_monai.training.inferers import TwoStageInferer
from trct_monai.transforms.save import UnitToHUd

NOTICE = "Research software, not a medical device: the result is a guess from training data, not an examination."


@dataclass(frozen=True)
class Result:
    """A reconstruction.

    Attributes:
        pred: CT in HU, and its quantiles if the method gives any (1 or 5, X, Y, Z), as `SaveCTd` takes it.
        radiographs: What it was made from (V, H, W), as line integrals.
        reprojections: Its own projections (V, H, W).
        cameras: The views, of that size.
        residual: Relative residual between the two; of a refined volume, that of the network's own volume.
        usual_residual: The largest one of the validation cases; None if the method was not calibrated.
        intensities: Gain and offset from each picture's numbers to line integrals.
        warnings: What speaks against it.
    """

    pred: MetaTensor
    radiographs: Float[Tensor, "V H W"]
    reprojections: Float[Tensor, "V H W"]
    cameras: list[Camera]
    residual: float
    usual_residual: float | None
    intensities: list[tuple[float, float]]
    warnings: list[str]

    @property
    def volume_hu(self) -> Float[Tensor, "X Y Z"]:
        """The CT."""
        volume: Tensor = self.pred.as_tensor()[0]
        return volume

    @property
    def width_hu(self) -> Float[Tensor, "X Y Z"] | None:
        """Width of the 90 % interval in each voxel; None if the method gives no intervals."""
        return None if len(self.pred) == 1 else self.pred.as_tensor()[-1] - self.pred.as_tensor()[1]

    @property
    def mean_width_hu(self) -> float | None:
        """Mean width of the 90 % interval in the body."""
        width = self.width_hu
        return None if width is None else float(width[self.volume_hu > BODY_HU].mean().nan_to_num())

    @property
    def affine(self) -> np.ndarray:
        """From voxel index to world mm in RAS, the isocentre at 0."""
        return np.asarray(self.pred.affine.double().numpy())


@dataclass(frozen=True)
class Reconstructor:
    """What inference.json of a bundle is made of, with its weights.

    Attributes:
        method: BUNDLE[+OVERLAY...].
        weights_sha256: Digest of the network's weights.
        preprocessing: A case to tensors.
        prepare_batch: MONAI's function from a batch to the network's inputs.
        network: In evaluation mode, with its weights.
        inferer: Applies it.
        to_hu: The result in [0, 1] to HU with an affine.
        amp: Arguments of `torch.autocast`.
        extent: Side of the volume in mm.
        device: Where the network is.
    """

    method: str
    weights_sha256: str
    preprocessing: Callable[[Any], Any]
    prepare_batch: Callable[..., Any]
    network: nn.Module
    inferer: Callable[..., Tensor]
    to_hu: UnitToHUd
    amp: Mapping[str, Any]
    extent: float
    device: torch.device

    @torch.inference_mode()
    def __call__(self, radiographs: Sequence[Radiograph], name: str = "reconstruction") -> Result:
        """The CT of some radiographs.

        Args:
            radiographs: Each with its camera.
            name: What the result is called when it is saved.

        Raises:
            ValueError: If the network takes another number of views, other cameras or calibrated radiographs only.
        """
        with unwrapped():
            item = self.preprocessing({"case_id": name, "image": list(radiographs)})
        batch = {key: item[key][None] for key in ("image", "matrices", "calibrated") if key in item}
        image, _, *rest = self.prepare_batch(batch, self.device, False)
        args, kwargs = rest or ((), {})
        with torch.autocast(self.device.type, **self.amp):
            if isinstance(self.inferer, TwoStageInferer):
                coarse = self.network(image, *args, **kwargs)
                unit = self.inferer.refine(coarse)
            else:
                coarse = unit = self.inferer(image, self.network, *args, **kwargs)
        if not bool(unit.isfinite().all()):
            raise ValueError(f"the reconstruction of {name} holds values that are not finite; nothing was written")
        pred: MetaTensor = self.to_hu({"pred": unit[0].float().cpu(), "case_id": name})["pred"]
        own: Tensor = self.to_hu({"pred": coarse[0, :1].float().cpu(), "case_id": name})["pred"].as_tensor()
        measured = image[0].float().cpu()
        size = (measured.shape[-2], measured.shape[-1])
        cameras = [one.camera.resized(size) for one in radiographs if one.camera is not None]
        residual = relative_residual(project_hu(own, cameras, self.extent / own.shape[-1]), measured)
        known = item.get("calibrated", torch.ones(len(measured), dtype=torch.bool)).tolist()
        # Calibration is an affine map of each picture: the fit gives it exactly.
        pairs = zip(known, item["image"], measured)
        intensities = [(1.0, 0.0) if calibrated else fit_gain_offset(raw, image) for calibrated, raw, image in pairs]
        usual, warnings = None, []
        if isinstance(self.network, IntervalNetwork):
            usual = float(self.network.usual_residual[len(radiographs) - 1])
            model = self.network.network
            mean = unit_to_hu(model.initial_volume.detach()[0].cpu(), model.hu_window)
            warnings = [line for one in radiographs for line in check_radiograph(one, mean, self.extent)]
            warnings += check_residual(residual, usual)
        return Result(
            pred,
            measured,
            project_hu(pred.as_tensor()[:1], cameras, self.extent / pred.shape[-1]),
            cameras,
            residual,
            usual,
            intensities,
            warnings,
        )

    def record(self, radiographs: Sequence[Radiograph], result: Result) -> dict[str, Any]:
        """What is to be kept beside a result: the warnings, the residual, and what it was made from and by."""
        width, usual = result.mean_width_hu, result.usual_residual
        return {
            "notice": NOTICE,
            "warnings": result.warnings,
            "relative_residual": round(result.residual, 4),
            "largest_residual_in_validation": None if usual is None else round(usual, 4),
            "mean_width_of_90_percent_interval_in_the_body_hu": None if width is None else round(width, 1),
            "radiographs": [
                {
                    "file": str(one.path),
                    "line_integrals": one.quantitative,
                    "gain": gain,
                    "offset": offset,
                    "camera": one.camera and one.camera.to_dict(),
                }
                for one, (gain, offset) in zip(radiographs, result.intensities)
            ],
            "method": self.method,
            "weights_sha256": self.weights_sha256,
            "software": f"trct_monai {__version__}",
        }


def load_reconstructor(method: str, device: str | torch.device = "cpu", size: int | None = None) -> Reconstructor:
    """A bundle's inference with its weights; with intervals, if the bundle has any.

    Args:
        method: BUNDLE[+OVERLAY...], such as any_view+small.
        device: Where it shall be.
        size: Voxels along each side: those of the bundle if None, or two or four times those of its network, if it has
            an overlay finer.json.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If the bundle has not that size, or weights are damaged.
    """
    name, (config, weights) = bundle_files(method)
    folder, parser, device = config[0].parent, ConfigParser(), torch.device(device)
    intervals, finer = folder / "intervals.json", folder / "finer.json"
    parser.read_config([str(path) for path in config])
    if "volume_size" not in parser.get():
        raise ValueError(f"bundle {name!r} makes no CT from radiographs; any_view does")
    own_size = int(parser["volume_size"])
    sizes = [own_size * factor for factor in (1, 2, 4)] if finer.is_file() else [own_size]
    if size is not None and size not in sizes:
        raise ValueError(f"size must be one of {', '.join(map(str, sizes))} for {name}, got {size}")
    overlays = [intervals] if intervals.is_file() else []
    overlays += [finer] if size is not None and size > own_size else []
    parser.read_config([str(path) for path in (*config, *overlays)])
    parser.update({"ckpt_path": str(weights), "device": device, "bundle_root": str(folder.parent)})
    if finer in overlays:
        parser["times"] = sizes.index(int(size or 0))
    with unwrapped():
        network = parser.get_parsed_content("network")
        if not isinstance(network, IntervalNetwork):
            network = load_frozen(network, weights, device)
        inferer = parser.get_parsed_content("inferer")
        if isinstance(inferer, TwoStageInferer):  # whose weights a run of the bundle may load by a handler
            load_frozen(inferer.refiner, parser.get_parsed_content("refiner_path"), device)
        own_batches = "prepare_batch" in parser["evaluator"]
        return Reconstructor(
            name,
            digest_file(weights),
            parser.get_parsed_content("preprocessing"),
            parser.get_parsed_content("evaluator::prepare_batch") if own_batches else default_prepare_batch,
            network.eval(),
            inferer,
            UnitToHUd("pred", parser["hu_window"], float(parser["extent"])),
            {"enabled": parser.get_parsed_content("amp"), "dtype": parser.get_parsed_content("amp_dtype")},
            float(parser["extent"]),
            device,
        )
