"""The squared error in dB: every case counts alike, however large its error."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class PSNRLoss(nn.Module):
    """Minus the peak signal-to-noise ratio of each case in dB, whose range is 1; the mean over the cases.

    The gradient of the mean squared error is proportional to a case's error: in a batch of phantoms at 31 dB and
    patients at 22 dB the patients have eight times the weight. In dB each case has the same. The loss is that of Chen
    et al., HINet (CVPR workshops 2021), equation 4.

    Args:
        floor: Added to the mean squared error: a case beyond -10 log10(floor) dB counts no more.
    """

    def __init__(self, floor: float = 1e-5) -> None:
        super().__init__()
        self.floor = floor

    def forward(self, input: Float[Tensor, "B 1 *size"], target: Float[Tensor, "B 1 *size"]) -> Float[Tensor, ""]:
        """The loss of volumes in [0, 1], a scalar below 0 unless a mean squared error is above 1."""
        error = (input - target).square().flatten(1).mean(dim=1)
        result: Tensor = 10 * torch.log10(error + self.floor).mean()
        return result
