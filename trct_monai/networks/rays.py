"""Where the rays of a feature map run through the patient, from projection matrices alone.

A projection matrix (3, 4) takes homogeneous world mm to detector coordinates in [-1, 1]; see
`trct_monai.geometry.Camera.world_to_detector`. It is all that a network needs to know of a camera: the ray of a pixel
(u, v) is the line on which two planes meet, (P0 - u P2) x = 0 and (P1 - v P2) x = 0 (Hartley and Zisserman, Multiple
View Geometry, section 6.2). That holds for cone and parallel beams alike.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def pixel_rays(
    matrices: Float[Tensor, "*batch 3 4"], size: tuple[int, int]
) -> tuple[Float[Tensor, "*batch H W 3"], Float[Tensor, "*batch H W 3"]]:
    """The rays through the cells of a feature map that covers the whole detector.

    Args:
        matrices: World-to-detector matrices.
        size: Rows and columns of the feature map (H, W), however many pixels the radiograph has.

    Returns:
        The point of each ray that is nearest to the isocentre, in mm, and its unit direction away from the source.
    """
    matrices = matrices.double()
    v, u = (
        ((2 * torch.arange(n, device=matrices.device, dtype=torch.float64) + 1) / n - 1).view(shape)
        for n, shape in zip(size, ((-1, 1), (1, -1)))
    )
    p0, p1, p2 = (row[..., None, None, :] for row in matrices.unbind(-2))  # (*batch, 1, 1, 4)
    across = p0 - u.expand(size)[..., None] * p2
    down = p1 - v.expand(size)[..., None] * p2
    direction = torch.linalg.cross(down[..., :3], across[..., :3])
    nearest = across[..., 3:] * torch.linalg.cross(down[..., :3], direction)
    nearest = nearest + down[..., 3:] * torch.linalg.cross(direction, across[..., :3])
    nearest = nearest / direction.square().sum(-1, keepdim=True)
    return nearest.float(), torch.nn.functional.normalize(direction, dim=-1).float()


def squared_distance_to_rays(
    points: Float[Tensor, "N 3"], nearest: Float[Tensor, "*batch M 3"], direction: Float[Tensor, "*batch M 3"]
) -> Float[Tensor, "*batch N M"]:
    """Squared distance in mm^2 from each point to each ray: ``|p - q|^2 - ((p - q) . d)^2``.

    Args:
        points: World mm.
        nearest: A point of each ray, in mm.
        direction: Unit direction of each ray.
    """
    offset = points[:, None, :] - nearest[..., None, :, :]
    along = (offset * direction[..., None, :, :]).sum(-1)
    return (offset.square().sum(-1) - along.square()).clamp(min=0.0)


def points_along_rays(
    nearest: Float[Tensor, "*batch 3"], direction: Float[Tensor, "*batch 3"], extent: float, num_points: int
) -> Float[Tensor, "*batch K 3"]:
    """Points spread evenly along each ray through a cube, in units of half the cube's side.

    Args:
        nearest: Point of each ray that is nearest to the isocentre, in mm.
        direction: Unit direction of each ray.
        extent: Side of the cube in mm.
        num_points: Number of points K.
    """
    steps = torch.linspace(-1.0, 1.0, num_points, device=nearest.device, dtype=nearest.dtype)
    return nearest[..., None, :] / (extent / 2) + steps[:, None] * direction[..., None, :]
