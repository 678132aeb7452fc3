"""The way from radiographs to a volume: 3-D queries that attend to the features they project to."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry import voxel_centers
from trct_monai.networks.blocks import ConditionedTransformerBlock, FourierFeatures
from trct_monai.networks.tokens import RadiographTokens

Queries = Literal["volume", "depth"]


class VolumeBridge(nn.Module):
    """A transformer whose queries are the cells of a coarse volume.

    With ``queries="volume"`` each cell has a query of its own, with its position in 3-D, and attends to the radiographs
    with a bias that falls with its distance from their rays. With ``queries="depth"`` there is one query for each
    coronal plane, without geometry, and its answer is spread over the plane: what TRCT-GAN's first implementation did.
    In-plane position is lost there, and the volumes come out nearly uniform; it is kept to show that.

    Args:
        feature_size: Channels of the radiographs' features.
        hidden_size: Channels of the queries and of the result.
        num_views: Number of radiographs.
        num_layers: Transformer blocks.
        num_heads: Attention heads.
        grid_size: Cells along each side of the coarse volume.
        extent: Side of the volume in mm.
        queries: ``volume`` or ``depth``.
        num_bands: Frequencies of the positional encodings.

    Raises:
        ValueError: If `queries` is none of the two.
    """

    def __init__(
        self,
        feature_size: int,
        hidden_size: int,
        *,
        num_views: int,
        num_layers: int,
        num_heads: int,
        grid_size: int,
        extent: float,
        queries: Queries = "volume",
        num_bands: int = 6,
    ) -> None:
        super().__init__()
        if queries not in ("volume", "depth"):
            raise ValueError(f"queries must be volume or depth, got {queries!r}")
        self.kind, self.grid_size, self.extent = queries, grid_size, extent
        centers = voxel_centers((grid_size,) * 3, extent / grid_size).float()
        if queries == "depth":
            centers = centers[:1, :, :1] * torch.tensor([0.0, 1.0, 0.0])
        centers = centers.flatten(0, 2)
        self.tokens = RadiographTokens(feature_size, centers, extent / grid_size, num_heads, extent, num_bands)
        self.positions = FourierFeatures(num_bands)
        self.position_embedding = nn.Linear(self.positions.out_channels(3), hidden_size)
        self.queries = nn.Parameter(0.02 * torch.randn(1, len(centers), hidden_size))
        self.condition = nn.Sequential(
            nn.Linear(num_views * feature_size, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )
        self.blocks = nn.ModuleList(
            ConditionedTransformerBlock(hidden_size, feature_size, hidden_size, num_heads) for _ in range(num_layers)
        )

    def forward(
        self, features: Float[Tensor, "B V F h w"], matrices: Float[Tensor, "_ V 3 4"]
    ) -> Float[Tensor, "B C g g g"]:
        """Features of the coarse volume.

        Args:
            features: One feature map for each view, over the whole detector.
            matrices: World-to-detector matrices, one set for all cases or one for each.
        """
        context, bias = self.tokens(features, matrices)
        condition = self.condition(features.mean(dim=(3, 4)).flatten(1))
        place = self.position_embedding(self.positions(self.tokens.centers * (2 / self.extent)))
        x = (self.queries + place).expand(len(features), -1, -1)
        for block in self.blocks:
            x = block(x, context, condition, bias if self.kind == "volume" else None)
        x = x.transpose(1, 2)  # (B, C, N)
        g = self.grid_size
        shape = (*x.shape[:2], g, g, g)
        cells: Tensor = x.reshape(shape) if self.kind == "volume" else x[:, :, None, :, None].expand(shape)
        return cells
