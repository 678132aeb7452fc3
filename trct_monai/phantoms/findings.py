"""Findings of a phantom, each with its ground-truth mask: they change the patient or are painted last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trct_monai.phantoms.patient import SIDES, Patient, stream
from trct_monai.phantoms.shapes import Array, Canvas
from trct_monai.phantoms.trees import lung_points

FINDINGS = ("nodule", "effusion", "cardiomegaly", "scoliosis")
PROBABILITY = {"nodule": 0.3, "effusion": 0.12, "cardiomegaly": 0.12, "scoliosis": 0.12}


def draw_findings(rest: Patient, names: Sequence[str] | None) -> Patient:
    """The patient with the named findings, or with a random choice of them for None.

    Each finding's parameters come from its own stream, so none depends on which others are present.
    """
    chance = stream(rest.seed, "findings").random(len(FINDINGS))
    if names is None:
        names = [name for name, draw in zip(FINDINGS, chance, strict=True) if draw < PROBABILITY[name]]
    drawn: dict[str, dict[str, Any]] = {}
    patient = rest
    for name in FINDINGS:
        if name not in names:
            continue
        rng = np.random.default_rng((rest.seed, 1000 + FINDINGS.index(name)))
        side = str(rng.choice(list(SIDES)))
        if name == "nodule":
            radius = float(rng.uniform(5, 14))
            center = lung_points(rest, rng, SIDES[side], 1, radius + 4)[0]
            hu = float(rng.uniform(10, 70))
            drawn[name] = {"side": side, "radius_mm": radius, "hu": hu, "rest_mm": center.tolist()}
        elif name == "effusion":
            drawn[name] = {"side": side, "depth_mm": float(rng.uniform(45, 100)), "hu": float(rng.uniform(5, 22))}
        elif name == "cardiomegaly":
            factor = float(rng.uniform(1.22, 1.42))
            drawn[name] = {"factor": factor}
            patient = replace(patient, cardiomegaly=factor)
        else:
            sign, amplitude = float(rng.choice([-1, 1])), float(rng.uniform(12, 28))
            thoracic = rest.apex - float(rng.uniform(0.35, 0.5)) * rest.height
            lumbar = rest.apex - float(rng.uniform(0.95, 1.1)) * rest.height
            counter = -float(rng.uniform(0.3, 0.8)) * amplitude
            bends = ((sign * amplitude, thoracic, float(rng.uniform(55, 75))), (sign * counter, lumbar, 50.0))
            drawn[name] = {"bends": [{"amplitude_mm": a, "z_mm": z, "width_mm": w} for a, z, w in bends]}
            patient = replace(patient, curve=bends)
    return replace(patient, findings=drawn)


def nodule_center(patient: Patient) -> Array:
    """Centre (3,) of the nodule in world mm at the patient's phase."""
    center = np.array(patient.findings["nodule"]["rest_mm"])
    center[2] += patient.breathing_shift(center[2])
    return patient.to_world(center)


def paint_findings(canvas: Canvas, patient: Patient) -> dict[str, Array]:
    """Paint fluid and nodules; masks of all the findings present."""
    masks: dict[str, Array] = {}
    lungs = canvas.organ("lungs")
    if "effusion" in patient.findings:
        finding = patient.findings["effusion"]
        x, y, z = patient.from_world(*canvas.coordinates(canvas.everywhere))
        rise = 0.5 * (y - float(patient.back(patient.rest_dome)))  # lying back: the fluid runs up the posterior wall
        edge = SIDES[finding["side"]] * x - np.float32(0.5 * patient.width)
        level = np.float32(patient.bottom + patient.breath * 0.3 + finding["depth_mm"]) - rise + 0.004 * edge**2
        fluid = canvas.coverage((z - level) / np.float32(1.12)) * lungs * (SIDES[finding["side"]] * x > 0)
        masks["effusion"] = fluid > 0.5
        canvas.paint(canvas.everywhere, fluid, finding["hu"])
    if "nodule" in patient.findings:
        finding = patient.findings["nodule"]
        middle = nodule_center(patient)
        box = canvas.box(middle - finding["radius_mm"], middle + finding["radius_mm"])
        distance = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(canvas.coordinates(box), middle, strict=True)))
        ball = canvas.coverage(distance - finding["radius_mm"])
        canvas.paint(box, ball, finding["hu"], inside="lungs")
        masks["nodule"] = np.zeros(canvas.ct_hu.shape, bool)
        masks["nodule"][box] = ball > 0.5
    if "cardiomegaly" in patient.findings:
        masks["cardiomegaly"] = canvas.organ("heart") > 0.5
    if "scoliosis" in patient.findings:
        masks["scoliosis"] = canvas.organ("spine") > 0.5
    return masks
