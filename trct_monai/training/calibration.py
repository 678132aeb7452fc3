"""Calibration of a network's intervals and of the residual to expect, on cases held out of training."""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU, unit_to_hu
from trct_monai.metrics.reprojection import relative_residual
from trct_monai.networks.intervals import LEVELS, IntervalNetwork
from trct_monai.projector import project_hu

logger = logging.getLogger(__name__)

VOXELS_PER_CASE = 20_000
"""Voxels of the body that are drawn from a case."""


@torch.no_grad()
def calibrate(
    network: IntervalNetwork,
    cases: Iterable[Mapping[str, Tensor]],
    usual_views: Sequence[int] = (),
    device: str | torch.device = "cpu",
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

    Raises:
        ValueError: If there is no case.
    """
    ratios: dict[int, list[Tensor]] = {}
    residuals: dict[int, list[float]] = {}
    generator = torch.Generator().manual_seed(0)
    network.train()
    for case in cases:
        image, matrices, label = (case[key].as_subclass(Tensor) for key in ("image", "matrices", "label"))
        inside = (unit_to_hu(label[0], network.network.hu_window) > BODY_HU).flatten().nonzero()[:, 0]
        inside = inside[torch.randperm(len(inside), generator=generator)[:VOXELS_PER_CASE]]
        for number in range(1, min(len(image), network.num_views) + 1):
            choices = [torch.randperm(len(image), generator=generator)[:number].tolist()]
            if number == len(usual_views):
                choices.append([int(view) for view in usual_views])
            for chosen in choices:
                views, where = image[chosen], matrices[chosen]
                told = {"exposed": case["exposed"][chosen][None]} if "exposed" in case else {}
                volume, spread = network(views[None].to(device), where[None].to(device), **told)[0].cpu()
                ratios.setdefault(number, []).append(((label[0] - volume).abs() / spread).flatten()[inside])
                residuals.setdefault(number, []).append(_residual(network, volume, views, where))
    network.eval()
    if not ratios:
        raise ValueError("no cases to calibrate the intervals on: the validation section is empty")
    for number in range(1, network.num_views + 1):
        known = min(number, max(ratios))  # for more views than the cases have, the factors of the most they have
        pooled = torch.cat(ratios[known]).double().numpy()
        network.factors[number - 1] = torch.tensor([conformal_quantile(pooled, level) for level in LEVELS])
        network.usual_residual[number - 1] = max(residuals[known])
        half, most = network.factors[number - 1].tolist()
        logger.info("%d views: 50 and 90 %% of the voxels are within %.2f and %.2f spreads", number, half, most)


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
