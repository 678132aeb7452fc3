"""What does not belong into a chest: pacemakers, wires, rods, tubes, and bones too many."""

from math import exp, log

import numpy as np
from jaxtyping import Float
from torch import Tensor

from trct_monai.intensity import AIR_HU
from trct_monai.variation.anatomy import SIDES, Anatomy
from trct_monai.variation.tubes import between, put_box, put_tube

METAL_HU = (1500.0, 3071.0)
"""Of metal, as files keep it."""


def pacemaker(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """A pacemaker under the skin of the upper chest, and one to three leads to the heart; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    side = SIDES["left"] if random.random() < 0.8 else SIDES["right"]
    width, depth = float(random.uniform(35, 60)), float(random.uniform(6, 12))
    hu, angle = float(random.uniform(*METAL_HU)), float(random.normal(0, 0.4))
    if not anatomy.lungs:
        return ct_hu
    place = anatomy.at(side * float(random.uniform(55, 90)), 1, float(random.uniform(0.7, 0.95)))
    skin = [anatomy.front(place[0] + x, place[2] + z) for x, z in ((0, 0), (20, 0), (-20, 0), (0, 15), (0, -15))]
    place[1] = min(skin) - float(random.uniform(8, 18))
    slope = (anatomy.front(place[0] + 20, place[2]) - anatomy.front(place[0] - 20, place[2])) / 40
    across = np.array([1.0, slope, 0.0]) / np.hypot(1.0, slope)
    up, normal = np.array([0.0, 0.0, 1.0]), np.array([-across[1], across[0], 0.0])
    axes = np.stack([np.cos(angle) * across + np.sin(angle) * up, normal, np.cos(angle) * up - np.sin(angle) * across])
    result = ct_hu.clone()
    put_box(result, anatomy.spacing, place, axes, (width, depth, width * float(random.uniform(0.8, 1.1))), hu)
    for _ in range(random.randint(1, 4)):
        tip = anatomy.heart() + random.normal(0, [20, 10, 12]) + np.array([-10, 10, -20])
        vein = [anatomy.at(side * 30, 0.75, 0.95), anatomy.at(22, 0.6, 0.8), anatomy.at(28, 0.6, 0.5)]
        path = between(random, [place + 15 * up, *(one + random.normal(0, 4, 3) for one in vein), tip])
        put_tube(result, anatomy.spacing, path, float(random.uniform(0.5, 1.2)), float(random.uniform(*METAL_HU)))
    return result


def sternal_wires(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """Four to seven loops of wire around the sternum; unchanged without lungs.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    number, hu, radius = random.randint(4, 8), float(random.uniform(*METAL_HU)), float(random.uniform(0.8, 1.3))
    if not anatomy.lungs:
        return ct_hu
    result = ct_hu.clone()
    angle = np.linspace(0, 2 * np.pi, 25)
    for height in np.linspace(0.3, 0.9, number):
        middle = anatomy.at(float(random.normal(0, 2)), 1, height)
        middle[1] = anatomy.sternum(middle[2]) - 3
        tilt, half = float(random.normal(0, 0.15)), float(random.uniform(9, 14))
        loop = [half * np.cos(angle), 7 * np.sin(angle), tilt * half * np.cos(angle)]
        put_tube(result, anatomy.spacing, middle + np.stack(loop, axis=1), radius, hu)
        knot = middle + np.array([0.0, 7.0, 0.0])
        put_tube(result, anatomy.spacing, np.stack([knot, knot + random.normal(0, 4, 3)]), 1.3 * radius, hu)
    return result


def rods(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """Two rods along the spine with screws in it, or a single rod anywhere in the body.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result, hu, radius = ct_hu.clone(), float(random.uniform(*METAL_HU)), float(random.uniform(2, 4))
    if not anatomy.lungs or random.random() < 0.3:
        ends = _ends(anatomy, random)
        if ends is not None:
            put_tube(result, anatomy.spacing, np.stack(ends), radius, hu)
        return result
    low, high = sorted(random.uniform(-0.1, 1.1, 2).tolist())
    heights = [anatomy.at(0, 0, z)[2] for z in np.linspace(low, max(high, low + 0.3), random.randint(4, 8))]
    spine = np.stack([np.array([*anatomy.spine(z), z]) for z in heights])
    for side in SIDES.values():
        path = spine + np.array([side * float(random.uniform(14, 20)), -22.0, 0.0])
        put_tube(result, anatomy.spacing, between(random, list(path)), radius, hu)
        for start in path:
            inwards = np.array([-side * 6.0, 38.0, 0.0]) + random.normal(0, 2, 3)
            put_tube(result, anatomy.spacing, np.stack([start, start + inwards]), 0.8 * radius, hu)
    return result


def tubes(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """One to three of these: a line in a vein, a tube in the trachea or the stomach, a drain, a cable on the skin, any
    curve in the body; without lungs the last alone.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result = ct_hu.clone()
    for _ in range(random.randint(1, 4)):
        kind = str(random.choice(["vein", "trachea", "stomach", "drain", "cable", "any"]))
        kind = kind if anatomy.lungs else "any"
        path = _path(kind, anatomy, random)
        if path is None:
            continue
        radius, hu = float(random.uniform(0.6, 1.5)), exp(float(random.uniform(log(200.0), log(3071.0))))
        if kind in ("trachea", "stomach", "drain"):
            wide = float(random.uniform(2.0, 5.0))
            put_tube(result, anatomy.spacing, path, wide, hu / 2, 0.65 * wide, AIR_HU)
        else:
            put_tube(result, anatomy.spacing, path, radius, hu)
    return result


def extra_bone(ct_hu: Float[Tensor, "1 X Y Z"], anatomy: Anatomy, random: np.random.RandomState) -> Tensor:
    """One or two bones too many: curved, with a cortex, somewhere in the body.

    Args:
        ct_hu: CT numbers in HU.
        anatomy: Of this CT.
        random: Source of the random numbers.
    """
    result = ct_hu.clone()
    for _ in range(random.randint(1, 3)):
        ends, radius = _ends(anatomy, random), float(random.uniform(3, 9))
        if ends is None:
            break
        path = between(random, ends, 10.0)
        cortex, marrow = float(random.uniform(500, 1200)), float(random.uniform(100, 400))
        put_tube(result, anatomy.spacing, path, radius, cortex, 0.6 * radius, marrow)
    return result


def _ends(anatomy: Anatomy, random: np.random.RandomState) -> list[np.ndarray] | None:
    """Two places in the body, 40 to 160 mm apart where there are such; None where there is no body."""
    places, distance = anatomy.draw(random, anatomy.body, 16), float(random.uniform(40, 160))
    if places is None:
        return None
    apart = np.linalg.norm(places[1:] - places[0], axis=1)
    return [places[0], places[1 + int(np.abs(apart - distance).argmin())]]


def _path(kind: str, anatomy: Anatomy, random: np.random.RandomState) -> np.ndarray | None:
    """Where a tube of `tubes` runs; None where there is no body."""
    if kind == "any":
        found = anatomy.draw(random, anatomy.body, random.randint(2, 5))
        return None if found is None else between(random, list(found[found[:, 2].argsort()]))
    side = float(random.choice(list(SIDES.values())))
    shares: dict[str, list[tuple[float, float, float]]] = {
        "vein": [(side * 60, 0.8, 1.1), (side * 25, 0.7, 0.95), (22, 0.6, 0.85), (28, 0.6, random.uniform(0.4, 0.7))],
        "trachea": [(0, 0.55, 1.25), (0, 0.5, 1.05), (0, 0.45, random.uniform(0.75, 0.9))],
        "stomach": [(0, 0.4, 1.25), (0, 0.3, 0.9), (-8, 0.25, 0.5), (-15, 0.4, 0.1), (-50, 0.6, -0.15)],
        "drain": [(side * 150, 0.5, 0.3), (side * 110, 0.4, 0.35), (side * 80, 0.3, 0.6), (side * 45, 0.35, 0.85)],
        "cable": [(side * x, 1.0, z) for x, z in zip(random.uniform(-20, 120, 4), random.uniform(0, 1.1, 4))],
    }
    places = [anatomy.at(x, y, z) + random.normal(0, 3, 3) for x, y, z in shares[kind]]
    if kind == "cable":
        for place in places:
            place[1] = anatomy.front(place[0], place[2]) + 2
    return between(random, places)
