"""What several views say of one place: attention over any number of views, in any order."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn

from trct_monai.networks.blocks import Attention, FourierFeatures
from trct_monai.networks.lifting import lift
from trct_monai.networks.rays import pixel_rays, points_along_rays

POINTS_ALONG_RAY = 8
"""Points at which the position of a radiograph token's ray is encoded."""

USUAL_VIEWS = 8.0
"""Number of views that a network is told as 1."""


class ViewExchange(nn.Module):
    """The coarsest features of all views attend to each other: from every view to every other, and to itself.

    Tokens carry the course of their rays and no number of their view, so the order of the views does not matter.

    Args:
        channels: Channels of the feature maps.
        num_heads: Attention heads.
        num_layers: Transformer blocks.
        extent: Side of the volume in mm.
        num_bands: Frequencies of the positional encodings.
    """

    def __init__(self, channels: int, num_heads: int, num_layers: int, extent: float, num_bands: int = 4) -> None:
        super().__init__()
        self.extent = extent
        self.positions = FourierFeatures(num_bands)
        self.ray_embedding = nn.Linear(POINTS_ALONG_RAY * self.positions.out_channels(3), channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2 * num_layers))
        self.attentions = nn.ModuleList(Attention(channels, channels, num_heads) for _ in range(num_layers))
        self.mlps = nn.ModuleList(MLPBlock(channels, 2 * channels) for _ in range(num_layers))

    def forward(
        self, features: Float[Tensor, "B V C h w"], matrices: Float[Tensor, "_ V 3 4"], present: Bool[Tensor, "B V"]
    ) -> Float[Tensor, "B V C h w"]:
        """Features that know of the other views.

        Args:
            features: One feature map for each view.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            present: Which views are present.
        """
        size = (features.shape[-2], features.shape[-1])
        nearest, direction = (ray.flatten(1, 3) for ray in pixel_rays(matrices, size))
        course = points_along_rays(nearest, direction, self.extent, POINTS_ALONG_RAY)
        x = features.permute(0, 1, 3, 4, 2).flatten(1, 3) + self.ray_embedding(self.positions(course).flatten(-2))
        absent = ~present.repeat_interleave(size[0] * size[1], dim=1)
        bias = torch.zeros_like(absent, dtype=x.dtype).masked_fill(absent, torch.finfo(x.dtype).min)[:, None, None]
        for attention, mlp, norm_1, norm_2 in zip(self.attentions, self.mlps, self.norms[::2], self.norms[1::2]):
            y = norm_1(x)
            x = x + attention(y, y, bias)
            x = x + mlp(norm_2(x))
        maps: Tensor = x.reshape(len(x), -1, *size, x.shape[2]).permute(0, 1, 4, 2, 3)
        return maps


class CrossViewAttention(nn.Module):
    """Merges the views' features at every voxel: softmax over the views, and over one more that says nothing.

    Each view's features are lifted along its own rays and carry the ray's direction. The query is their mean; the
    silent view lets attention fall where no view has anything to say, and keeps it defined without any view. Neither
    the order nor the number of views matters; their number is told, since few views mean less than many.

    Args:
        in_channels: Channels of the views' feature maps.
        channels: Channels of the result.
        num_heads: Attention heads.
    """

    def __init__(self, in_channels: int, channels: int, num_heads: int) -> None:
        super().__init__()
        if channels % num_heads:
            raise ValueError(f"channels must be a multiple of num_heads, got {channels} and {num_heads}")
        self.num_heads = num_heads
        self.reduce = nn.Conv2d(in_channels, channels, 1)
        self.direction = nn.Linear(3, channels)
        self.query = nn.Conv3d(channels, channels, 1)
        self.key_value = nn.Conv3d(channels, 2 * channels, 1)
        self.silent = nn.Parameter(torch.zeros(2, channels))
        self.merge = nn.Conv3d(2 * channels + 1, channels, 1)

    def forward(
        self,
        features: Float[Tensor, "B V C h w"],
        matrices: Float[Tensor, "_ V 3 4"],
        present: Bool[Tensor, "B V"],
        centers: Float[Tensor, "X Y Z 3"],
    ) -> Float[Tensor, "B D X Y Z"]:
        """Features of every voxel.

        Args:
            features: One feature map for each view, over the whole detector.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            present: Which views are present.
            centers: Centres of the voxels in mm from the isocentre.
        """
        batch, views = present.shape
        shape = centers.shape[:3]
        reduced = self.reduce(features.flatten(0, 1)).unflatten(0, (batch, views))
        lifted = lift_with_direction(reduced, matrices, centers, self.direction)
        weight = present.to(lifted.dtype).view(batch, views, 1, 1, 1, 1)
        count = weight.sum(dim=1)
        mean = (lifted * weight).sum(dim=1) / count.clamp(min=1)

        query = self.query(mean).unflatten(1, (self.num_heads, -1))  # (B, heads, d, X, Y, Z)
        key, value = self.key_value(lifted.flatten(0, 1)).unflatten(0, (batch, views)).chunk(2, dim=2)
        silent_key, silent_value = self.silent.to(key.dtype).view(2, 1, 1, -1, 1, 1, 1).expand(-1, batch, 1, -1, *shape)
        by_head = (batch, views + 1, self.num_heads, -1, *shape)
        key, value = torch.cat([key, silent_key], dim=1), torch.cat([value, silent_value], dim=1)
        key, value = key.reshape(by_head), value.reshape(by_head)
        scores = (query[:, None] * key).sum(dim=3) * key.shape[3] ** -0.5  # (B, V + 1, heads, X, Y, Z)
        absent = F.pad(~present, (0, 1)).view(batch, views + 1, 1, 1, 1, 1)
        attention = scores.float().masked_fill(absent, -torch.inf).softmax(dim=1).to(value.dtype)
        attended = (attention[:, :, :, None] * value).sum(dim=1).flatten(1, 2)
        number = (count / USUAL_VIEWS).expand(-1, 1, *shape)
        result: Tensor = self.merge(torch.cat([attended, mean, number], dim=1))
        return result


def lift_with_direction(
    features: Float[Tensor, "B V D h w"],
    matrices: Float[Tensor, "_ V 3 4"],
    points: Float[Tensor, "*grid 3"],
    embed: nn.Module,
) -> Float[Tensor, "B V D *grid"]:
    """Lifted features that know the ray's direction; not linear: what a view says may depend on where it looks from.

    Args:
        features: One feature map for each view, over the whole detector.
        matrices: World-to-detector matrices, one set for all cases or one for each.
        points: Centres of voxels (X, Y, Z, 3), or any points (N, 3), in mm from the isocentre.
        embed: Unit vectors (..., 3) to features (..., D).
    """
    lifted = lift(features, matrices, points)
    direction = embed(voxel_directions(matrices, points))
    direction = direction.permute(0, 1, points.ndim + 1, *range(2, points.ndim + 1))  # ONNX has no movedim
    return F.silu(lifted + direction.to(lifted.dtype))


def voxel_directions(matrices: Float[Tensor, "*batch 3 4"], centers: Float[Tensor, "... 3"]) -> Float[Tensor, "... 3"]:
    """Unit direction of the ray through each voxel or point, for each view; cone and parallel beams alike.

    The ray through a point is the kernel of the projection's derivative there: the cross product of the gradients of
    (P0 x) / (P2 x) and (P1 x) / (P2 x).
    """
    points = F.pad(centers.double(), (0, 1), value=1.0)  # (..., 4)
    across_grid = (..., *(None,) * (points.ndim - 1), slice(None))
    p0, p1, p2 = (row[across_grid] for row in matrices.double().unbind(-2))
    depth = (points * p2).sum(-1, keepdim=True)
    u, v = ((points * row).sum(-1, keepdim=True) / depth for row in (p0, p1))
    across, down = ((row - n * p2)[..., :3] for row, n in ((p0, u), (p1, v)))
    return F.normalize(torch.linalg.cross(down, across), dim=-1).float()
