"""The mean of the training volumes."""

from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.baselines.cases import TrainingCases, each


class MeanVolume(nn.Module):
    """The mean of the training volumes, for any radiographs.

    It reaches 18 to 22 dB on thorax CTs: a method must be far above that to be of any use.

    Args:
        volume_size: Voxels along each side.
    """

    volume: Tensor

    def __init__(self, volume_size: int = 64) -> None:
        super().__init__()
        self.register_buffer("volume", torch.zeros(1, 1, volume_size, volume_size, volume_size))

    def fit(self, cases: TrainingCases | Iterable[Float[Tensor, "1 X Y Z"]]) -> "MeanVolume":
        """Average the training volumes, each in [0, 1].

        Args:
            cases: Cases with ``label``, or the volumes themselves.

        Raises:
            ValueError: If there is none.
        """
        total, count = torch.zeros_like(self.volume[0]), 0
        for case in each(cases):
            volume = case["label"] if isinstance(case, Mapping) else case
            total += volume.as_subclass(Tensor).to(total)
            count += 1
        if count == 0:
            raise ValueError("the mean volume needs at least one training volume, got none")
        self.volume = total[None] / count
        return self

    def forward(self, image: Float[Tensor, "B V H W"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The mean volume for each case."""
        return self.volume.expand(len(image), -1, -1, -1, -1)
