"""Arteries, veins and bronchi of the lungs: trees grown by halving a cloud of end points."""

from __future__ import annotations

import numpy as np

from trct_monai.phantoms.heart import airway_paths, great_vessels, heart_center, heart_distance
from trct_monai.phantoms.patient import SIDES, Patient, stream
from trct_monai.phantoms.shapes import Array, Canvas, Number
from trct_monai.phantoms.trunk import lung_distance


def grow_tree(root: Array, tips: Array, stride: Number) -> tuple[Array, Array, Array]:
    """Branches from a root to every tip: starts (N, 3), ends (N, 3) and the number of tips that each one feeds.

    Each branch runs the share `stride` of the way to the middle of its tips, then splits them across their widest axis.
    """
    starts, ends, loads = [], [], []
    waiting = [(np.asarray(root, float), tips)]
    while waiting:
        origin, cloud = waiting.pop()
        target = cloud[0] if len(cloud) == 1 else origin + stride * (cloud.mean(0) - origin)
        starts.append(origin)
        ends.append(target)
        loads.append(len(cloud))
        if len(cloud) > 1:
            spread = cloud - cloud.mean(0)
            axis = np.linalg.eigh(spread.T @ spread)[1][:, -1]
            order = np.argsort(spread @ axis, kind="stable")
            half = len(cloud) // 2
            waiting += [(target, cloud[order[:half]]), (target, cloud[order[half:]])]
    return np.array(starts), np.array(ends), np.array(loads)


def lung_points(patient: Patient, rng: np.random.Generator, side: int, number: int, depth: Number) -> Array:
    """(number, 3) points inside one lung at rest, at least `depth` mm from its surface and off the heart.

    `patient` must be the healthy one at phase 0, so that neither motion nor a finding changes which points are kept.
    """
    low = np.array([0, -0.55 * patient.depth, patient.bottom])
    high = np.array([1.05 * patient.width, 0.55 * patient.depth, patient.apex])
    kept: list[Array] = []
    found = 0
    while found < number:
        x, y, z = np.moveaxis(rng.uniform(low, high, size=(max(4 * number, 64), 3)), -1, 0)
        inside = lung_distance(patient, side * x, y, z) < -depth
        inside &= heart_distance(patient, (side * x, y, z)) > depth + 3
        kept.append(np.stack([side * x, y, z], axis=-1)[inside])
        found += int(inside.sum())
    return np.concatenate(kept)[:number]


def paint_lung_trees(canvas: Canvas, patient: Patient, rest: Patient) -> None:
    """Lobar bronchi, arteries and veins, grown in the patient at rest and moved by breathing."""
    rng = stream(patient.seed, "vessels")
    vessels, center = great_vessels(rest), heart_center(rest)
    lungs = canvas.organ("lungs")

    def branches(root: Array, tips: Array, stride: Number) -> tuple[Array, Array, Array]:
        starts, ends, loads = grow_tree(root, tips, stride)
        for points in (starts, ends):
            points[:, 2] += patient.breathing_shift(points[:, 2])
        return patient.to_world(starts), patient.to_world(ends), loads

    for name, side in SIDES.items():
        artery, bronchus = vessels[f"pulmonary_{name}"][0][-1], airway_paths(rest)[name][0][-1]
        vein = center + rest.heart_scale * np.array([side * 34, -34, 17])
        tips = lung_points(rest, rng, side, 320, 3)
        hu = 45.0 + 0.8 * (patient.blood_hu - 45)
        for root, share, leaf, power in ((artery, slice(0, 320, 1), 0.72, 0.36), (vein, slice(0, 320, 2), 0.7, 0.36)):
            starts, ends, loads = branches(root, tips[share] + rng.normal(0, 2, size=tips[share].shape), 0.5)
            radii = leaf * loads**power
            box, coverage = canvas.tubes(starts, ends, radii, np.maximum(0.86 * radii, 0.5))
            canvas.paint(box, coverage * lungs[box], hu, inside="lungs")
        starts, ends, loads = branches(bronchus, lung_points(rest, rng, side, 20, 22), 0.55)
        radii = 1.15 * loads**0.46
        for extra, tissue in ((1.1, -150.0), (0.0, -985.0)):
            box, coverage = canvas.tubes(starts, ends, radii + extra, 0.85 * radii + extra)
            canvas.paint(box, coverage * lungs[box], tissue, *([] if extra else ["airways"]), inside="lungs")
