"""A radiograph as a registration sees it: small, square, in all eight orientations, with the pixels that count."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.resampling import resize_radiographs

LEAST_COVERED = 0.5
"""A pixel of a small picture counts if so much of it is valid in the original."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """One radiograph in its eight orientations.

    Attributes:
        values: Numbers (8, S, S) in the order of `ORIENTATIONS`, of mean 0 and standard deviation 1 where they count.
        weights: 1 for pixels that count, 0 for others.
    """

    values: Float[Tensor, "8 S S"]
    weights: Float[Tensor, "8 S S"]

    @classmethod
    def of(
        cls, image: Float[Tensor, "H W"], mask: Bool[Tensor, "H W"] | None, size: int, scaled: bool = True
    ) -> "Pictures":
        """The radiograph with `size` x `size` pixels, whatever its sides.

        Args:
            image: The picture as it is stored.
            mask: Its valid pixels; None if all are.
            size: Rows and columns.
            scaled: Bring the numbers to mean 0 and standard deviation 1.
        """
        valid = torch.ones_like(image, dtype=torch.float32) if mask is None else mask.float()
        share = resize_radiographs(valid, size)
        values = resize_radiographs(image.float() * valid, size) / share.clamp(min=1e-6)
        weights = (share > LEAST_COVERED).float()
        if scaled:
            total = weights.sum().clamp(min=1)
            values = (values - (values * weights).sum() / total) * weights
            values = values / (values.square().sum() / total).sqrt().clamp(min=1e-9)
        return cls(*(torch.stack([orient(one, name) for name in ORIENTATIONS]) for one in (values, weights)))

    def equalised(self) -> "Pictures":
        """The same with ranks in place of numbers: no monotone change of the scale matters any more."""
        return Pictures(torch.stack([ranks(v, w) for v, w in zip(self.values, self.weights)]), self.weights)


def ranks(values: Float[Tensor, "*shape"], weights: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Share of the counting values that are below each value, half of those that equal it included: in [0, 1]."""
    counting = values[weights > 0].contiguous().sort().values
    if not len(counting):
        return torch.zeros_like(values)
    below = torch.searchsorted(counting, values.contiguous())
    upto = torch.searchsorted(counting, values.contiguous(), right=True)
    return (below + upto).float() / (2 * len(counting))
