"""Where the voxels of a CT are, beside it on its device."""

import torch
from jaxtyping import Real
from torch import Tensor


def axes_mm(ct_hu: Real[Tensor, "1 X Y Z"], spacing: float) -> list[Tensor]:
    """Positions of the voxels along x, y and z, in mm from the middle of the volume.

    Args:
        ct_hu: The CT.
        spacing: Voxel side in mm.
    """
    return [spacing * (torch.arange(n, device=ct_hu.device) - (n - 1) / 2) for n in ct_hu.shape[1:]]
