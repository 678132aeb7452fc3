"""All baselines by name: made, and fitted to training cases."""

from collections.abc import Callable, Sequence

from torch import nn

from trct_monai.baselines.backprojection import Backprojection
from trct_monai.baselines.cases import TrainingCases
from trct_monai.baselines.mean_volume import MeanVolume
from trct_monai.baselines.nearest_neighbour import NearestNeighbour
from trct_monai.baselines.ridge_pca import RidgePCA
from trct_monai.baselines.total_variation import TotalVariation
from trct_monai.geometry import DEFAULT_EXTENT, Camera

Geometry = str | Sequence[Camera]

BASELINES: dict[str, Callable[[int, Geometry, float], nn.Module]] = {
    "mean_volume": lambda size, geometry, extent: MeanVolume(size),
    "nearest_neighbour": lambda size, geometry, extent: NearestNeighbour(size),
    "ridge_pca": lambda size, geometry, extent: RidgePCA(size),
    "backprojection": lambda size, geometry, extent: Backprojection(size, geometry=geometry, extent=extent),
    "filtered_backprojection": lambda size, geometry, extent: Backprojection(
        size, geometry=geometry, extent=extent, filtered=True
    ),
    "total_variation": lambda size, geometry, extent: TotalVariation(size, geometry=geometry, extent=extent),
}
"""Name to factory (volume_size, geometry, extent in mm) of every baseline from radiographs, not fitted."""


def make_baseline(
    name: str, volume_size: int = 64, geometry: Geometry = "x2ct", extent: float = DEFAULT_EXTENT
) -> nn.Module:
    """A baseline by its name, not fitted: for `fit_baseline`, or to load a state_dict into.

    Args:
        name: A key of `BASELINES`.
        volume_size: Voxels along each side.
        geometry: Preset of `trct_monai.geometry.preset`, or the cameras; in the order of the radiographs.
        extent: Side of the volume in mm.

    Raises:
        ValueError: If there is no such baseline.
    """
    if name not in BASELINES:
        raise ValueError(f"baseline must be one of {', '.join(BASELINES)}, got {name!r}")
    return BASELINES[name](volume_size, geometry, extent)


def fit_baseline(
    name: str,
    training: TrainingCases,
    validation: TrainingCases = (),
    *,
    volume_size: int = 64,
    geometry: Geometry = "x2ct",
    extent: float = DEFAULT_EXTENT,
) -> nn.Module:
    """A baseline by its name, fitted to training cases, its settings chosen on validation cases.

    Nothing is learned from the validation cases but the settings: the number of components and the ridge of
    ``ridge_pca``, the weight of ``total_variation``. Without validation cases these keep their defaults. The
    back-projections learn nothing at all.

    Args:
        name: A key of `BASELINES`.
        training: Mappings with ``image``, line integrals (V, H, W), and ``label`` (1, X, Y, Z) in [0, 1].
        validation: As `training`, of other patients.
        volume_size: Voxels along each side.
        geometry: Preset of `trct_monai.geometry.preset`, or the cameras; in the order of the radiographs.
        extent: Side of the volume in mm.

    Returns:
        The fitted baseline on the CPU, in eval mode: radiographs (B, V, H, W) to volumes (B, 1, X, Y, Z) in [0, 1].

    Raises:
        ValueError: If there is no such baseline, or cases do not fit.
    """
    baseline = make_baseline(name, volume_size, geometry, extent)
    if isinstance(baseline, MeanVolume | NearestNeighbour):
        baseline.fit(training)
    elif isinstance(baseline, RidgePCA):
        baseline.select(training, validation)
    elif isinstance(baseline, TotalVariation):
        baseline.select(validation)
    return baseline.eval()
