"""A sum of losses that keeps each of them in sight."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn


class WeightedSumLoss(nn.Module):
    """sum_i weight_i * loss_i(input, target), each in float32 with autocast off.

    The unweighted terms of the last call stay in `terms`, so that a log can show each one beside the others: a loss
    that takes over is seen, not guessed.

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

    def forward(self, input: Float[Tensor, "B 1 X Y Z"], target: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, ""]:
        """The weighted sum, a scalar."""
        with torch.autocast(input.device.type, enabled=False):
            terms = {name: loss(input.float(), target.float()) for name, loss in self.losses.items()}
        self.terms = {name: term.detach() for name, term in terms.items()}
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum()
