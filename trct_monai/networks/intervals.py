"""How far from a reconstruction the truth may lie: a spread for each voxel, and calibrated intervals."""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from monai.networks.utils import pixelunshuffle
from torch import Tensor, nn

from trct_monai.networks.agreement import are_present
from trct_monai.networks.any_view import AnyView
from trct_monai.networks.blocks import PreActivationBlock
from trct_monai.networks.linear_start import Projections
from trct_monai.networks.reconstruction import zero_head
from trct_monai.resampling import resize_cube

LEVELS = (0.5, 0.9)
"""Shares of the voxels that the intervals shall hold."""

LEAST_SPREAD = 1e-3
"""Spread where the linear model sees none, in [0, 1] of the window."""

USUAL_RESIDUAL = 0.03
"""Relative residual of a case whose spread is not changed by it: between those of phantoms and of patients."""

LEAST_RESIDUAL = 0.003
"""A residual below it counts as this one."""


class IntervalNetwork(nn.Module):
    """A trained network that does not change any more, and a small one that says how wrong it is where.

    The spread is that of the linear start, which knows what the views leave open, times two factors: one for each
    voxel, which the small network reads from volume, start and that spread; and one for the whole case, a power of what
    the volume leaves unexplained of the radiographs. A patient unlike those of the training is explained badly, and so
    its intervals are wide. Both are trained by `trct_monai.losses.LaplaceNLLLoss`. The intervals are the volume plus
    and minus so many spreads: `factors` for each number of views, as `calibrate` finds them.

    In training the result is (B, 2, X, Y, Z), volume and spread; in evaluation (B, 5, X, Y, Z), the volume and the
    quantiles of `trct_monai.metrics.uncertainty.QUANTILES`; all in [0, 1] of the window.

    Args:
        network: The trained network.
        channels: Channels of the small network.
    """

    factors: Tensor
    usual_residual: Tensor

    def __init__(self, network: AnyView, channels: int = 24) -> None:
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.num_views = network.max_views or network.num_views
        self.entry = nn.Conv3d(3 * 2**3 + 1, channels, 1)
        self.blocks = nn.Sequential(*(PreActivationBlock(3, channels, channels) for _ in range(2)))
        self.head = zero_head(channels)
        self.residual_power = nn.Parameter(torch.tensor(0.0))  # of softplus
        self.register_buffer("factors", torch.zeros(self.num_views, len(LEVELS)))
        self.register_buffer("usual_residual", torch.zeros(self.num_views))

    def train(self, mode: bool = True) -> "IntervalNetwork":
        """As in PyTorch, but the trained network stays in evaluation mode."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ _ 3 4"] | None = None,
        exposed: Bool[Tensor, "B V"] | None = None,
        projections: Sequence[Projections] | None = None,
    ) -> Float[Tensor, "B _ X Y Z"]:
        """Volume and spread while training, else volume and quantiles.

        Args:
            image: Radiographs as line integrals; a missing view is NaN.
            matrices: World-to-detector matrices of each case, or one set for all, in place of the preset's.
            projections: What `AnyView.project_modes` gives for these matrices, if it is known already.
            exposed: Which views have a known exposure; see `trct_monai.networks.linear_start.LinearStart.forward`.
        """
        network, present = self.network, are_present(image)
        with torch.no_grad():
            matrices = network.check_views(image, matrices)
            if projections is None:
                projections = network.project_modes(matrices, len(image))
            start, corrected, model = network.linear(image, projections, exposed)
            volume = network.corrected(start, corrected, matrices, model)
            assert isinstance(volume, Tensor)  # in evaluation mode
            known = network.linear_start.standard_deviation(image.nan_to_num(0.0), projections, present, exposed)
            known = resize_cube(known, volume.shape[-1]) + LEAST_SPREAD
            residual = network.unexplained(volume, corrected, matrices).clamp(LEAST_RESIDUAL, 1.0)
            features = torch.cat([2 * volume - 1, 10 * (volume - start), known.log() + 3], dim=1)
            count = present.sum(dim=1).view(-1, 1, 1, 1, 1) / self.num_views
        x = pixelunshuffle(features, spatial_dims=3, scale_factor=2)
        x = self.entry(torch.cat([x, count.to(x.dtype).expand(-1, 1, *x.shape[2:])], dim=1))
        widened = (residual / USUAL_RESIDUAL) ** F.softplus(self.residual_power)
        spread = known * self.head(self.blocks(x)).float().clamp(-7.0, 7.0).exp() * widened.view(-1, 1, 1, 1, 1)
        volume = volume.float()
        if self.training:
            return torch.cat([volume, spread], dim=1)
        half, most = self.factors[(present.sum(dim=1) - 1).clamp(min=0)].view(-1, 2, 1, 1, 1, 1).unbind(dim=1)
        bounds = [volume - most * spread, volume - half * spread, volume + half * spread, volume + most * spread]
        return torch.cat([volume, *bounds], dim=1).clamp(0.0, 1.0)

    def calibrate(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "B V 3 4"], calibrated: Bool[Tensor, "B V"]
    ) -> tuple[Float[Tensor, "B V H W"], list[Projections]]:
        """See `AnyView.calibrate`."""
        return self.network.calibrate(image, matrices, calibrated)

    def own_state(self) -> dict[str, Tensor]:
        """The weights without those of the trained network."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("network.")}

    def load_own_state(self, state: Mapping[str, Tensor]) -> "IntervalNetwork":
        """Take the weights that `own_state` gave.

        Raises:
            ValueError: If they are those of intervals of another size.
        """
        own = self.own_state()
        if state.keys() != own.keys() or any(state[name].shape != own[name].shape for name in own):
            raise ValueError("these are not the weights of intervals of this size; fit them by train_intervals.json")
        self.load_state_dict({**self.state_dict(), **state})
        return self
