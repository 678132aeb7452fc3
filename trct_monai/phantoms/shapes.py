"""Signed distances in mm, and a canvas that paints them as antialiased HU.

Every shape is a signed distance (negative inside). A voxel's coverage is the ramp `clip(0.5 - distance / spacing)`: the
share of the voxel inside the shape, to first order. So a shape has the same place and volume at every voxel size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Number = float | int
Numbers = Sequence[Number] | Array
Box = tuple[slice, slice, slice]
Coordinates = tuple[Array, Array, Array]


def in_double(function: Callable[..., Array], value: Array, *arguments: Number) -> Array:
    """``function(value, *arguments)`` by way of double precision, in the value's own type.

    Powers, exponentials and sines in single precision differ in their last bits between processors; rounded from double
    precision they are the same, and so are the phantoms.
    """
    return np.asarray(function(value.astype(float), *arguments).astype(value.dtype))


def smoothstep(value: Array | Number, start: Number, end: Number) -> Array:
    """Smooth rise from 0 at `start` to 1 at `end` (`end` may be the smaller one)."""
    ratio = np.clip((np.asarray(value) - start) / (end - start), 0, 1)
    return np.asarray(ratio * ratio * (3 - 2 * ratio))


def smooth_curve(position: Array | Number, knots: Numbers, values: Numbers) -> Array:
    """Cubic Hermite curve through (knots, values), constant outside; tangents from the neighbouring knots."""
    t, v = np.asarray(knots, float), np.asarray(values, float)
    slope = np.gradient(v, t)
    p = np.clip(np.asarray(position, float), t[0], t[-1])
    i = np.clip(np.searchsorted(t, p, side="right") - 1, 0, len(t) - 2)
    step = t[i + 1] - t[i]
    u = (p - t[i]) / step
    start, end = (1 + 2 * u) * (1 - u) ** 2, u * u * (3 - 2 * u)
    bend = u * (1 - u) * step * ((1 - u) * slope[i] - u * slope[i + 1])
    return np.asarray(start * v[i] + end * v[i + 1] + bend)


def smooth_min(a: Array | Number, b: Array | Number, width: Number) -> Array:
    """Union of two distances with a fillet about `width` mm wide (polynomial smooth minimum)."""
    blend = np.maximum(width - np.abs(a - b), 0) / width
    return np.asarray(np.minimum(a, b) - blend * blend * (width / 4))


def superellipse_distance(x: Array, y: Array, a: Array | Number, b: Array | Number, exponent: Number) -> Array:
    """First-order distance in mm to ``|x/a|^n + |y/b|^n = 1`` in the plane; `a`, `b` half axes in mm, maybe by z."""
    u, v = np.maximum(np.abs(x), 1e-3), np.maximum(np.abs(y), 1e-3)
    un, vn = in_double(np.power, u / a, exponent), in_double(np.power, v / b, exponent)
    total = un + vn
    gauge = in_double(np.power, total, 1 / exponent)
    distance: Array = (gauge - 1) * total / (gauge * np.sqrt((un / u) ** 2 + (vn / v) ** 2))
    return distance


def ellipsoid_distance(point: Coordinates, center: Array, radii: Numbers, axes: Array | None = None) -> Array:
    """First-order distance in mm to an ellipsoid; rows of `axes` are the unit directions of the `radii` (mm)."""
    offset = [p - c for p, c in zip(point, center, strict=True)]
    axes = np.eye(3) if axes is None else axes
    gauge2: Array | float = 0.0
    slope2: Array | float = 0.0
    for axis, radius in zip(axes, radii, strict=True):
        along = sum(np.float32(w) * o for w, o in zip(axis, offset, strict=True) if abs(w) > 1e-9)
        scaled = (along / np.float32(radius)) ** 2
        gauge2 = gauge2 + scaled
        slope2 = slope2 + scaled / np.float32(radius) ** 2
    gauge = np.sqrt(gauge2)
    distance: Array = gauge * (gauge - 1) / np.maximum(np.sqrt(slope2), np.float32(1e-6))
    return distance


def segment_offset(point: Coordinates, start: Array, end: Array) -> tuple[list[Array], Array]:
    """Vector from the nearest point of a segment, and that point's place along it in [0, 1]."""
    direction = (end - start).astype(np.float32)
    length2 = np.float32(max(float(direction @ direction), 1e-9))
    offset = [p - np.float32(s) for p, s in zip(point, start, strict=True)]
    along = np.clip(sum(o * d for o, d in zip(offset, direction, strict=True)) / length2, 0, 1)
    return [o - along * d for o, d in zip(offset, direction, strict=True)], along


def tube_gain(radius: Array | Number, spacing: Number) -> Array:
    """Factor that gives a ramp-edged disc of `radius` mm its true area pi r^2 when voxels measure `spacing` mm.

    The plain ramp covers pi (r^2 + h^2 / 12), or pi (r + h / 2)^3 / (3 h) if r < h / 2: far too much for thin vessels.
    """
    r, h = np.asarray(radius, float), spacing
    return np.asarray(r * r / np.where(r >= h / 2, r * r + h * h / 12, (r + h / 2) ** 3 / (3 * h)))


class Canvas:
    """A cubic HU volume in world mm, painted shape by shape, with the share of each voxel that is each organ."""

    def __init__(self, size: int, extent: float) -> None:
        self.size, self.spacing = size, extent / size
        self.axis = ((np.arange(size) - (size - 1) / 2) * self.spacing).astype(np.float32)
        self.ct_hu = np.full((size,) * 3, -1000, np.float32)
        self.organs: dict[str, Array] = {}

    def box(self, lower: Array, upper: Array) -> Box:
        """Voxels whose coverage can differ from zero for a shape between two corners (mm); may be empty."""
        low, high = self.bounds(lower, upper)
        i, j, k = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        return i, j, k

    def bounds(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """First voxel and the one after the last, along each axis, of `box`; for any number of boxes (..., 3)."""
        low = np.ceil((lower - self.axis[0]) / self.spacing - 1)
        high = np.floor((upper - self.axis[0]) / self.spacing + 2)
        low = np.clip(low, 0, self.size).astype(int)
        return low, np.maximum(np.clip(high, 0, self.size).astype(int), low)

    @property
    def everywhere(self) -> Box:
        return (slice(0, self.size),) * 3

    def coordinates(self, box: Box) -> Coordinates:
        """World coordinates in mm of a box, shaped to broadcast."""
        i, j, k = box
        return self.axis[i, None, None], self.axis[None, j, None], self.axis[None, None, k]

    def coverage(self, distance: Array) -> Array:
        """Share of each voxel inside a shape, from its signed distance in mm."""
        return np.clip(np.float32(0.5) - distance / np.float32(self.spacing), 0, 1).astype(np.float32, copy=False)

    def organ(self, name: str) -> Array:
        """Coverage of an organ painted so far (zeros where none was)."""
        if name not in self.organs:
            self.organs[name] = np.zeros_like(self.ct_hu)
        return self.organs[name]

    def paint(self, box: Box, coverage: Array, hu: Array | Number, *organs: str, inside: str = "body") -> None:
        """Blend `hu` over the volume; add the coverage to `organs`, take it from all but the body and `inside`."""
        target = self.ct_hu[box]
        target += coverage * (hu - target)
        self._claim(box, coverage, organs, inside)

    def _claim(self, box: Box, coverage: Array, organs: tuple[str, ...], inside: str) -> None:
        for name in organs:
            np.maximum(self.organ(name)[box], coverage, out=self.organ(name)[box])
        for name in self.organs.keys() - {"body", inside, *organs}:
            self.organs[name][box] *= 1 - coverage

    def paint_bone(
        self,
        box: Box,
        distance: Array,
        cortex_hu: Number,
        marrow_hu: Number,
        thickness: Number,
        gain: Number,
        *organs: str,
    ) -> None:
        """A cortical shell `thickness` mm deep around marrow; thinner than a voxel it keeps its mean density."""
        outer, inner = self.coverage(distance) * gain, self.coverage(distance + thickness) * gain
        target = self.ct_hu[box]
        target += outer * (cortex_hu - target) + inner * np.float32(marrow_hu - cortex_hu)
        self._claim(box, outer, ("bone", *organs), "body")

    def tubes(self, starts: Array, ends: Array, start_radii: Array, end_radii: Array) -> tuple[Box, Array]:
        """Box and coverage of a union of tapered tubes with round ends: (N, 3) end points and (N,) radii, all in mm."""
        reach = np.maximum(start_radii, end_radii)[:, None]
        lower, upper = np.minimum(starts, ends) - reach, np.maximum(starts, ends) + reach
        box = self.box(lower.min(0), upper.max(0))
        corner = np.array([side.start for side in box])
        result = np.zeros([side.stop - side.start for side in box], np.float32)
        low, high = (bound - corner for bound in self.bounds(lower, upper))
        widest = (high - low).max(1)
        classes = np.ceil(2 * np.log2(np.maximum(widest, 1)))  # tubes of like size are evaluated together
        for group in np.unique(classes):
            members = np.flatnonzero((classes == group) & (high > low).all(1))
            batch = max(1, int(4e6 / 2 ** (1.5 * group)))
            for first in range(0, len(members), batch):
                index = members[first : first + batch]
                tubes = (values[index] for values in (low, high, starts, ends, start_radii, end_radii))
                self._add_tubes(result, corner, *tubes)
        return box, result

    def _add_tubes(
        self, result: Array, corner: Array, low: Array, high: Array, start: Array, end: Array, r0: Array, r1: Array
    ) -> None:
        """Raise `result`, whose first voxel is `corner`, to the coverage of each tube within its own window."""
        direction = end - start
        length2 = np.maximum((direction**2).sum(1), 1e-9)
        along, distance2, place = np.float32(0), np.float32(0), np.int64(0)
        offsets, directions = [], []
        for axis in range(3):
            window = low[:, axis, None] + np.arange((high - low)[:, axis].max())
            window = np.minimum(window, result.shape[axis] - 1)  # a maximum may take a voxel twice
            shape = [len(window), 1, 1, 1]
            shape[axis + 1] = window.shape[1]
            place = place * result.shape[axis] + window.reshape(shape)
            offset = self.axis[window + corner[axis]] - start[:, axis, None].astype(np.float32)
            offsets.append(offset.reshape(shape))
            directions.append(direction[:, axis].astype(np.float32).reshape(-1, 1, 1, 1))
            along = along + (offset * (direction[:, axis] / length2)[:, None].astype(np.float32)).reshape(shape)
        along = np.clip(along, 0, 1)
        for offset, step in zip(offsets, directions, strict=True):
            distance2 = distance2 + (offset - along * step) ** 2
        radius, taper = (r.astype(np.float32).reshape(-1, 1, 1, 1) for r in (r0, r1 - r0))
        gain = tube_gain((r0 + r1) / 2, self.spacing).astype(np.float32).reshape(-1, 1, 1, 1)
        coverage = self.coverage(np.sqrt(distance2) - radius - along * taper) * gain
        np.maximum.at(result.reshape(-1), place.ravel(), coverage.ravel())

    def chain(self, points: Array, radii: Numbers | Number) -> tuple[Box, Array]:
        """Box and coverage of one tube through (N, 3) points in mm with a radius at each."""
        radii = np.broadcast_to(np.asarray(radii, float), len(points))
        return self.tubes(points[:-1], points[1:], radii[:-1], radii[1:])


def smooth_path(points: Sequence[Numbers] | Array, steps: int) -> Array:
    """Curve through (N, 3) points in mm, each stretch cut into `steps` straight pieces."""
    points = np.asarray(points, float)
    knots = np.arange(len(points), dtype=float)
    fine = np.linspace(0, len(points) - 1, steps * (len(points) - 1) + 1)
    return np.stack([smooth_curve(fine, knots, column) for column in points.T], axis=-1)
