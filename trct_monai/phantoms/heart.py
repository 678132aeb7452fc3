"""Heart and great vessels, trachea and main bronchi, oesophagus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from trct_monai.phantoms.patient import Patient
from trct_monai.phantoms.shapes import (
    Array,
    Canvas,
    Coordinates,
    Number,
    Numbers,
    ellipsoid_distance,
    smooth_min,
    smooth_path,
)

SHEATH_FAT_HU, MYOCARDIUM_HU, WALL_HU, LUMEN_HU = -92, 52, 35, -990


@dataclass(frozen=True)
class Chamber:
    """One chamber as an ellipsoid in anatomical mm: outer radii along the rows of `axes`, thickness of the wall."""

    center: Array
    radii: Array
    axes: Array
    wall: float


def heart_center(patient: Patient) -> Array:
    """Middle of the heart in anatomical mm at this phase; between the diaphragm and the carina."""
    size = patient.heart_scale * patient.cardiomegaly
    z = 0.65 * (patient.rest_dome - 4 + 40 * size) + 0.35 * (patient.carina - 52) + 0.7 * patient.breath
    front, back = float(patient.front(z)), patient.spine_front(z)
    base = np.array([-17 - 30 * (patient.cardiomegaly - 1), back + 0.54 * (front - back), z])
    return np.asarray(base + patient.heart_shift)


def heart_chambers(patient: Patient) -> dict[str, Chamber]:
    """The four chambers at this phase: ventricles shrink and their walls thicken as the atria fill."""
    size, beat, middle = patient.heart_scale * patient.cardiomegaly, patient.beat, heart_center(patient)
    apex = np.asarray(patient.heart_axis)
    up = np.array([0.0, 0.0, 1.0]) - apex * apex[2]
    up /= np.linalg.norm(up)
    long = np.stack([apex, np.cross(up, apex), up])
    upright = np.eye(3)

    def chamber(offset: Numbers, radii: Numbers, axes: Array, wall: Number, ejection: Number) -> Chamber:
        """Offset, radii and wall in mm for a heart of size 1; `ejection`: share of the radii lost in systole."""
        thickening = 1 + 0.35 * beat * (ejection > 0)
        outer = size * (1 - ejection * beat) * np.asarray(radii, float)
        return Chamber(middle + size * np.asarray(offset), outer, axes, float(wall * size * thickening))

    return {
        "right_atrium": chamber((38, 0, 4), (25, 28, 33), upright, 3, -0.05),
        "left_atrium": chamber((0, -30, 19), (34, 20, 23), upright, 3, -0.06),
        "right_ventricle": chamber((4, 24, -10), (50, 25, 34), long, 4.5, 0.07),
        "left_ventricle": chamber((-24, 2, -3), (50, 32, 33), long, 11, 0.09),
    }


def heart_distance(patient: Patient, point: Coordinates) -> Array:
    """Distance in mm to the epicardium from anatomical coordinates."""
    surfaces = [ellipsoid_distance(point, c.center, c.radii, c.axes) for c in heart_chambers(patient).values()]
    epicardium: Array = reduce(lambda a, b: smooth_min(a, b, 9), surfaces)
    return epicardium


def paint_heart(canvas: Canvas, patient: Patient, fields: dict[str, Array]) -> None:
    """Pericardial fat, myocardium and blood, kept inside the cage and above the diaphragm."""
    chambers = heart_chambers(patient)
    centers = np.stack([c.center for c in chambers.values()])
    reach = max(max(c.radii) for c in chambers.values()) + 10
    corners = patient.to_world(np.stack([centers.min(0), centers.max(0)]))
    box = canvas.box(corners.min(0) - reach, corners.max(0) + reach)
    if not canvas.ct_hu[box].size:
        return
    point = patient.from_world(*canvas.coordinates(box))
    room = np.maximum(fields["cage"][box] + 3, fields["diaphragm"][box] + 2)
    heart = heart_distance(patient, point)
    fat = np.maximum(heart - np.float32(4 + 0.15 * patient.fat), room)
    canvas.paint(box, canvas.coverage(fat), SHEATH_FAT_HU)
    canvas.paint(box, canvas.coverage(np.maximum(heart, room)), MYOCARDIUM_HU, "heart")
    for chamber in chambers.values():
        blood = ellipsoid_distance(point, chamber.center, chamber.radii - chamber.wall, chamber.axes)
        canvas.paint(box, canvas.coverage(np.maximum(blood, room + 2)), patient.blood_hu, "heart")


def _tube(points: Sequence[Numbers], radii: Numbers, steps: int = 3) -> tuple[Array, Array]:
    """Smooth centre line through anatomical points (mm) with the radius (mm) at each of its own points."""
    path = smooth_path(points, steps)
    share = np.linspace(0, len(radii) - 1, len(path))
    return path, np.interp(share, np.arange(len(radii)), np.asarray(radii, float))


def great_vessels(patient: Patient) -> dict[str, tuple[Array, Array]]:
    """Centre lines (N, 3) in anatomical mm and radii (N,) in mm of the great vessels."""
    heart, size = heart_center(patient), patient.heart_scale
    carina, arch = patient.carina, patient.carina + 26
    front, back = float(patient.front(arch)), patient.spine_front(arch)
    middle = back + 0.45 * (front - back)
    cava_y = middle + 8
    dome, neck, top = patient.rest_dome + patient.breath, patient.apex + 10, patient.apex + 110
    fork = np.array([-15, middle + 2, carina - 14])
    vessels = {"aorta": _aorta(patient, heart, middle)}
    vessels["pulmonary_trunk"] = _tube(
        [heart + size * np.array([-14, 28, 20]), [-22, middle + 18, carina - 16], fork], [14, 14, 12]
    )
    right: list[Numbers] = [fork, [12, middle - 4, carina - 20], [42, middle - 16, carina - 24]]
    left: list[Numbers] = [fork, [-28, middle - 8, carina - 4], [-42, middle - 20, carina - 10]]
    vessels["pulmonary_right"], vessels["pulmonary_left"] = _tube(right, [12, 11, 9]), _tube(left, [12, 11, 9])
    junction: Numbers = [27, cava_y + 6, arch + 16]
    vessels["superior_cava"] = _tube(
        [heart + size * np.array([34, -2, 24]), [31, cava_y, carina - 10], [29, cava_y + 4, carina + 22], junction],
        [11, 10, 9, 9],
    )
    behind = patient.spine_front(dome)
    vessels["inferior_cava"] = _tube(
        [heart + size * np.array([34, -8, -18]), [27, behind + 26, dome - 10], [20, behind + 16, -200]], [13, 13, 12]
    )
    crossing: list[Numbers] = [junction, [0, front - 22, arch + 24], [-34, front - 26, arch + 38]]
    vessels["left_innominate"] = _tube(crossing, [8, 7.5, 7])
    inlet_y, neck_y = patient.spine_front(neck), patient.spine_front(top) + 20
    branches = (("brachiocephalic", 6, 24, 4), ("left_carotid", -8, -26, -4), ("left_subclavian", -18, -34, -12))
    for name, x, tip, dy in branches:
        course = [[x, middle + dy, arch + 4], [0.5 * (x + tip), inlet_y + 18, neck], [tip, neck_y, top]]
        vessels[name] = _tube(course, [6.5, 5.5, 4.5])
    for name, x in (("right_jugular", 33), ("left_jugular", -35)):
        vessels[name] = _tube([[0.9 * x, inlet_y + 26, arch + 30], [x, neck_y + 6, top]], [6, 6])
    return vessels


def _aorta(patient: Patient, heart: Array, middle: Number) -> tuple[Array, Array]:
    """Root, ascent on the right, arch over the left main bronchus, descent to the left of the spine."""
    arch, carina, size = patient.carina + 26, patient.carina, patient.heart_scale
    rest_y, rest_z = heart[1], heart[2] - 0.7 * patient.breath
    rising = [
        heart + size * np.array([-2, 2, 22]),
        np.array([11, rest_y + 12 * size, (rest_z + 24 * size + carina) / 2]),
        np.array([15, middle + 12, arch - 24]),
        np.array([7, middle + 4, arch - 3]),
        np.array([-10, middle - 10, arch + 2]),
    ]
    falling = [np.array([-24, patient.spine_front(arch) + 2, arch - 6])]
    for share, z in zip([0, *np.linspace(0, 1, 7)], [arch - 24, *np.linspace(arch - 40, -200, 7)], strict=True):
        x, y = patient.spine(z)
        falling.append(np.array([0.9 * float(x) - 25 + 8 * share, float(y) + 11 + 8 * share, z]))
    wide, slim = 1.05 * patient.aorta_radius, 0.9 * patient.aorta_radius
    return _tube([*rising, *falling], [wide] * len(rising) + [slim] * len(falling))


def airway_paths(patient: Patient) -> dict[str, tuple[Array, Array]]:
    """Trachea and main bronchi: centre lines (N, 3) in anatomical mm and radii (N,) of the lumen in mm."""
    z, y, top = patient.carina, patient.spine_front(patient.carina) + 17, patient.apex + 110
    lumen = 8.2 if patient.sex == "male" else 7.2
    above = [[0, patient.spine_front(top) + 16, top], [1, patient.spine_front(patient.apex) + 15, patient.apex]]
    return {
        "trachea": _tube([*above, [2, y, z + 12], [2, y, z]], [lumen, lumen, lumen, lumen + 0.5], 4),
        "right": _tube([[2, y, z + 2], [17, y - 3, z - 14], [33, y - 8, z - 28]], [7.5, 6.8, 5.5], 4),
        "left": _tube([[2, y, z + 2], [-16, y - 4, z - 11], [-38, y - 10, z - 24]], [6.8, 6, 5], 4),
    }


def paint_vessels(canvas: Canvas, patient: Patient) -> None:
    """Great vessels, each in a sheath of fat that keeps the lung off, then oesophagus and central airways."""
    vessels = {name: (patient.to_world(path), radii) for name, (path, radii) in great_vessels(patient).items()}
    for path, radii in vessels.values():
        box, sheath = canvas.chain(path, radii + 3.0)
        keep = 1 - np.maximum(canvas.organ("heart")[box], canvas.organ("liver")[box])
        canvas.paint(box, sheath * keep, SHEATH_FAT_HU + 20)
    for name, (path, radii) in vessels.items():
        box, lumen = canvas.chain(path, radii)
        lumen *= 1 - canvas.organ("heart")[box]
        canvas.paint(box, lumen, patient.blood_hu, *(["aorta"] if name == "aorta" else []))

    heights = np.linspace(patient.apex + 110, -180, 12)
    spine_x, spine_y = patient.spine(heights)
    gullet = np.stack([0.8 * spine_x - 4, spine_y + 22, heights], axis=-1)
    box, tube = canvas.chain(patient.to_world(gullet), 7.0)
    canvas.paint(box, tube, WALL_HU)

    airways = {name: (patient.to_world(path), radii) for name, (path, radii) in airway_paths(patient).items()}
    for margin, hu in ((4.0, SHEATH_FAT_HU + 20), (1.6, WALL_HU), (0.0, LUMEN_HU)):
        for path, radii in airways.values():
            box, tube = canvas.chain(path, radii + margin)
            canvas.paint(box, tube, hu, *(["airways"] if margin == 0 else []))
