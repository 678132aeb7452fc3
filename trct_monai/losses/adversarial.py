"""The adversarial loss of scores without an activation."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ScoreLoss(nn.Module, ABC):
    """What lies between a discriminator's scores and 1 for real or 0 for fake, in float32."""

    def forward(
        self, scores: Float[Tensor, "B 1 *patches"], target_is_real: bool, for_discriminator: bool
    ) -> Float[Tensor, ""]:
        """The loss, a scalar.

        Args:
            scores: Without an activation.
            target_is_real: Whether the scores should be those of real volumes.
            for_discriminator: Has no effect.
        """
        return self.compare(scores.float(), torch.full_like(scores, float(target_is_real), dtype=torch.float32))

    @abstractmethod
    def compare(self, scores: Tensor, target: Tensor) -> Tensor:
        """The mean over all scores, both in float32."""


class LeastSquaresAdversarialLoss(ScoreLoss):
    """Mean squared distance of a discriminator's scores from 1 for real and 0 for fake (Mao et al., ICCV 2017).

    It equals MONAI's `PatchAdversarialLoss` of least squares without an activation, in float32, and does not copy the
    target to the scores' device in each call, which would make each step wait for a GPU.
    """

    def compare(self, scores: Tensor, target: Tensor) -> Tensor:
        """See `ScoreLoss.compare`."""
        return F.mse_loss(scores, target)


class LogitAdversarialLoss(ScoreLoss):
    """Binary cross-entropy of a discriminator's scores (Goodfellow et al., NeurIPS 2014; non-saturating).

    MONAI's `PatchAdversarialLoss` takes the logarithm of a sigmoid, which fails in half precision; this one computes
    both in one step, in float32. Scores above 0 mean real: an `AdversarialTrainer` needs ``decision_threshold=0.0``.
    """

    def compare(self, scores: Tensor, target: Tensor) -> Tensor:
        """See `ScoreLoss.compare`."""
        return F.binary_cross_entropy_with_logits(scores, target)
