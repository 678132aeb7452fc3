"""Body wall, lungs, diaphragm and abdomen: the large shapes, evaluated over the whole volume."""

from __future__ import annotations

import numpy as np

from trct_monai.phantoms.patient import LEVELS, SIDES, Patient, stream
from trct_monai.phantoms.shapes import (
    Array,
    Canvas,
    Coordinates,
    Number,
    Numbers,
    ellipsoid_distance,
    in_double,
    segment_offset,
    smooth_curve,
    smooth_min,
    smoothstep,
    superellipse_distance,
)

SKIN_HU, FAT_HU, MUSCLE_HU, GLAND_HU = 30, -102, 52, 15
LIVER_HU, SPLEEN_HU, STOMACH_HU, KIDNEY_HU = 60, 50, 35, 35
FLANK_WALL = (12, 12, 13, 16, 24, 40, 58, 58, 26, 10)  # muscle and shoulder outside the cage, mm at LEVELS
FRONT_WALL = (22, 18, 17, 18, 22, 28, 31, 33, 37, 40)
BACK_WALL = (32, 31, 30, 30, 31, 33, 33, 31, 26, 24)


def body_distance(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance in mm to the skin; `z` varies along the last axis only."""
    t = patient.level(z)
    a, _, _ = patient.cage_axes(z)
    belly = 1 + 0.9 * smoothstep(t, 0.35, -0.2)
    neck = 1 - 0.55 * smoothstep(t, 0.95, 1.2)
    broad = 1.0 if patient.arms_up else 0.8
    flank = a + smooth_curve(t, LEVELS, FLANK_WALL) * broad * (0.75 + 0.25 * patient.muscle) + patient.fat * neck
    front = patient.front(z) + smooth_curve(t, LEVELS, FRONT_WALL) + 0.8 * patient.fat * belly * neck
    back = patient.back(z) - smooth_curve(t, LEVELS, BACK_WALL) - 0.55 * patient.fat * neck
    half, center = ((front - back) / 2).astype(np.float32), ((front + back) / 2).astype(np.float32)
    body = superellipse_distance(x, y - center, flank.astype(np.float32), half, 2.5)
    for side in SIDES.values():
        if patient.arms_up:
            shoulder = np.array([side * (patient.width + 8), patient.back(patient.apex) + 28, patient.apex - 22])
            elbow = np.array([side * (patient.width + 38), patient.back(patient.apex) + 40, patient.apex + 120])
            offset, _ = segment_offset((x, y, z), shoulder, elbow)
            arm = np.sqrt(sum(o * o for o in offset)) - np.float32(34 + 0.5 * patient.fat)
            body = smooth_min(body, arm, 24)
        if patient.breast:
            body = smooth_min(body, breast_distance(patient, side, (x, y, z)), 16)
    return body


def breast_distance(patient: Patient, side: int, point: Coordinates) -> Array:
    """Distance in mm to one breast, flattened as in the supine patient."""
    z = patient.bottom + 0.44 * patient.height
    center = np.array([side * 0.56 * patient.width, float(patient.front(z)) + 2 + 0.4 * patient.fat, z])
    radii = (patient.breast, 0.75 * patient.breast, patient.breast * 0.95)
    return ellipsoid_distance(point, center, radii)


def diaphragm_distance(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """Signed distance in mm to the diaphragm's upper surface, positive in the abdomen."""
    dome = patient.rest_dome + patient.breath
    fall = 0.78 * (dome - patient.bottom)
    surfaces = []
    for side, lower in ((1, 0.0), (-1, patient.dome_difference)):
        dx = side * x - np.float32(0.5 * patient.width)
        dy = y - np.float32(0.05 * patient.depth)
        rx = np.where(dx > 0, np.float32(0.5 * patient.width), np.float32(0.8 * patient.width))
        ry = np.where(dy > 0, np.float32(0.62 * patient.depth), np.float32(0.5 * patient.depth))
        r2 = (dx / rx) ** 2 + (dy / ry) ** 2 + np.float32(1e-4)
        root = np.sqrt(np.sqrt(r2))
        drop = np.float32(fall) * r2 * root
        slope = 2.5 * np.float32(fall) * root * np.sqrt((dx / rx**2) ** 2 + (dy / ry**2) ** 2)
        surfaces.append((np.float32(dome - lower) - drop - z) / np.sqrt(1 + slope * slope))
    return -smooth_min(-surfaces[0], -surfaces[1], 12)


def mediastinum_distance(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance in mm to the tissue between the lungs, heart and vessels apart: septum and paravertebral tissue."""
    t = patient.level(z)
    middle = smooth_curve(t, (0, 0.35, 0.5, 0.62, 0.72, 0.8, 0.9, 1.0), (20, 16, 17, 20, 22, 21, 20, 19))
    retrosternal = smooth_curve(t, (0, 0.4, 0.5, 0.75, 0.86, 1.0), (14, 9, 5, 7, 20, 22))
    front = patient.front(z).astype(np.float32)
    ahead = smoothstep(y - front, -55, -18).astype(np.float32)
    half = middle.astype(np.float32) * (1 - ahead) + retrosternal.astype(np.float32) * ahead
    septum = np.abs(x) - half
    spine_x, spine_y = (v.astype(np.float32) for v in patient.spine(z))
    column = superellipse_distance(x - spine_x, y - spine_y + 4, 24.0, 22.0, 2.0)
    return smooth_min(septum, column, 10)


def lung_distance(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """Distance in mm to the two lungs as the cage, diaphragm and mediastinum's midline bound them."""
    return _lung_distance(patient, x, y, z, patient.cage_distance(x, y, z), diaphragm_distance(patient, x, y, z))


def _lung_distance(patient: Patient, x: Array, y: Array, z: Array, cage: Array, diaphragm: Array) -> Array:
    ax = np.abs(x) - np.float32(0.36 * patient.width)
    ay = y - (patient.back(z) + 0.27 * patient.depth).astype(np.float32)
    curvature = np.float32(1 / 34)
    r2 = ax * ax + ay * ay
    apex = (z - np.float32(patient.apex) + r2 * curvature / 2) / np.sqrt(1 + r2 * curvature**2)
    hull = -smooth_min(-(cage + 1), -apex, 8)
    lungs: Array = np.maximum(np.maximum(hull, diaphragm), -mediastinum_distance(patient, x, y, z))
    return lungs


def plane_waves(canvas: Canvas, rng: np.random.Generator, number: int, shortest: Number, longest: Number) -> Array:
    """Smooth random texture of unit variance: plane waves with wavelengths in mm, the same at every voxel size."""
    result = np.zeros((canvas.size,) * 3, np.float32)
    for _ in range(number):
        direction = rng.normal(size=3)
        length = np.exp(rng.uniform(np.log(shortest), np.log(longest)))
        wave = direction / np.linalg.norm(direction) * 2 * np.pi / length
        start = rng.uniform(0, 2 * np.pi)
        px, py, pz = (np.exp(1j * w * canvas.axis.astype(float)) for w in wave)
        blur = np.prod(np.sinc(wave * canvas.spacing / (2 * np.pi)))  # mean of the wave over a voxel
        plane = px[:, None] * py[None, :] * (blur * np.exp(1j * start) * np.sqrt(2 / number))
        plane, pz = plane[..., None].astype(np.complex64), pz.astype(np.complex64)
        result += plane.real * pz.real - plane.imag * pz.imag
    return result


def paint_trunk(canvas: Canvas, patient: Patient) -> dict[str, Array]:
    """Skin, fat, muscle, lungs and abdomen; returns the distance fields by which later organs are clipped."""
    box = canvas.everywhere
    x, y, z = patient.from_world(*canvas.coordinates(box))
    texture = plane_waves(canvas, stream(patient.seed, "texture"), 16, 11, 60)
    cage = _steepen(canvas, patient.cage_distance(x, y, z))
    diaphragm = diaphragm_distance(patient, x, y, z)
    body = _steepen(canvas, body_distance(patient, x, y, z))

    canvas.paint(box, canvas.coverage(body), SKIN_HU, "body")
    canvas.paint(box, canvas.coverage(body + 2), FAT_HU + 7 * texture)
    if patient.breast:
        for side in SIDES.values():
            gland = np.maximum(breast_distance(patient, side, (x, y, z)) + 9 + 0.25 * patient.fat, 10 - cage)
            canvas.paint(box, canvas.coverage(gland) * np.clip(0.55 + 0.4 * texture, 0, 1), GLAND_HU)
    wall = np.maximum(cage - _muscle_thickness(patient, x, y, z), body + np.float32(5 + 0.25 * patient.fat))
    canvas.paint(box, canvas.coverage(wall), MUSCLE_HU + 9 * texture)
    canvas.paint(box, canvas.coverage(np.maximum(cage, z - np.float32(patient.apex))), FAT_HU + 12 + 8 * texture)

    lungs = _lung_distance(patient, x, y, z, cage, diaphragm)
    parenchyma = np.float32(patient.lung_hu) - np.float32(0.32) * y + 13 * texture
    canvas.paint(box, canvas.coverage(lungs), parenchyma, "lungs")
    _paint_fissures(canvas, patient, x, y, z)
    _paint_abdomen(canvas, patient, (x, y, z), cage, diaphragm, texture)
    return {"cage": cage, "diaphragm": diaphragm, "body": body}


def _steepen(canvas: Canvas, distance: Array) -> Array:
    """A distance measured in the axial plane, corrected to first order for the slope of its surface along z."""
    steep: Array = distance / np.sqrt(1 + np.gradient(distance, canvas.spacing, axis=2) ** 2)
    return steep


def _muscle_thickness(patient: Patient, x: Array, y: Array, z: Array) -> Array:
    """Depth in mm of the muscle outside the cage: pectoral, paraspinal and shoulder muscles on an even layer."""
    t = patient.level(z)
    _, _, center = patient.cage_axes(z)
    ahead = smoothstep(y - center.astype(np.float32), -10, 30).astype(np.float32)
    pectoral = (11 * smoothstep(t, 0.45, 0.65) * smoothstep(t, 1.0, 0.85)).astype(np.float32) * ahead
    lateral = in_double(np.exp, -(((np.abs(x) - 34) / 20) ** 2))
    paraspinal = 22 * lateral * (1 - ahead)
    shoulder = (34 * smoothstep(t, 0.6, 0.95)).astype(np.float32) * smoothstep(np.abs(x), 40, 100).astype(np.float32)
    thickness: Array = np.float32(patient.muscle) * (8 + pectoral + paraspinal + shoulder) + 5
    return thickness


def _paint_fissures(canvas: Canvas, patient: Patient, x: Array, y: Array, z: Array) -> None:
    """Oblique fissure of each lung and the right horizontal one: sheets about a millimetre thick."""
    rng = stream(patient.seed, "fissures")
    lungs = canvas.organ("lungs")
    shift = patient.breathing_shift(z).astype(np.float32)
    for side in SIDES.values():
        start, slope, bow = rng.normal(0.2, 0.02), rng.normal(0.82, 0.06), rng.normal(7, 3)
        back = -0.5 * patient.depth
        wave = bow * in_double(np.sin, (side * x - 60) / 30)
        sheet = patient.apex - start * patient.height - slope * (y - back) + wave + shift
        oblique = ((z - sheet) / np.sqrt(1 + slope * slope)).astype(np.float32)
        sheets = [(oblique, side * x > 0)]
        if side > 0:
            level = patient.apex - rng.normal(0.47, 0.02) * patient.height
            flat = np.float32(level) + shift + np.float32(0.06) * (y + x) - z
            sheets.append((flat, (x > 0) & (oblique > 0)))
        for distance, where in sheets:
            thin = canvas.coverage(distance - 0.6) - canvas.coverage(distance + 0.6)
            canvas.paint(canvas.everywhere, thin * lungs * where, -450, inside="lungs")


def _paint_abdomen(
    canvas: Canvas, patient: Patient, point: Coordinates, cage: Array, diaphragm: Array, texture: Array
) -> None:
    """Diaphragm muscle, abdominal fat, liver, spleen, stomach with gas, kidneys; all move with the diaphragm."""
    reach = patient.rest_dome + patient.breath + 3
    depth = int(np.searchsorted(canvas.axis, reach)) + 1
    if depth <= 1:
        return
    box = (slice(0, canvas.size), slice(0, canvas.size), slice(0, depth))
    x, y, z = point[0][..., :depth], point[1][..., :depth], point[2][..., :depth]
    cage, below, texture = cage[..., :depth], -diaphragm[..., :depth], texture[..., :depth]
    rng = stream(patient.seed, "organs")
    inside = np.maximum(cage + 2, below + 3)
    canvas.paint(box, canvas.coverage(np.maximum(cage, below)), MUSCLE_HU)
    canvas.paint(box, canvas.coverage(inside), FAT_HU + 5 + 8 * texture)

    w, d, s = patient.width, patient.depth, patient.liver_scale
    dome = patient.rest_dome + patient.breath
    low = dome - patient.dome_difference
    jitter = rng.normal(0, 4, size=(6, 3))

    def organ(center: Numbers, radii: Numbers, which: int) -> Array:
        return ellipsoid_distance((x, y, z), np.add(center, jitter[which]), radii)

    for side in SIDES.values():
        kidney = organ((side * 0.5 * w, -0.22 * d, dome - 88), (27, 24, 48), 5)
        canvas.paint(box, canvas.coverage(np.maximum(kidney, inside)), KIDNEY_HU)
    spleen = organ((-0.74 * w, -0.22 * d, low - 48), (34 * s, 44 * s, 46 * s), 2)
    canvas.paint(box, canvas.coverage(np.maximum(spleen, inside)), SPLEEN_HU + 4 * texture)
    stomach = np.maximum(organ((-0.5 * w, 0.12 * d, low - 44), (36, 38, 46), 3), inside)
    canvas.paint(box, canvas.coverage(stomach), MUSCLE_HU)
    canvas.paint(box, canvas.coverage(stomach + 4), STOMACH_HU)
    level = 0.12 * d + float(rng.uniform(-22, 16))  # the patient lies on the back: gas rises to the front
    canvas.paint(box, canvas.coverage(np.maximum(stomach + 4, np.float32(level) - y)), -980)
    right = organ((0.5 * w, 0.0, dome - 62 * s), (0.66 * w * s, 0.6 * d * s, 84 * s), 0)
    left = organ((-0.02 * w, 0.2 * d, dome - 46), (0.52 * w * s, 0.3 * d * s, 30 * s), 1)
    liver = np.maximum(smooth_min(right, left, 24), inside)
    canvas.paint(box, canvas.coverage(liver), LIVER_HU + 5 * texture, "liver")
