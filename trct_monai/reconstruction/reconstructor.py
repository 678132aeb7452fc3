"""A bundle's inference as an object: radiographs in, a CT in HU with its intervals out.

The pieces are those of the bundle's own inference.json: its preprocessing, its network with the weights, its inferer
and the transform back to HU. `monai.bundle run` puts them into an evaluator; here they are called one after the other.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from trct_monai import __version__
from trct_monai.bundles.errors import unwrapped
from trct_monai.geometry import Camera
from trct_monai.intensity import fit_gain_offset, unit_to_hu
from trct_monai.io.radiograph import Radiograph
from trct_monai.metrics.reprojection import relative_residual
from trct_monai.networks import IntervalNetwork
from trct_monai.projector import project_hu
from trct_monai.reconstruction.checks import (
    UNUSUAL,
    check_counted,
    check_fit,
    check_radiograph,
    check_residual,
    refuse_empty,
)
from trct_monai.reconstruction.pictures import expected_integrals, understand
from trct_monai.reconstruction.result import NOTICE, Result
from trct_monai.reconstruction.widening import widened
from trct_monai.registration.chests.characteristic import Curve
from trct_monai.registration.chests.model import ChestModel
from trct_monai.registration.chests.search import explain
from trct_monai.resampling import resize_radiographs
from trct_monai.training.inferers import TwoStageInferer
from trct_monai.transforms.save import UnitToHUd

ROUNDS = 3
"""How often the network sees radiographs without cameras, their curves fitted to its projections in between."""


@dataclass(frozen=True)
class _Estimate:
    """A network's own volume, its quantiles if it gives any, and what it was made from."""

    coarse: Tensor
    radiographs: Tensor
    reprojections: Tensor
    counted: Tensor
    cameras: list[Camera]
    intensities: list[tuple[float, float]]


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
        chest: What chests look like, for radiographs without cameras; None if the weights come without.
        chest_sha256: Digest of its file.
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
    chest: ChestModel | None = None
    chest_sha256: str | None = None

    @torch.inference_mode()
    def __call__(self, radiographs: Sequence[Radiograph], name: str = "reconstruction") -> Result:
        """The CT of some radiographs.

        Args:
            radiographs: Each with its camera.
            name: What the result is called when it is saved.

        Raises:
            ValueError: If the network takes another number of views, other cameras or calibrated radiographs only, or a
                radiograph is empty.
        """
        refuse_empty(radiographs)
        estimate = self._estimate(radiographs, name)
        warnings = []
        if isinstance(self.network, IntervalNetwork):
            model = self.network.network
            means = unit_to_hu(model.initial_volume.detach()[model.linear_start.models].cpu(), model.hu_window)
            warnings = [line for one in radiographs for line in check_radiograph(one, means, self.extent)]
            warnings += check_residual(self._residual(estimate), self._usual_residual(len(radiographs)) or 0.0)
        return self._result(estimate, name, warnings)

    @torch.inference_mode()
    def from_pictures(
        self, radiographs: Mapping[str, Radiograph], name: str = "reconstruction", force: bool = False
    ) -> Result:
        """The CT of radiographs whose cameras, orientations and exposures are unknown.

        They are found by the model of chests that comes with the weights, and curves from the pictures' numbers to line
        integrals by the network's linear start; then network and curves are adjusted to each other in `ROUNDS`.

        Args:
            radiographs: A frontal (``pa``), a lateral (``lat``) or both.
            name: What the result is called when it is saved.
            force: Warn of what would be refused.

        Raises:
            ValueError: If a picture does not look like what it is given as, or the method knows no model of chests.
        """
        if self.chest is None or not isinstance(self.network, IntervalNetwork):
            raise ValueError(
                f"{self.method} does not measure cameras: give --geometry clinic, x2ct or parallel, or "
                "--method any_view+small"
            )
        refuse_empty(radiographs.values())
        understood = understand(radiographs, self.chest, force)
        start = self.network.network.linear_start
        own = ChestModel(*start.model(start.last), start.extent, start.hu_window)
        sources = understood.pictures
        explained = explain([one.picture for one in sources], [one.found for one in sources], own)
        curves: list[Curve] = [(a, b, c, d) for a, b, c, d in explained.curves[0].tolist()]
        volume = own.volume(explained.coefficients[0])
        taken = [one.taken(self.extent) for one in sources]
        for step in range(ROUNDS):
            expected = [expected_integrals(volume, own, one.camera) for one in sources]
            calibrated = [one.calibrated(curve, image) for one, curve, image in zip(taken, curves, expected)]
            estimate = self._estimate(calibrated, name, [one.known for one in taken])
            if step + 1 < ROUNDS:
                curves = [one.fitted(image, curve) for one, curve, image in zip(taken, curves, estimate.reprojections)]
                volume = estimate.coarse[:, :1].float().cpu()
        warnings = [*understood.warnings, *check_fit(self._residual(estimate))]
        warnings += check_counted([one.radiograph for one in sources], estimate.counted)
        records = [one.record(curve) for one, curve in zip(sources, curves)]
        return replace(self._result(estimate, name, warnings), notes=understood.notes, measured=records)

    def _estimate(
        self, radiographs: Sequence[Radiograph], name: str, known: Sequence[Tensor] | None = None
    ) -> "_Estimate":
        """The network's own volume of some radiographs, and its projections."""
        with unwrapped():
            item = self.preprocessing({"case_id": name, "image": list(radiographs)})
        batch = {key: item[key][None] for key in ("image", "matrices", "calibrated", "exposed") if key in item}
        image, _, *rest = self.prepare_batch(batch, self.device, False)
        args, kwargs = rest or ((), {})
        refines = isinstance(self.inferer, TwoStageInferer)
        with torch.autocast(self.device.type, **self.amp):
            coarse = (
                self.network(image, *args, **kwargs) if refines else self.inferer(image, self.network, *args, **kwargs)
            )
        if not bool(coarse.isfinite().all()):
            raise ValueError(f"the reconstruction of {name} holds values that are not finite; nothing was written")
        own: Tensor = self.to_hu({"pred": coarse[0, :1].float().cpu(), "case_id": name})["pred"].as_tensor()
        measured = image[0].float().cpu()
        size = (measured.shape[-2], measured.shape[-1])
        cameras = [one.camera.resized(size) for one in radiographs if one.camera is not None]
        # Calibration is an affine map of each picture: the fit gives it exactly.
        calibrated = item.get("calibrated", torch.ones(len(measured), dtype=torch.bool)).tolist()
        pairs = zip(calibrated, item["image"], measured)
        intensities = [(1.0, 0.0) if done else fit_gain_offset(raw, one) for done, raw, one in pairs]
        counted = torch.ones_like(measured, dtype=torch.bool)
        if known is not None:
            counted = resize_radiographs(torch.stack(list(known)).float(), size) > 0.99
        projections = project_hu(own, cameras, self.extent / own.shape[-1])
        return _Estimate(coarse, measured, projections, counted, cameras, intensities)

    def _residual(self, estimate: "_Estimate") -> float:
        return relative_residual(estimate.reprojections * estimate.counted, estimate.radiographs * estimate.counted)

    def _usual_residual(self, number: int) -> float | None:
        """The largest relative residual of the validation cases, for so many views."""
        return float(self.network.usual_residual[number - 1]) if isinstance(self.network, IntervalNetwork) else None

    def _result(self, estimate: "_Estimate", name: str, warnings: list[str]) -> Result:
        """The volume at its final size in HU, its intervals as wide as its radiographs demand."""
        usual, unit = self._usual_residual(len(estimate.cameras)), estimate.coarse
        if usual is not None and (residual := self._residual(estimate)) > UNUSUAL * usual:
            unit = self._widened(estimate, residual)  # all of the case's intervals have grown with it already
        if isinstance(self.inferer, TwoStageInferer):
            with torch.autocast(self.device.type, **self.amp):
                unit = self.inferer.refine(unit)
            if not bool(unit.isfinite().all()):
                raise ValueError(f"the reconstruction of {name} holds values that are not finite; nothing was written")
        pred: MetaTensor = self.to_hu({"pred": unit[0].float().cpu(), "case_id": name})["pred"]
        return Result(
            pred,
            estimate.radiographs,
            project_hu(pred.as_tensor()[:1], estimate.cameras, self.extent / pred.shape[-1]),
            estimate.cameras,
            self._residual(estimate),
            usual,
            estimate.intensities,
            warnings,
        )

    def _widened(self, estimate: "_Estimate", usual: float) -> Tensor:
        residual, counted = estimate.radiographs - estimate.reprojections, estimate.counted
        return widened(estimate.coarse, residual, counted, estimate.radiographs, estimate.cameras, self.extent, usual)

    def record(self, radiographs: Sequence[Radiograph], result: Result) -> dict[str, Any]:
        """What is to be kept beside a result: the warnings, the residual, and what it was made from and by."""
        width, usual = result.mean_width_hu, result.usual_residual
        return {
            "notice": NOTICE,
            "warnings": result.warnings,
            "notes": result.notes,
            "relative_residual": round(result.residual, 4),
            "largest_residual_in_validation": None if usual is None else round(usual, 4),
            "mean_width_of_90_percent_interval_in_the_body_hu": None if width is None else round(width, 1),
            "radiographs": [
                {"file": str(one.path), "line_integrals": one.quantitative, **how}
                for one, how in zip(radiographs, result.measured or self._calibrations(radiographs, result))
            ],
            "method": self.method,
            "weights_sha256": self.weights_sha256,
            "chest_sha256": self.chest_sha256 if result.measured else None,
            "software": f"trct_monai {__version__}",
        }

    @staticmethod
    def _calibrations(radiographs: Sequence[Radiograph], result: Result) -> list[dict[str, Any]]:
        """Gain, offset and camera of radiographs whose cameras were known."""
        return [
            {"gain": gain, "offset": offset, "camera": one.camera and one.camera.to_dict()}
            for one, (gain, offset) in zip(radiographs, result.intensities)
        ]
