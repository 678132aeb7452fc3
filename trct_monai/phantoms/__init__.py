"""Thorax CT phantoms: deterministic from a seed, in HU, at any voxel size; no clinical claim can be read from them."""

from trct_monai.phantoms.findings import FINDINGS
from trct_monai.phantoms.thorax import ORGANS, Phantom, phantom_series, thorax_phantom

__all__ = ["FINDINGS", "ORGANS", "Phantom", "phantom_series", "thorax_phantom"]
