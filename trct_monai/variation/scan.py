"""Where a scan ends: air beyond its first and last slice and its circular field of view."""

from math import inf

from jaxtyping import Float
from torch import Tensor

from trct_monai.intensity import AIR_HU
from trct_monai.variation.grid import axes_mm


def limited(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, low_mm: float = -inf, high_mm: float = inf, radius_mm: float = inf
) -> Float[Tensor, "1 X Y Z"]:
    """A CT as a scan would show it that ends there.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        low_mm: Lowest z of the scan, from the middle of the volume.
        high_mm: Highest z.
        radius_mm: Radius of the field of view about the middle.
    """
    x, y, z = axes_mm(ct_hu, spacing)
    seen = (x[:, None, None] ** 2 + y[:, None] ** 2 <= radius_mm**2) & (z >= low_mm) & (z <= high_mm)
    return ct_hu.where(seen, AIR_HU)
