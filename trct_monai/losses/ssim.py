"""Structural similarity as a loss, right in half precision too."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SSIMLoss(nn.Module):
    """One minus the mean structural similarity of volumes (Wang et al., IEEE Trans. Image Process. 13(4), 2004).

    The same numbers as MONAI's `SSIMLoss` with a uniform window, computed as means along one axis after the other, in
    place of one sum over all voxels of the window: 21 in place of 343 of them. And in float32 whatever autocast says:
    averages of squares in half precision, as MONAI's are there, are rounded by more than the variances in which they
    end.

    Args:
        win_size: Voxels along each side of the window.
        data_range: Difference of the largest and the smallest value.
        k1: Weight of the constant that keeps the luminance term finite.
        k2: Weight of the constant that keeps the contrast term finite.

    Raises:
        ValueError: If the window or the range is not positive.
    """

    def __init__(self, win_size: int = 7, data_range: float = 1.0, k1: float = 0.01, k2: float = 0.03) -> None:
        super().__init__()
        if win_size < 1 or data_range <= 0:
            raise ValueError(f"win_size and data_range must be positive, got {win_size} and {data_range}")
        self.win_size, self.c1, self.c2 = win_size, (k1 * data_range) ** 2, (k2 * data_range) ** 2

    def forward(self, prediction: Float[Tensor, "B 1 X Y Z"], target: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, ""]:
        """The mean over all windows that lie within the volumes, a scalar.

        Args:
            prediction: Volumes in [0, data_range].
            target: What they should be.

        Raises:
            ValueError: If the volumes are smaller than the window.
        """
        if prediction.shape[1] != 1:
            raise ValueError(f"volumes must have one channel, got {prediction.shape[1]}")
        if min(prediction.shape[2:]) < self.win_size:
            raise ValueError(f"volumes must have {self.win_size} voxels a side, got {tuple(prediction.shape[2:])}")
        with torch.autocast(prediction.device.type, enabled=False):
            x, y = prediction.float(), target.float()
            means = self._averaged(torch.cat([x, y, x * x, y * y, x * y], dim=1))
            mean_x, mean_y, square_x, square_y, product = means.unbind(dim=1)
            variances = square_x - mean_x**2 + square_y - mean_y**2
            contrast = (2 * (product - mean_x * mean_y) + self.c2) / (variances + self.c2)
            luminance = (2 * mean_x * mean_y + self.c1) / (mean_x**2 + mean_y**2 + self.c1)
            return 1 - (luminance * contrast).mean()

    def _averaged(self, x: Float[Tensor, "B C X Y Z"]) -> Tensor:
        """Means over the window."""
        for axis in range(3):
            window = [self.win_size if other == axis else 1 for other in range(3)]
            x = F.avg_pool3d(x, window, stride=1)
        return x
