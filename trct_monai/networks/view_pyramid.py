"""What `trct_monai.networks.AnyView` learns: a residual pyramid on any number of views, and steps toward them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.networks.utils import pixelunshuffle
from torch import Tensor, nn

from trct_monai.geometry import voxel_centers
from trct_monai.networks.agreement import CORRECTION_SCALE, AgreementStep, ViewMerge
from trct_monai.networks.blocks import FeaturePyramid, FourierFeatures, residual_blocks
from trct_monai.networks.reconstruction import zero_head
from trct_monai.resampling import resize_cube

Physics = Callable[[Tensor], Tensor]


class ViewPyramid(nn.Module):
    """Corrections of a volume, at scales that double, then by `num_steps` steps at its own; all zero before training.

    All views share one encoder. At each level of the decoder their features are lifted along each view's own rays and
    merged by `ViewMerge`; each level adds its correction at its own scale. Then each `AgreementStep` compares the
    volume so far with the radiographs.

    Args:
        volume_size: Voxels along each side; the coarsest level has volume_size / 2 ** len(decoder_channels).
        extent: Side of the volume in mm.
        encoder_channels: Channels of each stage of the encoder.
        decoder_channels: Channels of each level, the coarsest first.
        num_blocks: Residual blocks of a stage and of a level.
        view_channels: Channels of a view's features, at every scale, when they are lifted.
        num_steps: Steps toward agreement.
        step_channels: Channels of a step, which works on every voxel of the volume.
        step_size: Rows and columns of the projections in a step.
        num_rounds: Rounds of SIRT in a step.
        num_bands: Frequencies of the positional encoding.
    """

    def __init__(
        self,
        volume_size: int,
        extent: float,
        encoder_channels: Sequence[int],
        decoder_channels: Sequence[int],
        num_blocks: int,
        view_channels: int,
        num_steps: int,
        step_channels: int,
        step_size: int,
        num_rounds: int,
        num_bands: int,
    ) -> None:
        super().__init__()
        num_levels = len(decoder_channels)
        self.extent, self.step_size = extent, step_size
        self.encoder = FeaturePyramid(2, 2, encoder_channels, view_channels, num_levels, num_blocks)
        self.positions = FourierFeatures(num_bands)
        self.merges, self.carries, self.levels = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.knowns, self.heads = nn.ModuleList(), nn.ModuleList()
        before = self.positions.out_channels(3)
        for level, channels in enumerate(decoder_channels):
            size = volume_size // 2 ** (num_levels - level)
            centers = voxel_centers((size,) * 3, extent / size).float()
            self.register_buffer(f"centers_{level}", centers, persistent=False)
            self.merges.append(ViewMerge(view_channels, channels))
            self.carries.append(nn.Conv3d(before, channels, 1))
            self.knowns.append(nn.Conv3d(2**3, channels, 1))
            self.levels.append(residual_blocks(3, channels, channels, num_blocks))
            self.heads.append(zero_head(channels))
            before = channels
        centers = voxel_centers((volume_size,) * 3, extent / volume_size).float()
        self.register_buffer("centers", centers, persistent=False)
        self.finer = nn.Conv3d(before, step_channels, 1) if num_steps else nn.Identity()
        self.steps = nn.ModuleList(AgreementStep(step_channels, num_rounds) for _ in range(num_steps))

    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ V 3 4"],
        present: Bool[Tensor, "B V"],
        start: Float[Tensor, "_ 1 X Y Z"],
        project: Physics,
        integrate: Physics,
        with_steps: bool = True,
    ) -> Iterator[Tensor]:
        """What is added to a volume, (B, 1, n, n, n) for each scale and step; no more is computed than is drawn.

        Args:
            image: Radiographs, scaled to about [-1, 1]; anything where a view is missing.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            present: Which views are present.
            start: The volume in [0, 1].
            project: Radiographs of a volume, scaled alike.
            integrate: What is added to these where something is added to the volume.
            with_steps: Go on with the steps after the levels.
        """
        batch, views = present.shape
        residual = image - F.interpolate(project(start), size=image.shape[-2:], mode="bilinear")
        encoded = self.encoder(torch.stack([image, residual], dim=2).flatten(0, 1))
        scales = [features.unflatten(0, (batch, views)) for features in encoded]
        x = self.positions(self.get_buffer("centers_0") * (2 / self.extent)).movedim(-1, 0)
        x = x.expand(batch, -1, -1, -1, -1)
        correction = torch.zeros((), device=image.device)
        for level, block in enumerate(self.levels):
            x = self.carries[level](x)
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            centers = self.get_buffer(f"centers_{level}")
            known = pixelunshuffle(resize_cube(2 * start - 1, 2 * x.shape[-1]), spatial_dims=3, scale_factor=2)
            x = x + self.knowns[level](known) + self.merges[level](scales[level], matrices, present, centers)
            x = block(x)
            update = CORRECTION_SCALE * self.heads[level](x)
            correction = resize_cube(correction, update.shape[-1]) + update if level else update
            yield update
        if not with_steps or not self.steps:
            return
        measured = F.interpolate(image, size=(self.step_size,) * 2, mode="area")
        x = F.interpolate(self.finer(x), scale_factor=2, mode="trilinear")
        centers = self.get_buffer("centers")
        for step in self.steps:
            x, update = step(x, start + correction, measured, project, integrate, matrices, present, centers)
            correction = correction + update
            yield update


PARTS = ("encoder", "merges", "carries", "levels", "knowns", "heads", "finer", "steps")
"""Of a pyramid, by which weights of 0.1.0 begin."""


def with_names(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Weights of `trct_monai.networks.AnyView` by the names that they have now."""
    old = tuple(f"{prefix}{part}." for part in PARTS)
    return {
        f"{prefix}pyramids.0.{name.removeprefix(prefix)}" if name.startswith(old) else name: value
        for name, value in state.items()
    }
