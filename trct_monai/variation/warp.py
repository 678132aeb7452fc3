"""Warps of a CT: a lattice of the positions from which its voxels are taken.

A warp is affine, smooth at random, and shaped as breath, habitus and posture shape a chest: the outline of the body,
where most errors are, varies most. All of it is one lattice of source positions, 16 nodes along each side, and one
trilinear resampling: MONAI's `RandAffine` and `Rand3DElastic` in a row
would blur twice, and the latter filters a displacement of every voxel, which takes seconds. Nothing is mirrored: hearts
are on the left.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import radians

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from monai.transforms.utils import create_rotate, create_scale, create_shear
from torch import Tensor

from trct_monai.intensity import AIR_HU

NODES = 16
"""Nodes of a lattice along each side."""

CHEST = (150.0, 110.0)
"""Half width and half depth in mm of the ellipse that stands for the body's outline where its shape is concerned."""

WAVES = 4
"""Periods around the body up to which its outline varies: 1 shifts it, 2 makes it flat or deep, 3 and 4 its corners."""

MOST_OUTLINE = 0.4
"""Bound on the relative change of the outline: beyond it the lattice would fold."""


@dataclass(frozen=True)
class Strengths:
    """Standard deviations by which warps are drawn.

    Attributes:
        rotation_deg: Angle about each axis.
        shear: Shear along each axis.
        scale: Relative size along each axis.
        shift_mm: Shift along each axis.
        elastic_mm: Smooth random displacements, for each of `elastic_nodes_mm`.
        elastic_nodes_mm: Distances between their nodes.
        breath_mm: How far the diaphragm moves; half of that is what the sternum moves.
        habitus: Relative change of the body's outline against what is inside, the same all around.
        outline: Relative change of it for each number of periods around the body, at the height of the middle and, per
            170 mm, along z.
    """

    rotation_deg: float = 3.0
    shear: float = 0.05
    scale: float = 0.08
    shift_mm: float = 10.0
    elastic_mm: Sequence[float] = (10.0, 4.0)
    elastic_nodes_mm: Sequence[float] = (107.0, 46.0)
    breath_mm: float = 10.0
    habitus: float = 0.08
    outline: float = 0.08

    def __post_init__(self) -> None:
        numbers = (
            self.rotation_deg, self.shear, self.scale, self.shift_mm, self.breath_mm, self.habitus, self.outline,
            *self.elastic_mm,
        )  # fmt: skip
        if min(numbers) < 0 or len(self.elastic_mm) != len(self.elastic_nodes_mm) or min(self.elastic_nodes_mm) <= 0:
            raise ValueError(
                "strengths of warps must not be negative, and elastic_nodes_mm positive, one for each of elastic_mm, "
                f"got {self}"
            )

    def times(self, factor: float) -> "Strengths":
        """All of them so many times as strong."""
        elastic = tuple(factor * size for size in self.elastic_mm)
        others = {name: factor * value for name, value in vars(self).items() if not name.startswith("elastic")}
        return replace(self, elastic_mm=elastic, **others)


def identity_lattice(shape: Sequence[int], spacing: float) -> Float[Tensor, "3 N N N"]:
    """The lattice that takes every voxel from where it is: positions in mm from the middle of the volume.

    Args:
        shape: Voxels (X, Y, Z); the outer nodes are at the outer voxels' centres.
        spacing: Voxel side in mm.
    """
    reach = [spacing * (n - 1) / 2 for n in shape]
    axes = [torch.linspace(-end, end, NODES, dtype=torch.float64) for end in reach]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).float()


def draw_lattice(
    random: np.random.RandomState, shape: Sequence[int], spacing: float, strengths: Strengths = Strengths()
) -> Float[Tensor, "3 N N N"]:
    """The lattice of a random warp.

    Args:
        random: Source of the random numbers.
        shape: Voxels (X, Y, Z).
        spacing: Voxel side in mm.
        strengths: See `Strengths`.
    """
    lattice = identity_lattice(shape, spacing)
    source = lattice
    for size, nodes_mm in zip(strengths.elastic_mm, strengths.elastic_nodes_mm):
        nodes = [max(2, 1 + round(spacing * n / nodes_mm)) for n in shape]
        field = torch.as_tensor(random.normal(0, size, (1, 3, *nodes)), dtype=torch.float32)
        source = source + F.interpolate(field, size=(NODES,) * 3, mode="trilinear", align_corners=True)[0]
    source = source + _breath(lattice, float(random.normal(0, strengths.breath_mm)))
    source = source * _habitus(lattice, float(random.normal(0, strengths.habitus)))
    source = source * _outline(lattice, random.normal(0, strengths.outline, (WAVES, 2, 2)))
    angles = [radians(strengths.rotation_deg) * float(angle) for angle in random.normal(size=3)]
    shears = (strengths.shear * random.normal(size=6)).tolist()
    scales = np.exp(strengths.scale * random.normal(size=3)).tolist()
    matrix = create_rotate(3, angles) @ create_shear(3, shears) @ create_scale(3, scales)
    linear = torch.as_tensor(matrix[:3, :3], dtype=torch.float32)
    shift = torch.as_tensor(random.normal(0, strengths.shift_mm, (3, 1, 1, 1)), dtype=torch.float32)
    return torch.einsum("ij,jxyz->ixyz", linear, source) + shift


def _breath(position: Float[Tensor, "3 N N N"], depth: float) -> Float[Tensor, "3 N N N"]:
    """Displacement of a breath: what is below moves along z, more the lower it is; what is in front moves along y."""
    _, y, z = position
    below = torch.sigmoid(-(z + 20.0) / 40.0)
    front = torch.sigmoid((y - 20.0) / 40.0) * torch.exp(-((z / 150.0) ** 2))
    return torch.stack([torch.zeros_like(z), -0.5 * depth * front, depth * below])


def _habitus(position: Float[Tensor, "3 N N N"], change: float) -> Float[Tensor, "3 N N N"]:
    """Factor on each coordinate: about 1 inside, 1 + change / 2 at the outline, along x and y."""
    return _across(1 + change * _outwards(position))


def _outline(position: Float[Tensor, "3 N N N"], changes: np.ndarray) -> Float[Tensor, "3 N N N"]:
    """Factor on each coordinate as `_habitus` has it, but not the same all around nor at all heights.

    Args:
        position: Nodes in mm.
        changes: For each number of periods, its cosine and its sine, at z = 0 and per 170 mm: (WAVES, 2, 2).
    """
    x, y, z = position
    angle = torch.atan2(y / CHEST[1], x / CHEST[0])
    total = torch.zeros_like(x)
    for number, waves in enumerate(changes.tolist(), start=1):
        for (middle, slope), wave in zip(waves, (torch.cos(number * angle), torch.sin(number * angle))):
            total = total + 2 / (1 + number) * (middle + slope * z / 170.0) * wave
    return _across(1 + MOST_OUTLINE * (total / MOST_OUTLINE).tanh() * _outwards(position))


def _outwards(position: Float[Tensor, "3 N N N"]) -> Float[Tensor, "N N N"]:
    """0 along the middle, 1 / 2 at the outline, 1 far outside."""
    x, y, _ = position
    fourth = ((x / CHEST[0]) ** 2 + (y / CHEST[1]) ** 2) ** 2
    result: Tensor = fourth / (1 + fourth)
    return result


def _across(factor: Float[Tensor, "N N N"]) -> Float[Tensor, "3 N N N"]:
    """A factor on x and y."""
    return torch.stack([factor, factor, torch.ones_like(factor)])


def warped(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, lattice: Float[Tensor, "3 N N N"]
) -> Float[Tensor, "1 X Y Z"]:
    """A CT whose voxels are taken from the positions of a lattice, trilinear; air beyond it.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        lattice: Positions in mm from the middle of the volume, as `draw_lattice` gives them.
    """
    shape = ct_hu.shape[1:]
    half = torch.tensor([spacing * n / 2 for n in shape], device=ct_hu.device).view(3, 1, 1, 1)
    relative = (lattice.to(ct_hu.device) / half).flip(0)  # grid_sample counts axes from the last
    grid = F.interpolate(relative[None], size=tuple(shape), mode="trilinear", align_corners=True)
    above_air = (ct_hu.float() - AIR_HU)[None]
    return F.grid_sample(above_air, grid.movedim(1, -1), padding_mode="zeros", align_corners=False)[0] + AIR_HU
