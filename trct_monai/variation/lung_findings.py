"""Findings of a whole lung or a part of it: effusion, consolidation, pneumothorax, a lobe without air."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.intensity import AIR_HU
from trct_monai.variation.anatomy import SIDES, Anatomy
from trct_monai.variation.grid import Box, box_between, mix, positions_mm, sampled
from trct_monai.variation.lesions import lump, noise
from trct_monai.variation.tubes import between, put_tube

RISE = (0.4, 1.2)
"""How steeply fluid runs up the posterior wall in a lying patient, in mm along z for each mm along y."""


def effusion(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """Fluid in the lowest and hindmost part of one lung, or of both, with a meniscus; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result = ct_hu.clone()
    for side in _sides(anatomy, random, both=0.25):
        low, high = anatomy.corners[side]
        depth, rise = float(random.uniform(0.1, 0.5)), float(random.uniform(*RISE))
        hu = float(random.uniform(0, 40))
        box, (x, y, z), lung = _lung(result, anatomy, side)
        edge = (x - float(low[0] + high[0]) / 2) / (0.5 * float(high[0] - low[0]))
        level = float(low[2] + depth * (high[2] - low[2])) - rise * (y - float(low[1]) - 20) + 20 * edge.square()
        _fill(result, box, lung * (0.5 + (level - z) / anatomy.spacing).clamp(0, 1), hu)
    return result


def consolidation(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """A part of a lung that is dense, wholly or in patches, with air in its bronchi; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result = ct_hu.clone()
    for side in _sides(anatomy, random, both=0.3):
        center = anatomy.draw(random, anatomy.lungs[side])
        diameter, soft = float(random.uniform(40, 120)), float(random.uniform(5, 30))
        assert center is not None  # a lung is not empty
        found = lump(result, anatomy.spacing, center[0], diameter, random, roughness=0.1, edge_mm=soft)
        if found is None:
            continue
        box, _, coverage = found
        lung = anatomy.cavity(side, result, rim=True)[None][box]
        patches = float(random.uniform(0.5, 1.2)) + float(random.uniform(0, 0.4)) * noise(random, coverage, 7)
        before = result[box].clone()
        _fill(result, box, lung * coverage * patches.clamp(0, 1), float(random.uniform(-50, 60)))
        if random.random() < 0.6:
            _bronchi(result, before, box, anatomy, side, center[0], diameter, random)
    return result


def missing_lobe(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """Soft tissue in the place of a lobe, beyond an oblique plane, or of a whole lung; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result = ct_hu.clone()
    for side in _sides(anatomy, random, both=0.0):
        low, high = anatomy.corners[side]
        box, position, lung = _lung(result, anatomy, side)
        upper, share = 1 if random.random() < 0.5 else -1, float(random.uniform(0.3, 0.6))
        if random.random() < 0.2:
            share = 2.0
        middle = (low + high) / 2
        through = high[2] - share * (high[2] - low[2]) if upper > 0 else low[2] + share * (high[2] - low[2])
        tilt_x, tilt_y = float(random.normal(0, 0.2)), float(random.uniform(0.0, 0.9))  # fissures fall to the front
        x, y, z = position
        plane = z - float(through) + tilt_x * (x - float(middle[0])) + tilt_y * (y - float(middle[1]))
        coverage = lung * (0.5 + upper * plane / anatomy.spacing).clamp(0, 1)
        _fill(result, box, coverage, float(random.uniform(10, 60)))
    return result


def pneumothorax(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """Air around a lung, which is smaller and denser, and keeps its hilum; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result = ct_hu.clone()
    for side in _sides(anatomy, random, both=0.0):
        low, high = anatomy.corners[side]
        box, position, lung = _lung(result, anatomy, side, rim=False)
        shares = np.array([0.0, random.uniform(0.15, 0.4), random.uniform(0.3, 0.6)])
        hilum = [anatomy.medial(side), *(low + shares * (high - low)).tolist()[1:]]
        scale = (1 - float(random.uniform(0.1, 0.5)) * random.uniform(0.5, 1.0, 3)).tolist()
        middles = [(float(axis.min()) + float(axis.max())) / 2 for axis in position]
        source = [h + (p - h) / s - m for p, h, s, m in zip(position, hilum, scale, middles)]
        taken = sampled(torch.cat([result[box], -F.max_pool3d(-lung, 3, 1, 1)]), torch.stack(source), anatomy.spacing)
        inside = lung * taken[1:]
        denser = min(float(1 / np.prod(scale)), 3.0)
        shrunk = AIR_HU + (taken[:1] - AIR_HU) * torch.where(taken[:1] < -300, denser, 1.0)
        values = AIR_HU + inside * (shrunk.clamp(max=float(random.uniform(40, 60))) - AIR_HU)
        mix(result, box, lung, values)
    return result


def _sides(anatomy: Anatomy, random: np.random.RandomState, both: float) -> list[str]:
    """Which lungs have a finding: one, or with a probability both; none without lungs."""
    side, two = str(random.choice(list(SIDES))), random.random() < both
    return [one for one in SIDES if two or one == side] if anatomy.lungs else []


def _lung(
    ct_hu: Tensor, anatomy: Anatomy, side: str, rim: bool = True
) -> tuple[Box, Float[Tensor, "3 A B C"], Float[Tensor, "1 A B C"]]:
    """The part of a CT around a lung, the positions of its voxels, and where the lung is, with its rim or without."""
    low, high = anatomy.corners[side]
    margin = 2 * max(anatomy.step)
    box = box_between(anatomy.shape, anatomy.spacing, (low - margin).tolist(), (high + margin).tolist())
    assert box is not None  # a lung lies within its CT
    return box, positions_mm(ct_hu, anatomy.spacing, box), anatomy.cavity(side, ct_hu, rim)[None][box].float()


def _fill(ct_hu: Tensor, box: Box, coverage: Tensor, hu: float) -> None:
    """Tissue of this density in what is less dense: vessels and walls stay."""
    mix(ct_hu, box, coverage * (ct_hu[box] < hu), hu)


def _bronchi(
    ct_hu: Tensor,
    before: Tensor,
    box: Box,
    anatomy: Anatomy,
    side: str,
    center: np.ndarray,
    diameter: float,
    random: np.random.RandomState,
) -> None:
    """Bronchi with air from the hilum through a consolidation, where a part of the CT is denser than before."""
    low, high = anatomy.corners[side]
    hilum = np.array([anatomy.medial(side), *(low + high)[1:] / 2])
    air = ct_hu.clone()
    for _ in range(random.randint(3, 8)):
        end = center + random.normal(0, diameter / 4, 3)
        put_tube(air, anatomy.spacing, between(random, [hilum, end], 8.0), float(random.uniform(1.0, 2.5)), AIR_HU)
    ct_hu[box] = torch.where(ct_hu[box] > before + 100, air[box], ct_hu[box])
