"""One patient's CT in the shape of others: registration, whose displacements a warp takes a share of.

Random warps make a patient wider or bent; what differs between people in other ways (the form of the lungs, the height
of the domes, the turn of the heart) only other people show. The registration is a free-form deformation (Rueckert et
al., IEEE Trans. Med. Imaging 18, 1999) on the lattice of `trct_monai.variation.warp`, linear between its nodes, at
about 10 mm: it need not be exact, since shares of it are taken.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Real
from torch import Tensor

from trct_monai.variation.grid import axes_mm
from trct_monai.variation.surroundings import DENSE_HU
from trct_monai.variation.warp import NODES

COMPARED_MM = 10.0
"""Voxel side at which CTs are compared."""

COMPARED_HU = (-1000.0, 200.0)
"""Window in which they are compared: contrast agent and metal are no shape."""

STEPS = 120
LARGEST_STEP_MM = 3.0

SMOOTHNESS = 1.5e-4
"""Weight of the squared differences in mm between neighbouring nodes, against the squared error."""


@torch.enable_grad()
def shapes_of_others(
    ct_hu: Real[Tensor, "1 X Y Z"], others_hu: Sequence[Real[Tensor, "1 X Y Z"]], spacing: float
) -> Float[Tensor, "M 3 N N N"]:
    """Displacements by which a CT takes the shapes of others; see `displaced`.

    Args:
        ct_hu: CT numbers in HU.
        others_hu: M CTs of as many voxels.
        spacing: Voxel side in mm.

    Returns:
        For each of the others, at the nodes of a lattice: from a place in its CT to the same place in this one, in mm.
    """
    number, shape = len(others_hu), ct_hu.shape[1:]
    displacement = torch.zeros(number, 3, NODES, NODES, NODES, device=ct_hu.device, requires_grad=True)
    if not number:
        return displacement.detach()
    factor = min(max(1, round(COMPARED_MM / spacing)), *shape)
    own, *others = (_compared(one, factor) for one in (ct_hu, *others_hu))
    target, source = torch.stack(others), own.expand(number, -1, -1, -1, -1)
    axes = [F.avg_pool1d(axis[None], factor)[0] for axis in axes_mm(ct_hu, spacing)]
    positions = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    inside = [(len(axis) * factor * spacing, axis.mean()) for axis in axes]  # of the coarse CT: its side and its middle
    optimizer = torch.optim.Adam([displacement], lr=LARGEST_STEP_MM)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for _ in range(STEPS):
        places = displaced(positions, displacement, shape, spacing)
        grid = torch.stack(
            [2 * (p - middle) / side for p, (side, middle) in zip(places.unbind(1), inside)][::-1], dim=-1
        )
        found = F.grid_sample(source, grid, padding_mode="border", align_corners=False)
        counted = (found[:, 1] * target[:, 1]).detach().flatten(1)
        wrong = (found[:, 0] - target[:, 0]).square().flatten(1)
        rough = torch.stack([displacement.diff(dim=axis).square().mean() for axis in (2, 3, 4)]).sum()
        error = ((wrong * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)).sum()
        optimizer.zero_grad()
        (error + number * SMOOTHNESS * rough).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return displacement.detach()


def displaced(
    positions: Float[Tensor, "3 X Y Z"], displacement: Float[Tensor, "*M 3 N N N"], shape: Sequence[int], spacing: float
) -> Float[Tensor, "*M 3 X Y Z"]:
    """Where positions come from in another shape: they and the displacement there, linear between its nodes.

    Args:
        positions: In mm from the middle of the volume, such as a warp's lattice.
        displacement: A sum of shares of `shapes_of_others`, or several.
        shape: Voxels of the volume; the outer nodes are at the outer voxels' centres.
        spacing: Voxel side in mm.
    """
    reach = torch.tensor([spacing * (n - 1) / 2 for n in shape], device=positions.device).view(3, 1, 1, 1)
    grid = (positions / reach).flip(0).movedim(0, -1)  # grid_sample counts axes from the last
    nodes = displacement.reshape(1, -1, *displacement.shape[-3:])  # one grid for all of them
    found = F.grid_sample(nodes, grid[None], padding_mode="border", align_corners=True)
    return positions + found.view(*displacement.shape[:-3], *positions.shape[1:])


def _compared(ct_hu: Real[Tensor, "1 X Y Z"], factor: int) -> Float[Tensor, "2 x y z"]:
    """A coarse CT in [0, 1], and which of its slices were scanned: those without a body are not compared."""
    low, high = COMPARED_HU
    coarse = F.avg_pool3d(ct_hu.float()[None], factor)[0]
    scanned = (coarse > DENSE_HU).any(dim=1, keepdim=True).any(dim=2, keepdim=True).float()
    return torch.cat([(coarse.clamp(low, high) - low) / (high - low), scanned.expand_as(coarse)])
