"""A network around the physics: views lifted along their rays, merged without order, and made to agree with them."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.networks.utils import pixelunshuffle
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, Camera, voxel_centers
from trct_monai.intensity import HU_WINDOW, attenuation_per_unit, check_hu_window, unit_to_attenuation
from trct_monai.networks.blocks import FeaturePyramid, FourierFeatures, PreActivationBlock, residual_blocks
from trct_monai.networks.cross_view import USUAL_VIEWS, lift_with_direction
from trct_monai.networks.lifting import lift
from trct_monai.networks.linear_start import LinearStart
from trct_monai.networks.reconstruction import ReconstructionNetwork, resize, zero_head
from trct_monai.projector import Projector

CAUTION = 0.1
"""Factor on every correction. Adam moves each weight of a head by the learning rate, and a head has hundreds: without
it the first steps throw the volume far from where it starts."""

EAGERNESS = 10.0
"""Factor on the logits of gates, which must leave their one half behind within one training."""

SHORTEST = 0.1
"""Share of the longest projection of the gate below which none is taken to be."""


class AnyView(ReconstructionNetwork):
    """A residual pyramid on what any number of views say of each voxel, and learned steps toward agreement with them.

    All views share one encoder. At each level of the decoder their features are lifted along each view's own rays and
    merged by `ViewMerge`; each level adds its correction at its own scale (see `ReconstructionNetwork`). Then
    `num_steps` times an `AgreementStep` compares the volume so far with the radiographs, through the projector and the
    case's own cameras, and corrects it at its own scale.

    The order of the views does not matter, their number may be anything from 1 to `max_views`, and one may be missing
    (NaN). Without `matrices` the views are those of the geometry.

    Args:
        volume_size: Voxels along each side; the coarsest level has volume_size / 2 ** len(decoder_channels).
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1 in the volume: needed to project it.
        encoder_channels: Channels of each stage of the encoder; a radiograph shrinks by 2 ** len(encoder_channels).
        decoder_channels: Channels of each level, the coarsest first; at most as many as `encoder_channels`.
        num_blocks: Residual blocks of a stage and of a level.
        view_channels: Channels of a view's features, at every scale, when they are lifted.
        num_modes: Principal components of the linear start; see `LinearStart`.
        num_steps: Steps toward agreement.
        step_channels: Channels of a step, which works on every voxel of the volume.
        step_size: Rows and columns of the projections in a step.
        num_rounds: Rounds of SIRT in a step. They are no learning: they bring even an untrained network's volume closer
            to the radiographs.
        max_views: Largest number of views.
        deep_supervision: While training, return the volumes of all scales and steps; see `ReconstructionNetwork`.
        num_bands: Frequencies of the positional encoding.
        image_mean: Line integral that the encoder takes as zero.
        image_scale: Line integral that the encoder takes as one, less `image_mean`.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    extends_coarser = True  # by steps

    def __init__(
        self,
        volume_size: int = 64,
        *,
        geometry: str = "x2ct",
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        encoder_channels: Sequence[int] = (64, 128, 256, 384),
        decoder_channels: Sequence[int] = (256, 128, 64),
        num_blocks: int = 2,
        view_channels: int = 64,
        num_modes: int = 64,
        num_steps: int = 2,
        step_channels: int = 32,
        step_size: int = 128,
        num_rounds: int = 4,
        max_views: int = 8,
        deep_supervision: bool = False,
        num_bands: int = 4,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        num_levels = len(decoder_channels)
        if not 1 <= num_levels <= len(encoder_channels) or volume_size % 2**num_levels:
            raise ValueError(
                f"decoder_channels must be at most as many as encoder_channels, and volume_size a multiple of 2 ** "
                f"len(decoder_channels), got {tuple(decoder_channels)}, {tuple(encoder_channels)} and {volume_size}"
            )
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            num_scales=num_levels,
            deep_supervision=deep_supervision,
            max_views=max_views,
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.sizes = (*self.sizes, *(volume_size,) * num_steps)
        self.hu_window, self.step_size = check_hu_window(hu_window), step_size
        self.linear_start = LinearStart(num_modes, size=volume_size // 2, extent=extent, hu_window=hu_window)
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

    def start(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"]
    ) -> tuple[Float[Tensor, "B 1 X Y Z"], Float[Tensor, "B V H W"]]:
        """See `ReconstructionNetwork.start`: the initial volume with what a linear model adds to it, and the
        radiographs without what that model takes for errors of their exposure."""
        present = are_present(image)
        added, mended = self.linear_start(image.nan_to_num(0.0), self.cameras(matrices, len(image)), present)
        volume = resize(self.initial_volume, self.volume_size) + resize(added, self.volume_size)
        return volume, image + mended

    def correct(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"], start: Float[Tensor, "_ 1 X Y Z"]
    ) -> Iterable[Tensor]:
        """See `ReconstructionNetwork.correct`."""
        batch, views = image.shape[:2]
        present = are_present(image)
        image = image.nan_to_num(0.0)
        projector = Projector(self.cameras(matrices, batch), (self.volume_size,) * 3, self.extent / self.volume_size)
        beyond = image - F.interpolate(self._project(start, projector), size=image.shape[-2:], mode="bilinear")
        encoded = self.encoder(torch.stack([image, beyond], dim=2).flatten(0, 1))
        scales = [features.unflatten(0, (batch, views)) for features in encoded]
        x = self.positions(self.get_buffer("centers_0") * (2 / self.extent)).movedim(-1, 0)
        x = x.expand(batch, -1, -1, -1, -1)
        correction = torch.zeros((), device=image.device)
        for level, block in enumerate(self.levels):
            x = self.carries[level](x)
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            centers = self.get_buffer(f"centers_{level}")
            known = pixelunshuffle(resize(2 * start - 1, 2 * x.shape[-1]), spatial_dims=3, scale_factor=2)
            x = x + self.knowns[level](known) + self.merges[level](scales[level], matrices, present, centers)
            x = block(x)
            residual = CAUTION * self.heads[level](x)
            correction = resize(correction, residual.shape[-1]) + residual if level else residual
            yield residual
        seen = F.interpolate(image, size=(self.step_size,) * 2, mode="area")
        x = F.interpolate(self.finer(x), scale_factor=2, mode="trilinear") if self.steps else x
        centers = self.get_buffer("centers")
        physics = partial(self._project, projector=projector), partial(self._integrate, projector=projector)
        for step in self.steps:
            x, residual = step(x, start + correction, seen, *physics, matrices, present, centers)
            correction = correction + residual
            yield residual

    def _project(self, unit: Float[Tensor, "B 1 X Y Z"], projector: Projector) -> Float[Tensor, "B V h w"]:
        """Radiographs of volumes in [0, 1], scaled as the encoder takes them."""
        with torch.autocast(unit.device.type, enabled=False):
            integrals: Tensor = projector(unit_to_attenuation(unit.float(), self.hu_window))
            return (integrals - self.image_mean) / self.image_scale

    def _integrate(self, unit: Float[Tensor, "B 1 X Y Z"], projector: Projector) -> Float[Tensor, "B V h w"]:
        """What is added to those radiographs where this is added to such volumes."""
        with torch.autocast(unit.device.type, enabled=False):
            integrals: Tensor = projector(unit.float() * attenuation_per_unit(self.hu_window))
            return integrals / self.image_scale

    def cameras(self, matrices: Tensor, batch: int) -> list[list[Camera]]:
        """The cameras of every case, read out at the steps' resolution."""
        size = (self.step_size, self.step_size)
        cases = [[Camera.from_world_to_detector(m, size) for m in case] for case in matrices.detach().double().cpu()]
        return cases * batch if len(cases) == 1 else cases


def are_present(image: Float[Tensor, "B V H W"]) -> Bool[Tensor, "B V"]:
    """Which views there are: a missing one is NaN."""
    return ~image.isnan().any(dim=3).any(dim=2)


class ViewMerge(nn.Module):
    """What any number of views say of each voxel: mean and maximum over the views, and how many they are.

    Each view's features are lifted along its own rays and told the ray's direction there, by a layer that all views
    share; so neither their order nor their number matters.

    Args:
        in_channels: Channels of the views' feature maps.
        out_channels: Channels of the result.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.direction = nn.Linear(3, in_channels)
        self.merge = nn.Conv3d(2 * in_channels + 1, out_channels, 1)
        # PyTorch's own initialisation shrinks a signal by the square root of three: the decoder would start out blind.
        nn.init.kaiming_normal_(self.merge.weight, nonlinearity="relu")

    def forward(
        self,
        features: Float[Tensor, "B V C h w"],
        matrices: Float[Tensor, "_ V 3 4"],
        present: Bool[Tensor, "B V"],
        centers: Float[Tensor, "X Y Z 3"],
    ) -> Float[Tensor, "B D X Y Z"]:
        """Merged features of every voxel; see `trct_monai.networks.cross_view.CrossViewAttention`."""
        batch, views = present.shape
        lifted = lift_with_direction(features, matrices, centers, self.direction)
        there = present.view(batch, views, 1, 1, 1, 1)
        count = there.sum(dim=1)
        mean = (lifted * there).sum(dim=1) / count.clamp(min=1)
        most = lifted.masked_fill(~there, -torch.inf).amax(dim=1).masked_fill(count == 0, 0.0)
        number = (count / USUAL_VIEWS).to(mean.dtype).expand(-1, 1, *mean.shape[2:])
        result: Tensor = self.merge(torch.cat([mean, most, number], dim=1))
        return result


class AgreementStep(nn.Module):
    """A correction by which the projections of the volume come closer to the radiographs.

    What a radiograph shows beyond the projection of the volume so far is used in two ways. Encoded by convolutions, it
    is lifted and averaged over the views, and a 3-D block makes a correction of it: an unrolled gradient step whose
    adjoint is learned (after Adler and Oektem, IEEE Trans. Med. Imaging 37(6), 2018). Then it is spread along its rays
    as it is, in rounds of SIRT (simultaneous iterative reconstruction technique: Gilbert, J. Theor. Biol. 36, 1972),
    each voxel taking its share by a gate:

        volume += gate * mean over views of lift(trust * (radiograph - projection) / projected gate)

    The gate, in (0, 1), is learned: where the volume is surely right, as in air, nothing is added. So is the trust, in
    (0, 2), which tells how far to go for a pixel (under a shutter not at all). The projector is exact; `lift` stands in
    for its adjoint, as voxel-driven back-projection does. Before training the learned correction is zero, gate and
    trust are the same everywhere, and the rounds are Gilbert's.

    Args:
        channels: Channels of the features, of each view's and of each voxel's.
        num_rounds: Rounds of SIRT.
    """

    def __init__(self, channels: int, num_rounds: int) -> None:
        super().__init__()
        self.num_rounds = num_rounds
        self.encode = nn.Sequential(nn.Conv2d(2, channels, 3, padding=1), PreActivationBlock(2, channels, channels))
        self.known = nn.Conv3d(1, channels, 1)
        self.block = PreActivationBlock(3, channels, channels)
        self.head = nn.Conv3d(channels, 1, 1)
        self.gate = nn.Conv3d(channels, 1, 1)
        self.trust = nn.Conv2d(channels, 1, 1)
        for layer in (self.head, self.gate, self.trust):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self,
        x: Float[Tensor, "B C X Y Z"],
        volume: Float[Tensor, "B 1 X Y Z"],
        seen: Float[Tensor, "B V h w"],
        project: Callable[[Tensor], Tensor],
        integrate: Callable[[Tensor], Tensor],
        matrices: Float[Tensor, "_ V 3 4"],
        present: Bool[Tensor, "B V"],
        centers: Float[Tensor, "X Y Z 3"],
    ) -> tuple[Float[Tensor, "B C X Y Z"], Float[Tensor, "B 1 X Y Z"]]:
        """The features for the next step, and the correction.

        Args:
            x: Features of every voxel.
            volume: The volume so far, in [0, 1].
            seen: The radiographs.
            project: Gives the radiographs of volumes in [0, 1], in the scale of `seen`.
            integrate: Gives what an addition to such volumes adds to their radiographs.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            present: Which views there are.
            centers: Centres of the voxels in mm from the isocentre.
        """
        weight = (present / present.sum(dim=1, keepdim=True).clamp(min=1))[:, :, None, None, None]
        encoded = self.encode(torch.stack([seen - project(volume), seen], dim=2).flatten(0, 1))
        lifted = lift(encoded.unflatten(0, present.shape) * weight, matrices, centers).sum(dim=1)
        x = self.block(x + self.known(2 * volume - 1) + lifted)
        better = volume + CAUTION * self.head(x)
        if self.num_rounds:
            gate = (EAGERNESS * self.gate(x).float()).sigmoid()
            trust = 2 * (EAGERNESS * self.trust(encoded).float()).sigmoid()
            length = integrate(gate).unsqueeze(2)
            shortest = SHORTEST * length.detach().flatten(1).amax(dim=1)  # at the rim errors would be amplified
            length = length.maximum(shortest.clamp(min=1e-6).view(-1, 1, 1, 1, 1))
            share = weight * trust.unflatten(0, present.shape) / length
        for _ in range(self.num_rounds):
            beyond = (seen - project(better)).unsqueeze(2)
            better = better + gate * lift(share * beyond, matrices, centers).sum(dim=1)
        return x, better - volume
