"""The input itself."""

from jaxtyping import Float
from torch import Tensor, nn


class Identity(nn.Module):
    """The volume that came in: what a method from CT to CT, such as a phase generator, must beat.

    Unlike the other baselines it takes a volume, not radiographs.
    """

    def forward(self, image: Float[Tensor, "..."]) -> Float[Tensor, "B 1 X Y Z"]:
        """The volume, in [0, 1], as it is.

        Raises:
            ValueError: If it is not (B, 1, X, Y, Z).
        """
        if image.ndim != 5 or image.shape[1] != 1:
            raise ValueError(f"image must be a volume (B, 1, X, Y, Z), got shape {tuple(image.shape)}")
        return image
