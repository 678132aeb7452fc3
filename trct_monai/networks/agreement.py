"""Views of any number merged in the volume, and steps that bring its projections closer to the radiographs."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trct_monai.networks.blocks import PreActivationBlock
from trct_monai.networks.cross_view import USUAL_VIEWS, lift_with_direction
from trct_monai.networks.lifting import lift

CORRECTION_SCALE = 0.1
"""Factor on every correction. Adam moves each weight of a head by the learning rate, and a head has hundreds: without
it the first steps throw the volume far from where it starts."""

GATE_GAIN = 10.0
"""Factor on the logits of gates, which must leave their one half behind within one training."""

MIN_PATH_FRACTION = 0.1
"""Share of the longest projection of the gate below which none is taken to be."""


def are_present(image: Float[Tensor, "B V H W"]) -> Bool[Tensor, "B V"]:
    """Which views are present: a missing one is NaN."""
    return ~image.isnan().any(dim=3).any(dim=2)


class ViewMerge(nn.Module):
    """What any number of views say of each voxel: mean and maximum over the views, and how many they are.

    Each view's features are lifted along its own rays, together with the ray's direction, by a layer that all views
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
        mask = present.view(batch, views, 1, 1, 1, 1)
        count = mask.sum(dim=1)
        mean = (lifted * mask).sum(dim=1) / count.clamp(min=1)
        most = lifted.masked_fill(~mask, -torch.inf).amax(dim=1).masked_fill(count == 0, 0.0)
        number = (count / USUAL_VIEWS).to(mean.dtype).expand(-1, 1, *mean.shape[2:])
        result: Tensor = self.merge(torch.cat([mean, most, number], dim=1))
        return result


class AgreementStep(nn.Module):
    """A correction by which the projections of the volume come closer to the radiographs.

    The residual between a radiograph and the projection of the volume so far is used in two ways. Encoded by
    convolutions, it is lifted and averaged over the views, and a 3-D block makes a correction of it: an unrolled
    gradient step whose adjoint is learned (after Adler and Oektem, IEEE Trans. Med. Imaging 37(6), 2018). Then it is
    spread along its rays as it is, in rounds of SIRT (simultaneous iterative reconstruction technique: Gilbert, J.
    Theor. Biol. 36, 1972), each voxel taking its share by a gate:

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
        measured: Float[Tensor, "B V h w"],
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
            measured: The radiographs.
            project: Gives the radiographs of volumes in [0, 1], in the scale of `measured`.
            integrate: Gives what an addition to such volumes adds to their radiographs.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            present: Which views are present.
            centers: Centres of the voxels in mm from the isocentre.
        """
        weight = (present / present.sum(dim=1, keepdim=True).clamp(min=1))[:, :, None, None, None]
        encoded = self.encode(torch.stack([measured - project(volume), measured], dim=2).flatten(0, 1))
        lifted = lift(encoded.unflatten(0, present.shape) * weight, matrices, centers).sum(dim=1)
        x = self.block(x + self.known(2 * volume - 1) + lifted)
        updated = volume + CORRECTION_SCALE * self.head(x)
        if self.num_rounds:
            gate = (GATE_GAIN * self.gate(x).float()).sigmoid()
            trust = 2 * (GATE_GAIN * self.trust(encoded).float()).sigmoid()
            length = integrate(gate).unsqueeze(2)
            least = MIN_PATH_FRACTION * length.detach().flatten(1).amax(dim=1)  # at the rim errors would be amplified
            length = length.maximum(least.clamp(min=1e-6).view(-1, 1, 1, 1, 1))
            share = weight * trust.unflatten(0, present.shape) / length
        for _ in range(self.num_rounds):
            residual = (measured - project(updated)).unsqueeze(2)
            updated = updated + gate * lift(share * residual, matrices, centers).sum(dim=1)
        return x, updated - volume
