"""The likelihood of a volume and its spread."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LaplaceNLLLoss(nn.Module):
    """Negative log-likelihood of the truth under a Laplace distribution in each voxel.

    It is ``log(2 s) + |truth - volume| / s``: `torch.nn.GaussianNLLLoss` with the absolute error in place of the
    squared one, so that large errors, as from displaced edges, count less (Kendall and Gal, NeurIPS 2017, section 3.1).
    """

    def forward(self, input: Float[Tensor, "B 2 X Y Z"], target: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, ""]:
        """Mean over all voxels.

        Args:
            input: Volume, and its spread s, above 0.
            target: True volume.
        """
        volume, spread = input[:, :1].float(), input[:, 1:].float()
        result: Tensor = (torch.log(2 * spread) + (target - volume).abs() / spread).mean()
        return result
