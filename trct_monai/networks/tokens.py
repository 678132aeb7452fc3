"""Radiographs as tokens that know where their rays run, and how near a ray passes to a place in the volume."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.networks.blocks import FourierFeatures
from trct_monai.networks.rays import pixel_rays, points_along_rays, squared_distance_to_rays

POINTS_ALONG_RAY = 8
"""Points at which the position of a radiograph token's ray is encoded."""


class RadiographTokens(nn.Module):
    """Feature maps of radiographs as tokens, and the bias with which places in the volume attend to them.

    A token carries the course of its ray. The bias falls with the squared distance between place and ray: the heads
    range from "only rays that hit me" to "all rays alike" (fixed slopes, as in ALiBi, Press et al., ICLR 2022).

    Args:
        feature_size: Channels of the feature maps and of the tokens.
        centers: The places (N, 3) in mm from the isocentre.
        spacing: Distance in mm between neighbouring places.
        num_heads: Attention heads.
        extent: Side of the volume in mm.
        num_bands: Frequencies of the positional encodings.
    """

    centers: Tensor
    slopes: Tensor

    def __init__(
        self,
        feature_size: int,
        centers: Float[Tensor, "N 3"],
        spacing: float,
        num_heads: int,
        extent: float,
        num_bands: int = 6,
    ) -> None:
        super().__init__()
        self.extent = extent
        self.register_buffer("centers", centers, persistent=False)
        # Widths in places at which a head's attention to a ray has fallen to exp(-1/2); the last head sees all alike.
        widths = torch.tensor([0.5 * 2.0**head for head in range(num_heads - 1)] + [torch.inf])
        self.register_buffer("slopes", 0.5 / (widths * spacing) ** 2, persistent=False)
        self.positions = FourierFeatures(num_bands)
        self.ray_embedding = nn.Linear(POINTS_ALONG_RAY * self.positions.out_channels(3), feature_size)
        self.norm = nn.LayerNorm(feature_size)

    def forward(
        self, features: Float[Tensor, "B V F h w"], matrices: Float[Tensor, "_ V 3 4"]
    ) -> tuple[Float[Tensor, "B M F"], Float[Tensor, "_ heads N M"]]:
        """Tokens of all views, and the bias of each head.

        Args:
            features: One feature map for each view, over the whole detector.
            matrices: World-to-detector matrices, one set for all cases or one for each.
        """
        size = (features.shape[-2], features.shape[-1])
        nearest, direction = (ray.flatten(1, 3) for ray in pixel_rays(matrices, size))  # (_, M, 3)
        course = points_along_rays(nearest, direction, self.extent, POINTS_ALONG_RAY)
        embedding = self.ray_embedding(self.positions(course).flatten(-2))
        tokens = self.norm(features.permute(0, 1, 3, 4, 2).flatten(1, 3) + embedding)
        distance = squared_distance_to_rays(self.centers, nearest, direction)
        return tokens, -self.slopes[:, None, None] * distance[:, None]
