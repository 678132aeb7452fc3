"""Calibration of a network's intervals and of the residual to expect, on cases held out of training."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.baselines.cases import CaseList, each
from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU, unit_to_hu
from trct_monai.metrics.reprojection import relative_residual
from trct_monai.networks.intervals import LEVELS, IntervalNetwork
from trct_monai.projector import project_hu

logger = logging.getLogger(__name__)

VOXELS_PER_CASE = 20_000
"""Voxels of the body that are drawn from a case."""


Prepare = Callable[..., Any]
"""MONAI's `prepare_batch`, such as `trct_monai.transforms.RenderViews`."""


class Deviations:
    """How many spreads the truth lies from the volume, and the residuals, for each number of views.

    Cases of several networks may be added, each left out of the training of its own: their factors are those of
    cross-conformal prediction (Barber et al., Ann. Statist. 49(1), 2021).

    Attributes:
        ratios: Of voxels of the body, drawn from each case.
        residuals: Relative residual of each case; see `trct_monai.metrics.relative_residual`.
    """

    def __init__(self) -> None:
        self.ratios: dict[int, list[Tensor]] = {}
        self.residuals: dict[int, list[float]] = {}

    @torch.no_grad()
    def add(
        self,
        network: IntervalNetwork,
        cases: Iterable[Mapping[str, Any]] | CaseList,
        usual_views: Sequence[int] = (),
        device: str | torch.device = "cpu",
        prepare_batch: Prepare | None = None,
    ) -> None:
        """Those of some cases; arguments as in `calibrate`."""
        generator = torch.Generator().manual_seed(0)
        network.train()
        for case in each(cases):
            image, matrices, exposed, label = _radiographs(case, prepare_batch)
            inside = (unit_to_hu(label[0], network.network.hu_window) > BODY_HU).flatten().nonzero()[:, 0]
            inside = inside[torch.randperm(len(inside), generator=generator)[:VOXELS_PER_CASE]]
            for number in range(1, min(len(image), network.num_views) + 1):
                choices = [torch.randperm(len(image), generator=generator)[:number].tolist()]
                if number == len(usual_views):
                    choices.append([int(view) for view in usual_views])
                for chosen in choices:
                    views, where = image[chosen], matrices[chosen]
                    told = {} if exposed is None else {"exposed": exposed[chosen][None]}
                    volume, spread = network(views[None].to(device), where[None].to(device), **told)[0].cpu()
                    self.ratios.setdefault(number, []).append(((label[0] - volume).abs() / spread).flatten()[inside])
                    self.residuals.setdefault(number, []).append(_residual(network, volume, views, where))
        network.eval()

    def take(self, other: "Deviations") -> None:
        """Those that another one holds, too."""
        for mine, theirs in ((self.ratios, other.ratios), (self.residuals, other.residuals)):
            for number, values in theirs.items():
                mine.setdefault(number, []).extend(values)  # type: ignore[arg-type]

    @torch.no_grad()
    def set_factors(self, network: IntervalNetwork) -> None:
        """Set the factors of a network's intervals, and its largest residual, for each number of views.

        Raises:
            ValueError: If there is no case.
        """
        if not self.ratios:
            raise ValueError("no cases to calibrate the intervals on: the validation section is empty")
        for number in range(1, network.num_views + 1):
            known = min(number, max(self.ratios))  # for more views than the cases have, those of the most they have
            pooled = torch.cat(self.ratios[known]).double().numpy()
            network.factors[number - 1] = torch.tensor([conformal_quantile(pooled, level) for level in LEVELS])
            network.usual_residual[number - 1] = max(self.residuals[known])
            half, most = network.factors[number - 1].tolist()
            logger.info("%d views: 50 and 90 %% of the voxels are within %.2f and %.2f spreads", number, half, most)


def calibrate(
    network: IntervalNetwork,
    cases: Iterable[Mapping[str, Any]] | CaseList,
    usual_views: Sequence[int] = (),
    device: str | torch.device = "cpu",
    prepare_batch: Prepare | None = None,
) -> None:
    """Set the factors of a network's intervals, and its largest residual, for each number of views.

    The factor is the number of spreads by which an interval must reach to hold 50 or 90 % of the voxels of the body in
    these cases: normalised split conformal prediction (Lei et al., J. Am. Stat. Assoc. 113, 2018, section 5.2). The
    voxels of a patient are not exchangeable, so the share is that over patients, not that in each one.

    Args:
        network: Network whose spread is trained; its buffers are set.
        cases: Items ``image`` (V, H, W), ``matrices`` (V, 3, 4) and ``label`` (1, X, Y, Z), held out of training; and
            perhaps ``exposed`` (V,), which views have a known exposure.
        usual_views: Views that are evaluated beside randomly drawn ones of the same number.
        device: Where to compute.
        prepare_batch: Makes such items of cases that have no radiographs, one at a time.

    Raises:
        ValueError: If there is no case.
    """
    deviations = Deviations()
    deviations.add(network, cases, usual_views, device, prepare_batch)
    deviations.set_factors(network)


def _radiographs(
    case: Mapping[str, Any], prepare_batch: Prepare | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Radiographs, matrices, which exposures are known, and label of a case, on the CPU."""
    if "image" not in case and prepare_batch is not None:
        batch = {key: value[None] for key, value in case.items() if isinstance(value, Tensor)}
        image, label, _, more = prepare_batch(batch, "cpu", False)
        case = {"image": image[0], "label": label[0], **{key: value[0] for key, value in more.items()}}
    image, matrices, label = (case[key].as_subclass(Tensor) for key in ("image", "matrices", "label"))
    return image, matrices, case.get("exposed"), label


def conformal_quantile(values: np.ndarray, level: float) -> float:
    """The ceil((n + 1) level)-th smallest of n values, the largest if there are too few."""
    rank = min(int(np.ceil((len(values) + 1) * level)), len(values))
    return float(np.partition(values, rank - 1)[rank - 1])


def _residual(
    network: IntervalNetwork,
    volume: Float[Tensor, "X Y Z"],
    image: Float[Tensor, "V H W"],
    matrices: Float[Tensor, "V 3 4"],
) -> float:
    """Relative residual of a volume's projections against the radiographs; see `relative_residual`."""
    model, size = network.network, (image.shape[-2], image.shape[-1])
    cameras = [Camera.from_world_to_detector(matrix.double(), size) for matrix in matrices]
    hu = unit_to_hu(volume[None], model.hu_window)
    return relative_residual(project_hu(hu, cameras, model.extent / volume.shape[-1]), image)
