"""Features of radiographs lifted into the volume: each point reads each view where its ray hits the detector."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def detector_coordinates(
    points: Float[Tensor, "N 3"], matrices: Float[Tensor, "*batch 3 4"]
) -> Float[Tensor, "*batch N 2"]:
    """Where points project to: (u, v) in [-1, 1] from edge to edge of the detector, as `grid_sample` wants them.

    Args:
        points: World mm from the isocentre, in front of every source.
        matrices: World-to-detector matrices; see `trct_monai.geometry.Camera.world_to_detector`.
    """
    with torch.autocast(points.device.type, enabled=False):  # half precision would miss by most of a pixel
        u, v, w = (matrices.to(points) @ F.pad(points, (0, 1), value=1.0).T).unbind(-2)
        return torch.stack([u / w, v / w], dim=-1)


def lift(
    features: Float[Tensor, "B V C h w"], matrices: Float[Tensor, "_ V 3 4"], points: Float[Tensor, "*grid 3"]
) -> Float[Tensor, "B V C *grid"]:
    """Each view's features at the points whose rays they lie on: a perspective-correct smear along the view's own axis.

    Linear in the features; a point that projects beyond the detector's edge gets 0. What differs along a ray must come
    from the other views and from what follows.

    Args:
        features: One feature map for each view, over the whole detector.
        matrices: World-to-detector matrices, one set for all cases or one for each.
        points: The centres of a volume's voxels (X, Y, Z, 3), or any points (N, 3), in mm from the isocentre.
    """
    batch, views = features.shape[:2]
    shape = points.shape[:-1]
    coordinates = detector_coordinates(points.flatten(0, -2), matrices)  # (_, V, N, 2)
    grid = coordinates.expand(batch, -1, -1, -1).reshape(batch * views, -1, shape[-1], 2)
    with torch.autocast(features.device.type, enabled=False):
        lifted = F.grid_sample(features.flatten(0, 1).to(grid.dtype), grid, align_corners=False)
    return lifted.to(features.dtype).view(batch, views, -1, *shape)
