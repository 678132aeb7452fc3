"""All that is measured of one case: every protocol, and the probes that need a case alone."""

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
    equivalent_blur,
    lung_volume_ml,
    mae_by_tissue,
    orientation,
)
from trct_monai.metrics.reprojection import held_out_camera, relative_residual
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


def anatomy_scores(prediction: Float[Array, "X Y Z"], truth: Float[Array, "X Y Z"], voxel_spacing: float) -> Scores:
    """The probes of `trct_monai.metrics.anatomy` on volumes that are clipped to one window."""
    lungs, true_lungs = (lung_volume_ml(volume, voxel_spacing) for volume in (prediction, truth))
    return {
        **{f"mae_{name}": value for name, value in mae_by_tissue(prediction, truth, voxel_spacing).items()},
        **{f"dice_{name}": value for name, value in dice_by_threshold(prediction, truth).items()},
        "lung_volume_error_ml": abs(lungs - true_lungs),
        "equivalent_blur_mm": equivalent_blur(prediction, truth, voxel_spacing),
        "contrast_ratio": contrast_ratio(prediction, truth),
        **{f"orientation_{name}": value for name, value in orientation(prediction, truth).items()},
    }


class Views:
    """The radiographs of a case, and whether they hold line integrals.

    Args:
        case: A case of `load_datalist`.
    """

    def __init__(self, case: Mapping[str, Any]) -> None:
        loader = LoadRadiographsd(allow_unquantitative=True)
        self.radiographs: Tensor = loader({key: case[key] for key in case if key != "label"})["image"]
        size = (self.radiographs.shape[-2], self.radiographs.shape[-1])
        self.cameras = [Camera.from_dict(camera).resized(size) for camera in case["cameras"]]
        self.fit = not all(one["quantitative"] or one["gain"] is not None for one in case.get("intensity", []))

    def residual(self, volume_hu: Float[Tensor, "1 X Y Z"], voxel_spacing: float) -> float:
        """Relative residual of a volume's projections; see `relative_residual`."""
        return relative_residual(project_hu(volume_hu, self.cameras, voxel_spacing), self.radiographs, fit=self.fit)


def radiograph_scores(
    prediction: Float[Tensor, "1 X Y Z"],
    truth: Float[Tensor, "1 X Y Z"],
    mean_volume: Float[Tensor, "1 X Y Z"] | None,
    views: Views,
    other: Views | None,
    voxel_spacing: float,
) -> Scores:
    """How well a prediction agrees with the radiographs, and with a view that no method saw.

    reprojection: Residual against the case's radiographs; beside it the same of the truth (what rendering, voxels and
        noise cost), of the mean volume, and of the prediction against another patient's radiographs.
    held_out_view: Residual between the projections of prediction and truth from the side that is farthest from all
        views; beside it the mean volume's.

    Args:
        prediction: In HU.
        truth: In HU.
        mean_volume: Mean of the training volumes in HU, if there is one.
        views: The case's radiographs.
        other: Another patient's radiographs, if there is one.
        voxel_spacing: Voxel side in mm.
    """
    unseen = [held_out_camera(views.cameras)]
    expected = project_hu(truth, unseen, voxel_spacing)

    def held_out(volume: Tensor) -> float:
        return relative_residual(project_hu(volume, unseen, voxel_spacing), expected)

    scores = {
        "reprojection": views.residual(prediction, voxel_spacing),
        "reprojection_truth": views.residual(truth, voxel_spacing),
        "held_out_view": held_out(prediction),
    }
    if mean_volume is not None:
        scores["reprojection_mean_volume"] = views.residual(mean_volume, voxel_spacing)
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
    views: Views | None = None,
    other: Views | None = None,
    quantiles: Float[Array, "X Y Z 4"] | None = None,
) -> Scores:
    """Everything that is measured of one case, by name.

    Args:
        prediction: CT (1, X, X, X) in HU.
        truth: CT in HU on the same grid.
        hu_window: Lowest and highest HU; what lies outside counts as its end.
        mean_volume: Mean of the training volumes in HU on the same grid.
        views: The case's radiographs.
        other: Another patient's radiographs.
        quantiles: The method's intervals; see `trct_monai.metrics.uncertainty`.
    """
    low, high = hu_window
    spacing = float(truth.pixdim[0])
    clipped, expected = (volume.as_subclass(Tensor).float().clamp(low, high) for volume in (prediction, truth))
    x, y = clipped[0].numpy(), expected[0].numpy()
    scores = {**protocol_scores(prediction[0].numpy(), truth[0].numpy(), hu_window), **anatomy_scores(x, y, spacing)}
    if views is not None:
        mean = None if mean_volume is None else mean_volume.as_subclass(Tensor)
        scores.update(radiograph_scores(clipped, expected, mean, views, other, spacing))
    if quantiles is not None:
        scores.update(interval_scores(quantiles.clip(low, high), x, y, y > BODY_HU))
    return scores
