"""The scores of one case: every protocol, and the probes that need one case alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.geometry import Camera
from trct_monai.intensity import BODY_HU
from trct_monai.metrics import PROTOCOLS, hu_protocol
from trct_monai.metrics.anatomy import (
    contrast_ratio,
    dice_by_threshold,
    dice_vessels,
    equivalent_blur,
    lung_volume_ml,
    mae_by_tissue,
    orientation,
)
from trct_monai.metrics.reprojection import held_out_camera, match_scale, relative_residual
from trct_monai.metrics.uncertainty import interval_scores
from trct_monai.projector import project_hu
from trct_monai.transforms import LoadRadiographsd

Array = np.ndarray
Scores = dict[str, float]


def protocol_scores(
    prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"], hu_window: Sequence[float]
) -> Scores:
    """The scores of every protocol as PROTOCOL.SCORE, the headline ``hu`` in the window that is given."""
    protocols = {**PROTOCOLS, "hu": hu_protocol(hu_window)}
    return {
        f"{name}.{score}": value
        for name, protocol in protocols.items()
        for score, value in protocol(prediction, truth).items()
    }


def headline_scores(
    prediction: Float[Tensor, "1 X Y Z"], truth: Float[Tensor, "1 X Y Z"], hu_window: Sequence[float]
) -> Scores:
    """The scores of the ``hu`` protocol alone, of volumes in HU."""
    scores = hu_protocol(hu_window)(*(volume.as_subclass(Tensor)[0].numpy() for volume in (prediction, truth)))
    return {f"hu.{score}": value for score, value in scores.items()}


def anatomy_scores(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"], voxel_spacing: float) -> Scores:
    """The probes of `trct_monai.metrics.anatomy` on volumes that are clipped to one window."""
    lungs, true_lungs = (lung_volume_ml(volume, voxel_spacing) for volume in (prediction, truth))
    return {
        **{f"mae_{name}": value for name, value in mae_by_tissue(prediction, truth, voxel_spacing).items()},
        **{f"dice_{name}": value for name, value in dice_by_threshold(prediction, truth).items()},
        "dice_vessels": dice_vessels(prediction, truth, voxel_spacing),
        "lung_volume_error_ml": abs(lungs - true_lungs),
        "equivalent_blur_mm": equivalent_blur(prediction, truth, voxel_spacing),
        "contrast_ratio": contrast_ratio(prediction, truth),
        **{f"orientation_{name}": value for name, value in orientation(prediction, truth).items()},
    }


class CaseRadiographs:
    """The radiographs of a case with their cameras.

    Args:
        case: A case of `load_datalist` with its radiographs and cameras.

    Attributes:
        images: (V, H, W), line integrals or pictures.
        cameras: One camera for each view.
        fit: Whether projections are brought to the scale of the images first: a view does not hold line integrals.
    """

    def __init__(self, case: Mapping[str, Any]) -> None:
        loaded = LoadRadiographsd(allow_unquantitative=True)({key: case[key] for key in case if key != "label"})
        self.images: Tensor = loaded["image"]
        size = (self.images.shape[-2], self.images.shape[-1])
        self.cameras = [Camera.from_dict(camera).resized(size) for camera in case["cameras"]]
        self.fit = not bool(loaded["calibrated"].all())

    @classmethod
    def of(cls, case: Mapping[str, Any] | None) -> "CaseRadiographs | None":
        """The radiographs of a case; None if it has none, or the datalist does not have their cameras."""
        return cls(case) if case and case.get("image") and case.get("cameras") else None

    def reproject(self, volume_hu: Float[Tensor, "1 X Y Z"], voxel_spacing: float) -> Float[Tensor, "V H W"]:
        """Projections of a volume in the case's views, on the scale of the images."""
        projections = project_hu(volume_hu, self.cameras, voxel_spacing)
        return match_scale(projections, self.images) if self.fit else projections

    def residual(self, volume_hu: Float[Tensor, "1 X Y Z"], voxel_spacing: float) -> float:
        """Relative residual of a volume's projections; see `relative_residual`."""
        return relative_residual(project_hu(volume_hu, self.cameras, voxel_spacing), self.images, fit=self.fit)


def radiograph_scores(
    prediction: Float[Tensor, "1 X Y Z"],
    truth: Float[Tensor, "1 X Y Z"],
    mean_volume: Float[Tensor, "1 X Y Z"] | None,
    radiographs: CaseRadiographs,
    other: CaseRadiographs | None,
    voxel_spacing: float,
) -> Scores:
    """Relative residuals of a prediction's projections in the case's views, and in a held-out view.

    reprojection: Against the case's radiographs; its controls are the residuals of the truth (what rendering, voxels
        and noise cost), of the mean volume, and of the prediction against another patient's radiographs.
    held_out_view: Against the truth's projection in the view that is farthest from all others; its control is the mean
        volume's residual.

    Args:
        prediction: In HU.
        truth: In HU.
        mean_volume: Mean of the training volumes in HU, if there is one.
        radiographs: The case's radiographs.
        other: Another patient's radiographs, if there is one.
        voxel_spacing: Voxel side in mm.
    """
    unseen = [held_out_camera(radiographs.cameras)]
    expected = project_hu(truth, unseen, voxel_spacing)

    def held_out(volume: Tensor) -> float:
        return relative_residual(project_hu(volume, unseen, voxel_spacing), expected)

    scores = {
        "reprojection": radiographs.residual(prediction, voxel_spacing),
        "reprojection_truth": radiographs.residual(truth, voxel_spacing),
        "held_out_view": held_out(prediction),
    }
    if mean_volume is not None:
        scores["reprojection_mean_volume"] = radiographs.residual(mean_volume, voxel_spacing)
        scores["held_out_view_mean_volume"] = held_out(mean_volume)
    if other is not None:
        scores["reprojection_shuffled"] = other.residual(prediction, voxel_spacing)
    return scores


def score_case(
    prediction: MetaTensor,
    truth: MetaTensor,
    hu_window: Sequence[float],
    *,
    mean_volume: MetaTensor | None = None,
    radiographs: CaseRadiographs | None = None,
    other: CaseRadiographs | None = None,
    quantiles: Float[Array, "X Y Z 4"] | None = None,
) -> Scores:
    """All scores of one case by the names of `trct_monai.evaluation.columns`.

    Args:
        prediction: CT (1, X, X, X) in HU.
        truth: CT in HU on the same grid.
        hu_window: Lowest and highest HU; values outside are clipped.
        mean_volume: Mean of the training volumes in HU on the same grid.
        radiographs: The case's radiographs.
        other: Another patient's radiographs.
        quantiles: The method's intervals; see `trct_monai.metrics.uncertainty`.
    """
    low, high = hu_window
    spacing = float(truth.pixdim[0])
    clipped, expected = (volume.as_subclass(Tensor).float().clamp(low, high) for volume in (prediction, truth))
    x, y = clipped[0].numpy(), expected[0].numpy()
    scores = {**protocol_scores(prediction[0].numpy(), truth[0].numpy(), hu_window), **anatomy_scores(x, y, spacing)}
    if radiographs is not None:
        mean = None if mean_volume is None else mean_volume.as_subclass(Tensor)
        scores.update(radiograph_scores(clipped, expected, mean, radiographs, other, spacing))
    if quantiles is not None:
        scores.update(interval_scores(quantiles.clip(low, high), x, y, y > BODY_HU))
    return scores
