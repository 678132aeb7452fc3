"""Findings that move the anatomy: a large heart, a bent spine."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.variation.anatomy import Anatomy
from trct_monai.variation.grid import axes_mm, box_between, positions_mm, sampled

REACH_MM = (115.0, 75.0, 100.0)
"""How far from its middle a large heart displaces what is around it: to the chest wall, not beyond."""


def cardiomegaly(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """A heart that is larger by about a third, and displaces the lungs; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    strength = float(random.uniform(0.25, 0.55))
    if not anatomy.lungs:
        return ct_hu
    center, reach = anatomy.heart(), np.array(REACH_MM)
    box = box_between(anatomy.shape, anatomy.spacing, (center - reach).tolist(), (center + reach).tolist())
    if box is None:
        return ct_hu
    position = positions_mm(ct_hu, anatomy.spacing, box)
    offset = [p - c for p, c in zip(position, center.tolist())]
    far = torch.stack([(o / r).square() for o, r in zip(offset, REACH_MM)]).sum(dim=0).clamp(max=1)
    pull = strength * (1 - far).square()
    middles = [(float(p.min()) + float(p.max())) / 2 for p in position]
    source = torch.stack([p - pull * o - m for p, o, m in zip(position, offset, middles)])
    result = ct_hu.clone()
    result[box] = sampled(ct_hu[box], source, anatomy.spacing)
    return result


def scoliosis(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """A body that is bent to the side, and a little back further below, as the phantoms' is; linear in between voxels.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    amplitude = float(random.choice([-1, 1])) * float(random.uniform(12, 35))
    height = 0.5 * anatomy.spacing * anatomy.shape[2]
    bends = (
        (amplitude, height * float(random.uniform(-0.3, 0.5)), float(random.uniform(50, 80))),
        (-amplitude * float(random.uniform(0.3, 0.8)), -height * float(random.uniform(0.7, 1.0)), 50.0),
    )
    x, _, z = axes_mm(ct_hu, anatomy.spacing)
    shift = torch.stack([a * torch.exp(-0.5 * ((z - middle) / width) ** 2) for a, middle, width in bends]).sum(dim=0)
    half_x, half_z = (anatomy.spacing * anatomy.shape[axis] / 2 for axis in (0, 2))
    grid = torch.stack([z.expand(len(x), -1) / half_z, (x[:, None] - shift) / half_x], dim=-1)
    planes = ct_hu.movedim(2, 1)  # (1, Y, X, Z): the same shift for all y
    moved = F.grid_sample(planes, grid[None], padding_mode="border", align_corners=False)
    return moved.movedim(1, 2).contiguous()
