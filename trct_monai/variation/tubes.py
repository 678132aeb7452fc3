"""Tubes, wires and boxes of any thickness in a CT: thin ones take the share of a voxel that they fill."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.variation.grid import box_between, mix

Array = np.ndarray


def between(
    random: np.random.RandomState, places: Sequence[Float[Array, "3"]], bend_mm: float = 0.0
) -> Float[Array, "N 3"]:
    """A smooth path through places: a Catmull-Rom spline.

    Args:
        random: Source of the random numbers.
        places: At least two, in mm.
        bend_mm: Standard deviation by which a further place in the middle of each part lies beside it.
    """
    knots = [np.asarray(places[0], float)]
    for place in places[1:]:
        middle = (knots[-1] + place) / 2
        knots += [middle + random.normal(0, bend_mm, 3)] * bool(bend_mm) + [np.asarray(place, float)]
    padded = np.stack([2 * knots[0] - knots[1], *knots, 2 * knots[-1] - knots[-2]])
    t = np.linspace(0, 1, 12)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:])
    ]
    return np.concatenate(parts)


def put_tube(
    ct_hu: Float[Tensor, "1 X Y Z"],
    spacing: float,
    path: Float[Array, "N 3"],
    radius: float,
    hu: float,
    inner: float = 0.0,
    inner_hu: float = 0.0,
) -> None:
    """Put a tube along a path into a CT, in place.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        path: Its middle, in mm from that of the volume.
        radius: Radius in mm.
        hu: Its density in HU.
        inner: Radius of what is inside; 0 for a massive one.
        inner_hu: Density of that.
    """
    put_points(ct_hu, spacing, *_cylinder(path, radius, spacing), hu)
    if inner:
        put_points(ct_hu, spacing, *_cylinder(path, inner, spacing), inner_hu)


def put_box(
    ct_hu: Float[Tensor, "1 X Y Z"],
    spacing: float,
    center: Float[Array, "3"],
    axes: Float[Array, "3 3"],
    sides: Sequence[float],
    hu: float,
) -> None:
    """Put a box with rounded corners, such as a pacemaker, into a CT, in place.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        center: Its middle, in mm from that of the volume.
        axes: Unit vectors along its sides, in rows.
        sides: Its sides in mm.
        hu: Its density in HU.
    """
    numbers = [max(1, round(2 * side / spacing)) for side in sides]
    lines = [(np.arange(n) + 0.5) / n * side - side / 2 for n, side in zip(numbers, sides)]
    points = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3)
    share = np.prod(np.array(sides) / numbers)
    relative = np.abs(points / (np.array(sides) / 2))
    points = points[(relative**4).sum(axis=1) <= 1.5]
    put_points(ct_hu, spacing, center + points @ axes, float(share), hu)


def put_points(
    ct_hu: Float[Tensor, "1 X Y Z"], spacing: float, points: Float[Array, "N 3"], volume: float, hu: float
) -> None:
    """Put a cloud of small volumes into a CT, in place: each is shared out among the eight voxels around it.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
        points: Their middles, in mm from that of the CT.
        volume: Of each, in mm^3.
        hu: Their density in HU.
    """
    if not len(points):
        return
    shape = ct_hu.shape[1:]
    low, high = points.min(axis=0) - spacing, points.max(axis=0) + spacing
    box = box_between(shape, spacing, low.tolist(), high.tolist())
    if box is None:
        return
    first = np.array([part.start for part in box[1:]])
    sizes = np.array([part.stop - part.start for part in box[1:]])
    index = points / spacing + (np.array(shape) - 1) / 2 - first
    floor = np.floor(index).astype(int)
    fraction, total = index - floor, np.zeros(int(sizes.prod()))
    for corner in np.ndindex(2, 2, 2):
        place = floor + corner
        weight = np.where(corner, fraction, 1 - fraction).prod(axis=1)
        inside = ((place >= 0) & (place < sizes)).all(axis=1)
        flat = np.ravel_multi_index(tuple(place[inside].T), tuple(sizes))
        total += np.bincount(flat, weight[inside], len(total))
    coverage = torch.as_tensor((total * volume / spacing**3).clip(0, 1).reshape(1, *sizes), dtype=torch.float32)
    mix(ct_hu, box, coverage.to(ct_hu.device), hu)


def _cylinder(path: Array, radius: float, spacing: float) -> tuple[Float[Array, "N 3"], float]:
    """Points of a tube along a path, half a voxel apart, and the volume of each."""
    lengths = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    number = max(2, round(2 * lengths[-1] / spacing))
    along = (np.arange(number) + 0.5) / number * lengths[-1]
    middle = np.stack([np.interp(along, lengths, axis) for axis in path.T], axis=1)
    tangent = np.gradient(middle, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True).clip(1e-9)
    other = np.eye(3)[np.abs(tangent).mean(axis=0).argmin()]
    one = np.cross(tangent, other)
    one /= np.linalg.norm(one, axis=1, keepdims=True).clip(1e-9)
    two = np.cross(tangent, one)
    across = max(1, round(4 * radius / spacing))
    line = ((np.arange(across) + 0.5) / across * 2 - 1) * radius
    u, v = (side.ravel() for side in np.meshgrid(line, line))
    disc = u**2 + v**2 <= radius**2 if across > 1 else np.array([True])
    u, v = u[disc], v[disc]
    points = middle[:, None] + u[:, None] * one[:, None] + v[:, None] * two[:, None]
    return points.reshape(-1, 3), float(np.pi * radius**2 * lengths[-1] / number / len(u))
