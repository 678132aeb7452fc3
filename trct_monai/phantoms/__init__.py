"""Thorax CT phantoms: deterministic from a seed, in HU, at any voxel size; they support no clinical claim."""

from trct_monai.phantoms.findings import FINDINGS
from trct_monai.phantoms.thorax import ORGANS, Phantom, phantom_series, thorax_phantom

__all__ = ["FINDINGS", "ORGANS", "Phantom", "phantom_series", "thorax_phantom"]
