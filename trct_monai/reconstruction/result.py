"""What a reconstruction is: a CT with its intervals, and what it was made from."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU

NOTICE = "Research software, not a medical device: the result is a guess from training data, not an examination."


@dataclass(frozen=True)
class Result:
    """A reconstruction.

    Attributes:
        pred: CT in HU, and its quantiles if the method gives any (1 or 5, X, Y, Z), as `SaveCTd` takes it.
        radiographs: What it was made from (V, H, W), as line integrals.
        reprojections: Its own projections (V, H, W).
        cameras: The views, of that size.
        residual: Relative residual between the two; of a refined volume, that of the network's own volume.
        usual_residual: The largest one of the validation cases; None if the method was not calibrated.
        intensities: Gain and offset from each picture's numbers to line integrals.
        warnings: What speaks against it.
        notes: How radiographs without cameras were understood.
        measured: What was found out about each, for the record; see `MeasuredPicture.record`.
    """

    pred: MetaTensor
    radiographs: Float[Tensor, "V H W"]
    reprojections: Float[Tensor, "V H W"]
    cameras: list[Camera]
    residual: float
    usual_residual: float | None
    intensities: list[tuple[float, float]]
    warnings: list[str]
    notes: list[str] = field(default_factory=list)
    measured: list[dict[str, Any]] = field(default_factory=list)

    @property
    def volume_hu(self) -> Float[Tensor, "X Y Z"]:
        """The CT."""
        volume: Tensor = self.pred.as_tensor()[0]
        return volume

    @property
    def width_hu(self) -> Float[Tensor, "X Y Z"] | None:
        """Width of the 90 % interval in each voxel; None if the method gives no intervals."""
        return None if len(self.pred) == 1 else self.pred.as_tensor()[-1] - self.pred.as_tensor()[1]

    @property
    def mean_width_hu(self) -> float | None:
        """Mean width of the 90 % interval in the body."""
        width = self.width_hu
        return None if width is None else float(width[self.volume_hu > BODY_HU].mean().nan_to_num())

    @property
    def affine(self) -> np.ndarray:
        """From voxel index to world mm in RAS, the isocentre at 0."""
        return np.asarray(self.pred.affine.double().numpy())
