"""Iterative reconstruction that prefers piecewise constant volumes."""

from collections.abc import Sequence
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.baselines.backprojection import mean_backprojection
from trct_monai.baselines.cases import TrainingCases, cameras_of, each, read_case
from trct_monai.geometry import DEFAULT_EXTENT, Camera
from trct_monai.intensity import HU_WINDOW, MU_WATER, attenuation_to_hu, hu_to_unit
from trct_monai.projector import Projector

WEIGHTS = (0.1, 0.3, 1.0, 3.0)

BALANCE = 50.0
"""Step of the volume over that of the duals; at 1 the first step is one of SIRT. The optimum does not depend on it, the
way there does: on thorax phantoms, 2 and 8 views, 25 to 100 is fastest."""


class TotalVariation(nn.Module):
    """The volume that fits the radiographs and varies least, for about four views and more; no training case.

    It minimises, over attenuation x >= 0 in units of water::

        1/2 mean_pixels (A x - y)^2 + weight * mean_voxels |grad x|,    grad in 1/mm

    by the primal-dual method of Chambolle and Pock (J. Math. Imaging and Vision 40, 2011; for CT: Sidky, Jorgensen and
    Pan, Phys. Med. Biol. 57(10), 2012) with diagonal steps (Pock and Chambolle, ICCV 2011), from `mean_backprojection`
    on. A is `trct_monai.projector` and its exact adjoint. The number of iterations is fixed, so that one and the
    same input always gives one and the same result.

    Args:
        volume_size: Voxels along each side.
        geometry: Preset of `trct_monai.geometry.preset`, or the cameras; in the order of the radiographs.
        extent: Side of the volume in mm.
        num_iterations: One projection and one back-projection each.
        weight: Weight of the total variation in mm; kept as a buffer, since `select` chooses it.
        hu_window: HU of 0 and 1 of the result.

    Raises:
        ValueError: If `num_iterations` or `weight` is negative.
    """

    weight: Tensor

    def __init__(
        self,
        volume_size: int = 64,
        *,
        geometry: str | Sequence[Camera] = "x2ct",
        extent: float = DEFAULT_EXTENT,
        num_iterations: int = 100,
        weight: float = 1.0,
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        super().__init__()
        if num_iterations < 0 or weight < 0:
            raise ValueError(f"num_iterations and weight must not be negative, got {num_iterations} and {weight}")
        self.volume_size, self.geometry, self.extent = volume_size, geometry, extent
        self.num_iterations, self.hu_window = num_iterations, hu_window
        self.register_buffer("weight", torch.tensor(weight))

    def select(
        self, validation: TrainingCases, weights: Sequence[float] = WEIGHTS, *, max_cases: int = 4
    ) -> list[tuple[float, float]]:
        """Take the weight that does best on the first validation cases.

        Args:
            validation: Cases; without any the weight stays as it is.
            weights: Weights to try, in mm.
            max_cases: How many cases to look at.

        Returns:
            Weight and mean PSNR in dB (peak 1) of each, best first.
        """
        cases = [read_case(case, self.volume_size) for case in islice(each(validation), max_cases)]
        grid = []
        for weight in weights if cases else ():
            self.weight.fill_(weight)
            errors = [(self(image[None].to(self.weight))[0] - label.to(self.weight)) for image, label in cases]
            psnr = torch.stack([-10 * error.square().mean().log10() for error in errors]).mean()
            grid.append((weight, float(psnr)))
        grid.sort(key=lambda pair: -pair[1])
        if grid:
            self.weight.fill_(grid[0][0])
        return grid

    @torch.no_grad()
    def forward(self, image: Float[Tensor, "B V H W"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The reconstruction, clipped to [0, 1]. No gradient passes.

        Args:
            image: Radiographs as line integrals, views in the order of the geometry.

        Raises:
            ValueError: If the number of views does not fit.
        """
        cameras = cameras_of(self.geometry, image)
        shape, spacing = (self.volume_size,) * 3, self.extent / self.volume_size
        start = mean_backprojection(image.float(), cameras, shape, spacing) / MU_WATER
        projector = Projector(cameras, shape, spacing)
        volume = minimise(projector, image.float(), start, self.weight / spacing, self.num_iterations)
        return hu_to_unit(attenuation_to_hu(volume * MU_WATER), self.hu_window)


def minimise(
    projector: Projector,
    image: Float[Tensor, "B V H W"],
    start: Float[Tensor, "B 1 X Y Z"],
    weight: Tensor | float,
    num_iterations: int,
) -> Float[Tensor, "B 1 X Y Z"]:
    """Chambolle and Pock's iterations for `TotalVariation`'s objective, algorithm 1 with diagonal steps.

    Args:
        projector: The views.
        image: Line integrals.
        start: Where to start, in units of water.
        weight: Weight of the mean difference between voxels: that of `TotalVariation` over the voxel side in mm.
        num_iterations: How often to iterate.

    Returns:
        Attenuation in units of water.
    """
    scale = image[0].numel() ** -0.5  # mean over pixels as a sum of squares
    ones = start.new_ones(1, *start.shape[1:])
    rows = projector(ones) * (MU_WATER * scale)
    columns = projector.adjoint(torch.ones_like(image[:1])) * (MU_WATER * scale)
    # The gradient takes part in units that give it the same say as the projections; its dual is bounded accordingly.
    unit = columns.mean() / 3
    bound = weight / (start[0].numel() * unit)
    balance = BALANCE / rows.max()
    data_step = 1 / (balance * rows.clamp(min=1e-6 * float(rows.max())))
    gradient_step = 1 / (balance * 2 * unit)
    step = balance / (columns + 6 * unit)

    volume, extrapolated = start, start
    data_dual, gradient_dual = torch.zeros_like(image), start.new_zeros(len(start), 3, *start.shape[2:])
    for _ in range(num_iterations):
        residual = (projector(extrapolated) * MU_WATER - image) * scale
        data_dual = (data_dual + data_step * residual) / (1 + data_step)
        gradient_dual = gradient_dual + gradient_step * unit * gradient(extrapolated)
        gradient_dual = gradient_dual / (gradient_dual.norm(dim=1, keepdim=True) / bound).clamp(min=1)
        descent = projector.adjoint(data_dual) * (MU_WATER * scale) + unit * gradient_adjoint(gradient_dual)
        updated = (volume - step * descent).clamp(min=0)
        extrapolated, volume = 2 * updated - volume, updated
    return volume


def gradient(volume: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B 3 X Y Z"]:
    """Differences to the next voxel along x, y and z; 0 at the last."""
    result = volume.new_zeros(len(volume), 3, *volume.shape[2:])
    for axis in range(3):
        size = volume.shape[2 + axis]
        result[:, axis].narrow(1 + axis, 0, size - 1).copy_(volume[:, 0].diff(dim=1 + axis))
    return result


def gradient_adjoint(field: Float[Tensor, "B 3 X Y Z"]) -> Float[Tensor, "B 1 X Y Z"]:
    """The transpose of `gradient`: minus the divergence."""
    result = field.new_zeros(len(field), 1, *field.shape[2:])
    for axis in range(3):
        size = field.shape[2 + axis]
        inner = field[:, axis].narrow(1 + axis, 0, size - 1)
        result[:, 0].narrow(1 + axis, 0, size - 1).sub_(inner)
        result[:, 0].narrow(1 + axis, 1, size - 1).add_(inner)
    return result
