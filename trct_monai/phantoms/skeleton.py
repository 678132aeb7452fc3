"""Spine, ribs with their cartilage, sternum, clavicles, scapulae and humeri: cortical shells around marrow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trct_monai.phantoms.patient import SIDES, Patient, stream
from trct_monai.phantoms.shapes import (
    Array,
    Canvas,
    Number,
    Numbers,
    segment_offset,
    smooth_path,
    superellipse_distance,
    tube_gain,
)

DISC_HU, CORD_HU, CARTILAGE_HU = 85, 30, 105
RIB_REACH = (2.62, 2.62, 2.6, 2.56, 2.52, 2.48, 2.42, 2.25, 2.1, 1.95, 1.35, 0.95)  # angle of the front end, radians
RIB_DROP = (24, 38, 52, 64, 74, 82, 88, 88, 82, 74, 46, 22)  # mm from back to front end in a cage 243 mm high


@dataclass(frozen=True)
class Bone:
    """HU of cortex and marrow, the same for all bones."""

    cortex: float
    marrow: float


def vertebra_levels(patient: Patient) -> Array:
    """z of the vertebral bodies' centres in mm; index 3 is T1, 14 is T12, 0-2 cervical, from 15 on lumbar."""
    heights = np.concatenate([np.full(3, 15.0), np.linspace(18, 25.5, 12), np.linspace(28, 33, 4)])
    below = np.concatenate([[0], np.cumsum((heights[1:] + heights[:-1]) / 2)])
    scale = patient.height / 240
    levels: Array = patient.apex + 8 + scale * (below[3] - below)
    return levels


def paint_skeleton(canvas: Canvas, patient: Patient, fields: dict[str, Array]) -> None:
    """All bones; `fields` are the distances to the cage and to the skin, from `paint_trunk`."""
    bone = Bone(820 * patient.bone_density, 190 * patient.bone_density)
    paint_spine(canvas, patient, bone)
    paint_ribs(canvas, patient, bone)
    paint_girdle(canvas, patient, bone, fields)


def paint_spine(canvas: Canvas, patient: Patient, bone: Bone) -> None:
    """Vertebral bodies, discs, arches with canal, spinous and transverse processes."""
    levels = vertebra_levels(patient)
    gaps = -np.diff(levels)
    for index, z in enumerate(levels):
        height = gaps[min(index, len(gaps) - 1)]
        size = 0.78 + 0.025 * index if index < 15 else 1.16
        size *= patient.height / 240
        _paint_vertebra(canvas, patient, bone, float(z), float(height), size)
    path = np.linspace(levels[0] + 40, levels[-1] - 20, 40)
    x, y = patient.spine(path)
    box, canal = canvas.chain(patient.to_world(np.stack([x, y - 22, path], -1)), 7.5)
    canvas.paint(box, canal, CORD_HU, "spine")


def _paint_vertebra(canvas: Canvas, patient: Patient, bone: Bone, z: Number, height: Number, size: Number) -> None:
    sx, sy = (float(v) for v in patient.spine(z))
    above = [float(v) for v in patient.spine(z + 5)]
    lean = ((above[0] - sx) / 5, (above[1] - sy) / 5)  # slope of the spine's axis
    middle = patient.to_world(np.array([sx, sy, z]))
    reach = np.array([24 * size + 6, 20 * size + 6, height / 2 + 12])
    box = canvas.box(middle - reach, middle + reach)
    if canvas.ct_hu[box].size:
        x, y, zz = patient.from_world(*canvas.coordinates(box))
        along = zz - np.float32(z) + np.float32(lean[1]) * (y - sy) + np.float32(lean[0]) * (x - sx)
        dx, dy = x - np.float32(sx) - lean[0] * (zz - z), y - np.float32(sy) - lean[1] * (zz - z)
        waist = np.float32(1) - np.float32(0.09) * (1 - np.minimum((2 * along / height) ** 2, 1))
        round_body = superellipse_distance(dx, dy, 18.5 * size * waist, 14.5 * size * waist, 2.4)
        disc = np.maximum(round_body + 1.0, np.abs(along - height / 2) - 0.13 * height)
        canvas.paint(box, canvas.coverage(disc), DISC_HU, "spine")
        body = np.maximum(round_body, np.abs(along) - 0.4 * height)
        canvas.paint_bone(box, body, bone.cortex * 0.7, bone.marrow, 1.3, 1.0, "spine")
    drop = height * 0.9
    parts: list[tuple[Numbers, Numbers, float, float]] = [
        ((0, -29, -3), (0, -44 * size, -drop), 3.4, 3.0),
        ((0, -27, 4), (0, -30, -8), 4.5, 4.0),
    ]
    for side in SIDES.values():
        parts.append(((side * 11, -12, 3), (side * 12, -24, 3), 4.5, 4.5))  # pedicle
        parts.append(((side * 12, -23, 3), (side * 2, -30, -2), 4.0, 3.5))  # lamina
        parts.append(((side * 12, -23, 3), (side * 31 * size, -29, 5), 5.0, 4.2))  # transverse process
    here = np.array([sx, sy, z])
    for start, end, r0, r1 in parts:
        ends = patient.to_world(here + np.array([start, end]))
        paint_bone_path(canvas, bone, ends, [r0, r1], 1.5, "spine")


def paint_bone_path(
    canvas: Canvas, bone: Bone, path: Array, radii: Numbers | Number, thickness: Number, *organs: str
) -> None:
    """A round bone along a world path: the cortex first, then the marrow within."""
    radii = np.broadcast_to(np.asarray(radii, float), len(path))
    box, outer = canvas.chain(path, radii)
    canvas.paint(box, outer, bone.cortex, "bone", *organs)
    box, inner = canvas.chain(path, np.maximum(radii - thickness, 0.4))
    canvas.paint(box, inner, bone.marrow, "bone", *organs)


def rib_path(patient: Patient, index: int, side: int, wobble: Number) -> Array:
    """Anatomical centre line (N, 3) of one rib, from its vertebra round the cage to its front end."""
    z0 = float(vertebra_levels(patient)[3 + index])
    share = np.linspace(0, 1, 22)
    scale = patient.height / 243
    z = z0 + 5 - scale * (RIB_DROP[index] + 2 * wobble) * share**1.15 + 7 * np.sin(np.pi * share) * (share < 1)
    a, _, _ = patient.cage_axes(z0)
    start = float(np.arcsin(min((36 / float(a)) ** (2.4 / 2), 1)))
    angle = start + share * (RIB_REACH[index] - start)
    curve = patient.cage_point(angle, z, 5.0)
    near = np.exp(-((6 * share) ** 2))  # only the back of a rib follows the curved spine
    curve[:, 0] *= side
    curve[:, 0] += patient.scoliosis(z) * near
    sx, sy = (float(v) for v in patient.spine(z0 + 6))
    head = [[sx + side * 19, sy - 9, z0 + 8], [sx + side * 27, sy - 22, z0 + 7]]
    return np.concatenate([smooth_path(np.array([*head, curve[0]]), 3)[:-1], curve])


def paint_ribs(canvas: Canvas, patient: Patient, bone: Bone) -> None:
    """Twelve pairs of flattened ribs, and the cartilages that join the upper ten to the sternum."""
    wobble = stream(patient.seed, "ribs").normal(0, 1, size=12)
    top, low = _sternum_heights(patient)
    for side in SIDES.values():
        joint = np.zeros(3)
        for index in range(12):
            path = rib_path(patient, index, side, float(wobble[index]))
            slim = 0.85 if index in (0, 10, 11) else 1.0
            _paint_flat_bone(canvas, patient, bone, path, 3.4 * slim, 6.0 * slim, 1.3)
            if index < 7:  # true ribs reach the sternum
                z = max(top - 10 - 0.084 * index * patient.height, low + 4)
                joint = np.array([side * 15.0, float(patient.front(z)) + 8, z])
            if index < 10:  # false ribs reach the cartilage above
                joint = _paint_cartilage(canvas, patient, path[-1], joint)


def _paint_cartilage(canvas: Canvas, patient: Patient, rib_end: Array, joint: Array) -> Array:
    """Cartilage from a rib's front end to a joint, and where the next one below may join it (anatomical mm)."""
    middle = 0.5 * (rib_end + joint)
    middle[1] = min(float(patient.front(middle[2])) + 6, middle[1] + 8)
    box, tube = canvas.chain(patient.to_world(smooth_path([rib_end, middle, joint], 4)), 4.6)
    canvas.paint(box, tube, CARTILAGE_HU)
    return np.asarray(0.6 * middle + 0.4 * rib_end)


def _paint_flat_bone(
    canvas: Canvas, patient: Patient, bone: Bone, path: Array, thin: Number, tall: Number, cortex: Number
) -> None:
    """A bone of elliptic section along an anatomical path: half axes `thin` across the cage's wall, `tall` along it."""
    center = patient.cage_axes(path[:, 2])[2]
    outward = path - np.stack([np.zeros(len(path)), center, path[:, 2]], -1)
    world, normals = patient.to_world(path), patient.turn(outward)
    starts, ends, reach = world[:-1], world[1:], tall + canvas.spacing
    tangents = (ends - starts) / np.linalg.norm(ends - starts, axis=1, keepdims=True)
    normals = normals[:-1] + normals[1:]
    normals -= tangents * (normals * tangents).sum(1, keepdims=True)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    box = canvas.box(world.min(0) - reach, world.max(0) + reach)
    distance = np.full(canvas.ct_hu[box].shape, 1e3, np.float32)
    x, y, z = canvas.coordinates(box)
    corner = np.array([side.start for side in box])
    low, high = canvas.bounds(np.minimum(starts, ends) - reach, np.maximum(starts, ends) + reach)
    for index in np.flatnonzero((high > low).all(1)):
        i, j, k = (slice(a, b) for a, b in zip(low[index] - corner, high[index] - corner, strict=True))
        view = distance[i, j, k]
        offset, _ = segment_offset((x[i], y[:, j], z[:, :, k]), starts[index], ends[index])
        across2 = sum(np.float32(n) * o for n, o in zip(normals[index], offset, strict=True)) ** 2
        length2 = offset[0] ** 2 + offset[1] ** 2 + offset[2] ** 2
        along2 = np.maximum(length2 - across2, 0)
        gauge = np.sqrt(across2 / thin**2 + along2 / tall**2)
        slope = np.sqrt(across2 / thin**4 + along2 / tall**4)
        np.minimum(view, gauge * (gauge - 1) / np.maximum(slope, 1e-6), out=view)
    gain = float(tube_gain(np.sqrt(thin * tall), canvas.spacing))
    canvas.paint_bone(box, distance, bone.cortex, bone.marrow, cortex, gain)


def _sternum_heights(patient: Patient) -> tuple[float, float]:
    """z of the top of the manubrium and of the lower end of the sternum's body."""
    return patient.apex - 0.1 * patient.height, patient.apex - 0.66 * patient.height


def paint_girdle(canvas: Canvas, patient: Patient, bone: Bone, fields: dict[str, Array]) -> None:
    """Sternum, clavicles, scapulae and, with raised arms, the humeri."""
    top, low = _sternum_heights(patient)
    z = np.linspace(top - 4, low, 14)
    front = patient.front(z) + 8
    column = np.stack([np.zeros(14), front, z], -1)
    for part, half_width in ((slice(0, 5), 22.0), (slice(4, 14), 16.0)):
        _paint_flat_bone(canvas, patient, bone, column[part], 5.0, half_width, 1.1)
    back = float(patient.back(patient.apex))
    raise_ = 14.0 if patient.arms_up else 0.0
    for side in SIDES.values():
        w = patient.width
        medial = np.array([side * 18.0, float(patient.front(top)) + 9, top - 2])
        lateral = np.array([side * (w - 4), back + 34, top + 22 + raise_])
        bow = 0.62 * medial + 0.38 * lateral + np.array([0, 9, 3])
        hollow = 0.25 * medial + 0.75 * lateral + np.array([0, -3, 3])
        collar = patient.to_world(smooth_path([medial, bow, hollow, lateral], 5))
        paint_bone_path(canvas, bone, collar, np.linspace(7.5, 5.5, len(collar)), 1.8)
        _paint_scapula(canvas, patient, bone, fields, side, lateral)
        if patient.arms_up:
            head = np.array([side * (w + 14), back + 30, patient.apex + 6])
            shaft = np.array([side * (w + 38), back + 40, patient.apex + 120])
            paint_bone_path(canvas, bone, patient.to_world(np.stack([head, head + 1])), 21, 2)
            paint_bone_path(canvas, bone, patient.to_world(np.stack([head, shaft])), 10.5, 3.5)


def _paint_scapula(
    canvas: Canvas, patient: Patient, bone: Bone, fields: dict[str, Array], side: int, lateral: Array
) -> None:
    """A triangular blade that follows the cage's back, with spine and glenoid."""
    w, h = patient.width, patient.height
    swing = 0.1 * w if patient.arms_up else 0.0
    top, back = patient.apex, float(patient.back(patient.apex - 0.3 * h))
    medial, tip, socket = (0.5 * w, top - 0.1 * h), (0.66 * w + swing, top - 0.56 * h), (0.98 * w, top - 0.06 * h)
    corners = np.array([medial, tip, socket])  # x (of the right side) and z
    bounds = [[side * (medial[0] - 10), back - 60, tip[1]], [side * 1.2 * w, back + 70, medial[1] + 25]]
    world = patient.to_world(np.array(bounds))
    box = canvas.box(world.min(0) - 8, world.max(0) + 8)
    if canvas.ct_hu[box].size:
        x, y, z = patient.from_world(*canvas.coordinates(box))
        x = side * x
        triangle = np.full(np.broadcast_shapes(x.shape, z.shape), -1e3, np.float32)
        for (x0, z0), (x1, z1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            length = np.hypot(x1 - x0, z1 - z0)
            triangle = np.maximum(triangle, ((x - x0) * (z1 - z0) - (z - z0) * (x1 - x0)).astype(np.float32) / length)
        _, _, center = patient.cage_axes(z)
        behind = y - center.astype(np.float32) - 5
        blade = np.maximum(np.maximum(np.abs(fields["cage"][box] - 17) - 1.9, triangle), behind)
        blade = np.maximum(blade, fields["body"][box] + 6)
        canvas.paint_bone(box, blade, bone.cortex, bone.marrow, 1.2, 1.0)
    glenoid = np.array([side * (socket[0] - 2), back + 34, socket[1] - 4])
    root = np.array([side * medial[0], back - 12, medial[1] - 20])
    paint_bone_path(canvas, bone, patient.to_world(np.stack([glenoid, glenoid + 1])), 13, 2)
    acromion = lateral + np.array([side * 4, -8, 0])
    ridge = patient.to_world(smooth_path([root, 0.5 * (root + acromion) + [0, -12, 0], acromion], 3))
    paint_bone_path(canvas, bone, ridge, [3.5, 4, 4.5, 5, 5.5, 6, 7], 1.5)
