"""Methods that a network must beat, behind the same contract: radiographs (B, V, H, W) to a volume in [0, 1].

Three learn from training cases (`MeanVolume`, `NearestNeighbour`, `RidgePCA`), two use the geometry alone
(`Backprojection`, `TotalVariation`), and `Identity` is the baseline of CT-to-CT methods. A case is a mapping with
``image``, line integrals (V, H, W), and ``label``, the volume (1, X, Y, Z) in [0, 1], as MONAI's data sets give it.
`fit_baseline` makes and fits any of them by its name.
"""

from trct_monai.baselines.backprojection import Backprojection
from trct_monai.baselines.fitting import BASELINES, fit_baseline, make_baseline
from trct_monai.baselines.identity import Identity
from trct_monai.baselines.mean_volume import MeanVolume
from trct_monai.baselines.nearest_neighbour import NearestNeighbour
from trct_monai.baselines.ridge_pca import RidgePCA
from trct_monai.baselines.total_variation import TotalVariation

__all__ = [
    "BASELINES",
    "Backprojection",
    "Identity",
    "MeanVolume",
    "NearestNeighbour",
    "RidgePCA",
    "TotalVariation",
    "fit_baseline",
    "make_baseline",
]
