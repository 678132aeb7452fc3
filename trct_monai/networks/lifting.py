"""Features of radiographs lifted into the volume: each point reads each view where its ray hits the detector."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.reconstruction import beside


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


class LiftedRadiographs(nn.Module):
    """Radiographs as channels of a volume, by which a discriminator sees what a volume has to agree with.

    For `condition` of `trct_monai.training.AdversarialTrainer`. X2CT-GAN's discriminator is conditional in this way
    (Ying et al., CVPR 2019), with pictures repeated along an axis of the volume instead of along their rays.

    Args:
        volume_size: Voxels along each side of the volume.
        extent: Side of the volume in mm.
        largest: Line integral that becomes one.
    """

    centers: Tensor

    def __init__(self, volume_size: int, extent: float = DEFAULT_EXTENT, largest: float = 6.0) -> None:
        super().__init__()
        self.largest = largest
        self.register_buffer("centers", voxel_centers((volume_size,) * 3, extent / volume_size).float())

    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ V 3 4"],
        exposed: Bool[Tensor, "B V"] | None = None,
    ) -> Float[Tensor, "B V X Y Z"]:
        """Each radiograph in [0, 1] along its own rays.

        Args:
            image: Radiographs as line integrals, on the device of this module.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            exposed: Has no effect.
        """
        unit = (image / self.largest).clamp(0.0, 1.0)
        return lift(unit[:, :, None], beside(matrices, image), self.centers).squeeze(2)
