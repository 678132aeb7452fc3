"""A field of intensities: any point reads the radiographs where it projects to; no voxel grid is learned."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.networks.blocks import MLPBlock
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, voxel_centers
from trct_monai.networks.agreement import are_present
from trct_monai.networks.blocks import FeaturePyramid, FourierFeatures
from trct_monai.networks.cross_view import lift_with_direction
from trct_monai.networks.reconstruction import ReconstructionNetwork, beside
from trct_monai.projector import is_traced
from trct_monai.resampling import values_at


class DIFNet(ReconstructionNetwork):
    """The deep intensity field of Lin et al. (MICCAI 2023): the volume is asked for point by point, at any resolution.

    One encoder and decoder for all views makes a feature map of each radiograph. A point's features are those at the
    place that it projects to in each view, merged by their maximum over the views; a perceptron makes its intensity of
    them. So training takes random points, and inference as many voxels as wanted, in chunks.

    Unlike in the paper the perceptron corrects an initial volume, interpolated at the point, and knows where the point
    is; features know the direction of their ray; blocks have group norm and SiLU, and the feature maps half of the
    radiographs' rows and columns. The defaults, with a `start_size` of 64, make 22 million parameters; the published
    network has 31.

    The order of the views does not matter, their number may be anything from 1 to `max_views` and differ from call to
    call, and a view may be missing (NaN). Without `matrices` the views are those of the geometry.

    Args:
        volume_size: Voxels along each side of the volume that is computed. No weight depends on it.
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        encoder_channels: Channels of each stage of the encoder; a radiograph shrinks by 2 ** len(encoder_channels).
        feature_channels: Channels of the feature maps.
        hidden_size: Channels of the perceptron.
        num_layers: Residual blocks of the perceptron.
        start_size: Voxels along each side of the initial volume; `volume_size` if None, or if that is less.
        chunk_size: Points that are computed at once.
        max_views: Largest number of views.
        num_bands: Frequencies of the positional encoding.
        image_mean: Line integral that the encoder takes as zero.
        image_scale: Line integral that the encoder takes as one, less `image_mean`.

    Raises:
        ValueError: If `chunk_size` is not positive.
    """

    axis: Tensor

    def __init__(
        self,
        volume_size: int = 128,
        *,
        geometry: str = "x2ct",
        extent: float = DEFAULT_EXTENT,
        encoder_channels: Sequence[int] = (64, 128, 256, 512, 1024),
        feature_channels: int = 128,
        hidden_size: int = 256,
        num_layers: int = 3,
        start_size: int | None = None,
        chunk_size: int = 2**16,
        max_views: int = 10,
        num_bands: int = 4,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"chunk_size must be positive, got {chunk_size}")
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            initial_size=min(start_size or volume_size, volume_size),
            max_views=max_views,
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.chunk_size = chunk_size
        centers = voxel_centers((volume_size, 1, 1), extent / volume_size)[:, 0, 0, 0]
        self.register_buffer("axis", centers.float(), persistent=False)
        self.encoder = FeaturePyramid(2, 1, encoder_channels, feature_channels)
        self.direction = nn.Linear(3, feature_channels)
        self.positions = FourierFeatures(num_bands)
        self.decoder = PointDecoder(feature_channels + self.positions.out_channels(3), hidden_size, num_layers)

    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ _ 3 4"] | None = None,
        exposed: Bool[Tensor, "B V"] | None = None,
        points: Float[Tensor, "N 3"] | None = None,
    ) -> Float[Tensor, "B 1 X Y Z"] | Float[Tensor, "B 1 N"] | list[Tensor]:
        """See `ReconstructionNetwork.forward`; with points what `field` gives for them, in place of the volume.

        Args:
            image: Radiographs as line integrals; a missing view is NaN.
            matrices: World-to-detector matrices of each case, or one set for all, in place of the preset's.
            exposed: Not used.
            points: World mm from the isocentre, the same for all cases.
        """
        if points is not None:
            return self.field(image, matrices, points)
        return super().forward(image, matrices, exposed)

    def field(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ _ 3 4"] | None, points: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "B 1 N"]:
        """The intensities at any points, in [0, 1] (unbounded while training); a volume has those of its voxels.

        Args:
            image: Radiographs as line integrals; a missing view is NaN.
            matrices: World-to-detector matrices of each case, or one set for all; None for the preset's.
            points: World mm from the isocentre, in front of every source, the same for all cases. Beyond the extent
                nothing was learned: the initial volume goes on as at its face.

        Raises:
            ValueError: If the number of views or the size of the radiographs does not fit.
        """
        matrices = self.check_views(image, matrices)
        points = points.to(image.device, torch.float32)
        start = values_at(self.initial_volume, points, self.extent)
        result = start + self.corrections((image - self.image_mean) / self.image_scale, matrices, points)
        return result if self.training else result.clamp(0.0, 1.0)

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        centers = torch.stack(torch.meshgrid(self.axis, self.axis, self.axis, indexing="ij"), dim=-1).flatten(0, 2)
        yield self.corrections(image, matrices, centers).view(-1, 1, *(self.volume_size,) * 3)

    def corrections(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], points: Float[Tensor, "N 3"]
    ) -> Float[Tensor, "B 1 N"]:
        """What is added to the initial volume at any points.

        Args:
            image: Radiographs, scaled to about [-1, 1]; a missing view is NaN.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            points: World mm from the isocentre.
        """
        matrices, present = beside(matrices, image), are_present(image)
        maps = self.encoder(image.nan_to_num(0.0).flatten(0, 1)[:, None])[-1].unflatten(0, present.shape)
        chunks = torch.split(points, self.chunk_size)
        parts = (self._correct_chunk(maps, matrices, present, chunk) for chunk in chunks)
        if torch.is_grad_enabled() or is_traced():
            return torch.cat([*parts], dim=1).transpose(1, 2)
        # Results that are kept among what is freed would leave holes: at 256 voxels a side 5 GB of them.
        result = torch.empty(len(maps), len(points), 1, device=image.device)
        for place, part in zip(torch.split(result, self.chunk_size, dim=1), parts):
            place.copy_(part)
        return result.transpose(1, 2)

    def _correct_chunk(
        self,
        maps: Float[Tensor, "B V C h w"],
        matrices: Float[Tensor, "_ V 3 4"],
        present: Bool[Tensor, "B V"],
        points: Float[Tensor, "N 3"],
    ) -> Float[Tensor, "B N 1"]:
        """The corrections at a few points, by the feature map of each view."""
        lifted = lift_with_direction(maps, matrices, points, self.direction)  # (B, V, C, N)
        most = lifted.masked_fill(~present[:, :, None, None], -torch.inf).amax(dim=1)
        most = most.masked_fill(~present.any(dim=1)[:, None, None], 0.0).transpose(1, 2)
        place = self.positions(points * (2 / self.extent)).expand(len(maps), -1, -1)
        correction: Tensor = self.decoder(torch.cat([most, place.to(most.dtype)], dim=2))
        return correction


class PointDecoder(nn.Module):
    """A residual perceptron for each point by itself: features to a correction, zero before training.

    Args:
        in_channels: Channels of a point's features.
        hidden_size: Channels of the perceptron.
        num_layers: Residual blocks: layer norm and a layer within.
    """

    def __init__(self, in_channels: int, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.enter = nn.Linear(in_channels, hidden_size)
        self.norms = nn.ModuleList(nn.LayerNorm(hidden_size) for _ in range(num_layers + 1))
        self.blocks = nn.ModuleList(MLPBlock(hidden_size, hidden_size) for _ in range(num_layers))
        self.head = nn.Linear(hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N 1"]:
        """The correction at each of N points."""
        x = self.enter(x)
        for norm, block in zip(self.norms, self.blocks):
            x = x + block(norm(x))
        correction: Tensor = self.head(F.silu(self.norms[-1](x)))
        return correction
