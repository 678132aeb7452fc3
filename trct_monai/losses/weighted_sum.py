"""A weighted sum of losses with a record of its terms."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.losses.deep_supervision import DeepSupervisionLoss


class WeightedSumLoss(nn.Module):
    """sum_i weight_i * loss_i(input, target), each in float32 with autocast off.

    The unweighted terms of the last call are kept in `terms`, for a log.

    It takes volumes or slices, or the list of a network with deep supervision, the finest volume first:
    `DeepSupervisionLoss` gets all of them, the other losses the finest. A target finer than the finest volume is
    averaged to its size.

    Args:
        losses: Loss modules by name; each takes (input, target).
        weights: Weight of each loss, by the same names. A weight of 0 leaves its loss out.

    Raises:
        ValueError: If the names of losses and weights differ, or no weight is positive.
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(losses) != set(weights):
            raise ValueError(f"losses and weights must have the same names, got {sorted(losses)} and {sorted(weights)}")
        if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
            raise ValueError(f"weights must be 0 or above, one of them above, got {dict(weights)}")
        self.losses = nn.ModuleDict({name: loss for name, loss in losses.items() if weights[name]})
        self.weights = {name: float(weights[name]) for name in self.losses}
        self.terms: dict[str, Tensor] = {}

    def forward(
        self, input: Float[Tensor, "B 1 *size"] | Sequence[Tensor], target: Float[Tensor, "B 1 *target_size"]
    ) -> Float[Tensor, ""]:
        """The weighted sum, a scalar."""
        volumes, target = self._match(input, target)
        with torch.autocast(target.device.type, enabled=False):
            terms = {name: self._term(loss, volumes, target) for name, loss in self.losses.items()}
        self.terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()

    def gradient_norms(
        self, input: Float[Tensor, "B 1 *size"] | Sequence[Tensor], target: Float[Tensor, "B 1 *target_size"]
    ) -> dict[str, float]:
        """L2 norm of each weighted term's gradient with respect to the prediction.

        The network's graph is not used, and random losses draw from a copy of the random generator.
        """
        volumes, target = self._match(input, target)
        leaves = [volume.detach().requires_grad_() for volume in volumes]
        norms = {}
        with torch.random.fork_rng(devices=[]), torch.autocast(target.device.type, enabled=False), torch.enable_grad():
            for name, loss in self.losses.items():
                gradients = torch.autograd.grad(self._term(loss, leaves, target), leaves, allow_unused=True)
                squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
                norms[name] = self.weights[name] * float(torch.stack(squares).sum().sqrt())
        return norms

    @staticmethod
    def _match(input: Tensor | Sequence[Tensor], target: Tensor) -> tuple[list[Tensor], Tensor]:
        """The volumes and the target in float32, the target on the finest volume's grid."""
        volumes = [volume.float() for volume in ([input] if isinstance(input, Tensor) else input)]
        shape = volumes[0].shape[2:]
        target = target.float()
        return volumes, target if target.shape[2:] == shape else F.interpolate(target, size=shape, mode="area")

    @staticmethod
    def _term(loss: nn.Module, volumes: list[Tensor], target: Tensor) -> Tensor:
        result: Tensor = loss(volumes if isinstance(loss, DeepSupervisionLoss) else volumes[0], target)
        return result
