"""Nodules, masses and other lumps: ellipsoids with irregular edges and any texture, in lungs, soft tissue and bone."""

from math import exp, log

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.variation.anatomy import Anatomy
from trct_monai.variation.grid import Box, box_between, mix, positions_mm

DIAMETER_MM = (5.0, 60.0)
"""Of nodules and masses; drawn evenly in the logarithm."""

PLACES = {"lungs": 0.65, "body": 0.2, "bone": 0.15}
"""Share of the lumps in each; what has no lungs or no bone gets them anywhere in the body."""

TEXTURES = ("homogeneous", "noise", "necrotic", "cavity", "part solid", "ground glass", "rim", "calcified")


def nodules(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """One to three nodules or masses of any place, size, shape, density and texture.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    lungs = np.logical_or.reduce([np.zeros_like(anatomy.body), *anatomy.lungs.values()])
    masks = {"lungs": lungs, "body": anatomy.body, "bone": anatomy.bone}
    result = ct_hu.clone()
    for _ in range(random.randint(1, 4)):
        place = str(random.choice(list(PLACES), p=list(PLACES.values())))
        place = place if masks[place].any() else "body"
        center = anatomy.draw(random, masks[place])
        if center is not None:
            _add_lump(result, anatomy.spacing, center[0], place, random)
    return result


def missing_bone(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """A piece of a rib or of another bone that is muscle; unchanged without bone.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    center = anatomy.draw(random, anatomy.bone)
    if center is None:
        return ct_hu
    result = ct_hu.clone()
    found = lump(result, anatomy.spacing, center[0], float(random.uniform(30, 90)), random, roughness=0.1)
    if found is not None:
        box, _, coverage = found
        bony = ((result[box] - 80) / 100).clamp(0, 1)
        mix(result, box, coverage * bony, float(random.uniform(30, 60)))
    return result


def lump(
    ct_hu: Float[Tensor, "1 X Y Z"],
    spacing: float,
    center: Float[np.ndarray, "3"],
    diameter: float,
    random: np.random.RandomState,
    roughness: float | None = None,
    edge_mm: float = 0.0,
) -> tuple[Box, Tensor, Tensor] | None:
    """A random ellipsoid whose radius varies with the direction: lobulated, and perhaps with a few spikes.

    Args:
        ct_hu: The CT.
        spacing: Voxel side in mm.
        center: Its middle in mm from that of the volume.
        diameter: Its mean diameter in mm.
        random: Source of the random numbers.
        roughness: Standard deviation of the radius, relative; drawn if None.
        edge_mm: Over so many mm it fades out, at least over one voxel.

    Returns:
        The part of the CT around it, and there its relative distance from the middle, 1 at the edge, and its coverage
        of the voxels in [0, 1], both (1, A, B, C); None if it lies outside the CT.
    """
    axes = np.exp(random.normal(0, 0.15, 3))
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    rough = float(random.choice([0.03, 0.08, 0.15])) if roughness is None else roughness
    frequencies, directions = random.uniform(1.5, 6.0, 6), random.normal(size=(6, 3))
    phases, sizes = random.uniform(0, 2 * np.pi, 6), rough * random.normal(size=6)
    spikes = random.normal(size=(random.randint(3, 9), 3)) if rough > 0.1 else np.zeros((0, 3))
    most = 1.6 if len(spikes) else 1 + 3 * rough
    reach = most * diameter / 2 * float(axes.max()) + edge_mm
    box = box_between(ct_hu.shape[1:], spacing, (center - reach).tolist(), (center + reach).tolist())
    if box is None:
        return None
    position = positions_mm(ct_hu, spacing, box)
    offset = [place - middle for place, middle in zip(position, center.tolist())]
    matrix = (turn / (axes[:, None] * diameter / 2)).tolist()
    local = [sum(weight * place for weight, place in zip(row, offset)) for row in matrix]
    distance = torch.stack([place.square() for place in local]).sum(dim=0).sqrt().clamp(min=1e-3)
    radius = torch.ones_like(distance)
    for frequency, direction, phase, size in zip(frequencies, directions, phases.tolist(), sizes.tolist()):
        along = (frequency * direction / np.linalg.norm(direction)).tolist()
        radius = radius + size * torch.cos(sum(a * p for a, p in zip(along, local)) / distance + phase)
    for direction in spikes:
        along = (direction / np.linalg.norm(direction)).tolist()
        radius = radius + 0.35 * torch.exp(25 * (sum(a * p for a, p in zip(along, local)) / distance - 1))
    distance = distance / radius.clamp(0.4, most)
    coverage = 0.5 - (distance - 1) * (diameter / 2) / max(edge_mm, spacing)
    return box, distance[None], coverage.clamp(0, 1)[None]


def noise(random: np.random.RandomState, part: Float[Tensor, "1 A B C"], cells: int) -> Float[Tensor, "1 A B C"]:
    """Smooth noise of about unit variance over a part of a CT.

    Args:
        random: Source of the random numbers.
        part: What it is for.
        cells: Random numbers along each side.
    """
    field = torch.as_tensor(random.normal(size=(1, 1, cells, cells, cells)), dtype=torch.float32)
    shape = tuple(part.shape[1:])
    return 1.5 * F.interpolate(field.to(part.device), size=shape, mode="trilinear", align_corners=True)[0]


def _add_lump(ct_hu: Tensor, spacing: float, center: np.ndarray, place: str, random: np.random.RandomState) -> None:
    """Put a lump into a CT."""
    smallest, largest = DIAMETER_MM
    diameter = exp(float(random.uniform(log(smallest), log(largest if place != "bone" else 40.0))))
    edge = float(random.choice([0.0, 0.1, 0.3])) * diameter
    found = lump(ct_hu, spacing, center, diameter, random, edge_mm=edge)
    if found is None:
        return
    box, distance, coverage = found
    part = ct_hu[box]
    if random.random() < {"lungs": 0.3, "body": 0.7, "bone": 0.6}[place]:
        contrast = exp(float(random.uniform(log(100.0), log(1000.0))))
        sign = 1 if random.random() < (0.9 if place == "lungs" else 0.5) else -1
        mix(ct_hu, box, coverage, part + sign * contrast)
        return
    if place == "lungs" and random.random() < 0.7:  # it grows in the lung alone
        coverage = coverage * ((-200 - part) / 300).clamp(0, 1)
    values = _texture(str(random.choice(TEXTURES, p=[0.3, 0.2, 0.1, 0.08, 0.08, 0.08, 0.06, 0.1])),
                      part, distance, random) if place == "lungs" else _in_tissue(part, distance, random)  # fmt: skip
    mix(ct_hu, box, coverage, values)


def _texture(name: str, part: Tensor, distance: Tensor, random: np.random.RandomState) -> Tensor:
    """HU of a lump in a lung, of one of `TEXTURES`."""
    solid = float(random.uniform(-50, 100))
    values = torch.full_like(part, solid)
    core = float(random.uniform(0.3, 0.75))
    inside = ((core - distance) / 0.15).clamp(0, 1)
    if name == "noise":
        return values + float(random.uniform(20, 150)) * noise(random, part, int(random.randint(4, 9)))
    if name == "necrotic":
        return values - inside * float(random.uniform(20, 60))
    if name == "cavity":
        return values + inside * (float(random.uniform(-980, -600)) - values)
    if name in ("part solid", "ground glass"):
        glass = float(random.uniform(-700, -350)) + 40 * noise(random, part, 6)
        return glass + inside * (values - glass) if name == "part solid" else glass
    if name == "rim":
        return values + (1 - inside) * float(random.uniform(200, 800))
    if name == "calcified":
        return values + float(random.uniform(200, 1000)) * (inside if random.random() < 0.5 else 1)
    return values


def _in_tissue(part: Tensor, distance: Tensor, random: np.random.RandomState) -> Tensor:
    """HU of a lump in soft tissue or bone: lytic or sclerotic, a cyst or fat."""
    values = torch.full_like(part, float(random.uniform(20, 80)))
    kind = random.random()
    if kind < 0.35:
        values = torch.full_like(part, float(random.uniform(300, 1400)))
    elif kind < 0.5:
        values = torch.full_like(part, float(random.uniform(-120, 20)))
    return values + float(random.uniform(0, 40)) * noise(random, part, 6) * (distance < 1)
