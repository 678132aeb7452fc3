"""The patient: body, posture, breathing and findings drawn from a seed, and the surfaces of the anatomy.

Anatomical coordinates in mm: x to the patient's right from the midsagittal plane, y anterior from mid-chest, z superior
from the isocentre. `Patient.to_world` turns and leans them into the world and leaves z alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from trct_monai.phantoms.shapes import Array, Number, smooth_curve, smooth_min, smoothstep, superellipse_distance

STREAMS = (
    *("body", "posture", "heart", "abdomen", "skeleton"),  # the patient's parameters
    *("vessels", "texture", "fissures", "organs", "ribs"),  # details of the painted organs
    *("findings", "phase"),
)
CAGE_EXPONENT = 2.4
LEVELS = (-0.4, 0.0, 0.2, 0.4, 0.6, 0.8, 0.92, 1.0, 1.12, 1.3)  # share of the cage's height, 1 at the lung's apex
CAGE_WIDTH = (0.93, 1.0, 1.02, 1.0, 0.95, 0.83, 0.68, 0.56, 0.47, 0.44)
CAGE_FRONT = (0.47, 0.5, 0.5, 0.48, 0.42, 0.3, 0.19, 0.13, 0.08, 0.08)
SIDES = {"right": 1, "left": -1}


class Means(NamedTuple):
    """What patients are drawn around, in mm and HU; kyphosis as mean, standard deviation, least and most.

    Attributes:
        width: Half width of the rib cage, inside.
        depth: Its depth.
        height: Lung apex to the deepest costophrenic angle.
        kyphosis: Forward displacement of the upper spine.
        soft_hu: What is added to soft tissue.
    """

    width: float
    depth: float
    height: float
    kyphosis: tuple[float, float, float, float]
    soft_hu: float


VERSIONS = {
    1: Means(117, 166, 243, (22, 8, 6, 38), 0.0),
    2: Means(127, 184, 258, (48, 12, 18, 80), -9.0),
}
"""Version 1 is that of PhantomThorax-64. Version 2 is as large and as bent as patients are, by
`benchmarks/phantoms_and_patients.py`."""


def stream(seed: int, name: str) -> np.random.Generator:
    """Random numbers of one group of organs, independent of how many the other groups draw."""
    return np.random.default_rng((seed, STREAMS.index(name)))


@dataclass(frozen=True)
class Patient:
    """Drawn parameters (mm, HU, degrees) and the surfaces that follow from them."""

    seed: int
    sex: str
    width: float  # half width of the rib cage, inside
    depth: float  # depth of the rib cage, inside
    height: float  # lung apex to the deepest costophrenic angle at mean inspiration
    fat: float  # thickness of subcutaneous fat at the flank
    muscle: float  # factor on the thickness of muscle
    arms_up: bool
    apex: float  # z of the lung apices
    inspiration: float  # 0 shallow, 1 deep
    rotation_deg: float
    lean: tuple[float, float]  # shift in x and y in mm for each mm of height
    offset: tuple[float, float]  # x and y of the body's axis in mm
    kyphosis: float  # forward displacement of the upper spine, mm
    heart_scale: float
    heart_shift: tuple[float, float, float]
    heart_axis: tuple[float, float, float]
    blood_hu: float
    lung_hu: float
    bone_density: float
    liver_scale: float
    dome_difference: float  # right dome above left dome, mm
    tidal: float  # diaphragm's travel over a breath, mm
    breast: float  # radius, mm; 0 for none
    aorta_radius: float
    curve: tuple[tuple[float, float, float], ...] = ()  # scoliosis: amplitude, centre z, width of each bend in mm
    cardiomegaly: float = 1.0
    phase: float = 0.0
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    # --- heights ---------------------------------------------------------------------------------------------------
    @property
    def beat(self) -> float:
        """Contraction: 0 in end-diastole (phase 0), 1 in end-systole."""
        return 0.5 - 0.5 * float(np.cos(2 * np.pi * self.phase))

    @property
    def breath(self) -> float:
        """Rise of the diaphragm since the deepest inspiration of the cycle (phase 0), in mm."""
        return self.tidal * (0.5 - 0.5 * float(np.cos(2 * np.pi * self.phase)))

    @property
    def bottom(self) -> float:
        """z of the lower end of the cage (level 0)."""
        return self.apex - self.height

    @property
    def carina(self) -> float:
        return self.apex - 0.36 * self.height

    @property
    def rest_dome(self) -> float:
        """z of the top of the right hemidiaphragm at phase 0."""
        return self.apex - self.height * (0.64 + 0.19 * self.inspiration)

    def level(self, z: Array | Number) -> Array:
        return np.asarray((np.asarray(z, float) - self.bottom) / self.height)

    def breathing_shift(self, z: Array | Number) -> Array:
        """Upward displacement in mm, at this phase, of a point that rests at height z: none at the apex, all below."""
        return np.asarray(self.breath * smoothstep(z, self.apex, self.rest_dome))

    # --- the midline -----------------------------------------------------------------------------------------------
    def scoliosis(self, z: Array | Number) -> Array:
        """Sideways displacement of the spine in mm."""
        z = np.asarray(z, float)
        return np.asarray(sum((a * np.exp(-(((z - c) / w) ** 2)) for a, c, w in self.curve), np.zeros_like(z)))

    def back(self, z: Array | Number) -> Array:
        """y of the cage's inner posterior wall."""
        t = np.clip(self.level(z), -0.5, 1.2)
        return np.asarray(-0.5 * self.depth + self.kyphosis * 3 * (t - 0.45) ** 2)

    def front(self, z: Array | Number) -> Array:
        """y of the cage's inner anterior wall."""
        wall = self.depth * smooth_curve(self.level(z), LEVELS, CAGE_FRONT)
        return np.asarray(-smooth_min(-wall, -self.back(z) - 0.45 * self.depth, 20))

    def spine(self, z: Array | Number) -> tuple[Array, Array]:
        """x and y of the vertebral bodies' centres."""
        return self.scoliosis(z), np.asarray(self.back(z) + 26)

    def spine_front(self, z: Number) -> float:
        return float(self.spine(z)[1]) + 15

    # --- the cage --------------------------------------------------------------------------------------------------
    def cage_axes(self, z: Array | Number) -> tuple[Array, Array, Array]:
        """Half width, half depth and y of the centre of the cage's inner cross-section at height z, in mm."""
        front, back = self.front(z), self.back(z)
        width = self.width * smooth_curve(self.level(z), LEVELS, CAGE_WIDTH)
        return np.asarray(width), np.asarray((front - back) / 2), np.asarray((front + back) / 2)

    def cage_distance(self, x: Array, y: Array, z: Array) -> Array:
        a, b, center = (v.astype(np.float32) for v in self.cage_axes(z))
        return superellipse_distance(x, y - center, a, b, CAGE_EXPONENT)

    def cage_point(self, angle: Array, z: Array | Number, outward: Number) -> Array:
        """(N, 3) points `outward` mm off the cage's inner wall; angle 0 posterior, pi / 2 right, pi anterior."""
        a, b, center = self.cage_axes(z)
        sine, cosine = np.sin(angle), np.cos(angle)
        power = 2 / CAGE_EXPONENT
        x = (a + outward) * np.sign(sine) * np.abs(sine) ** power
        y = center - (b + outward) * np.sign(cosine) * np.abs(cosine) ** power
        return np.stack([x, y, np.broadcast_to(z, x.shape)], axis=-1)

    # --- posture ---------------------------------------------------------------------------------------------------
    def to_world(self, points: Array) -> Array:
        """Anatomical (..., 3) points in world mm."""
        x, y, z = np.moveaxis(np.asarray(points, float), -1, 0)
        c, s = np.cos(np.deg2rad(self.rotation_deg)), np.sin(np.deg2rad(self.rotation_deg))
        world_x = c * x - s * y + self.offset[0] + self.lean[0] * z
        world_y = s * x + c * y + self.offset[1] + self.lean[1] * z
        return np.stack([world_x, world_y, z], axis=-1)

    def from_world(self, x: Array, y: Array, z: Array) -> tuple[Array, Array, Array]:
        """Anatomical coordinates of world ones; arrays that broadcast, z unchanged."""
        x = x - np.float32(self.offset[0]) - np.float32(self.lean[0]) * z
        y = y - np.float32(self.offset[1]) - np.float32(self.lean[1]) * z
        c = np.float32(np.cos(np.deg2rad(self.rotation_deg)))
        s = np.float32(np.sin(np.deg2rad(self.rotation_deg)))
        return c * x + s * y, c * y - s * x, z

    def turn(self, axes: Array) -> Array:
        """Anatomical directions (rows) in the world (the lean is left out: it is a few degrees at most)."""
        c, s = np.cos(np.deg2rad(self.rotation_deg)), np.sin(np.deg2rad(self.rotation_deg))
        turned: Array = np.asarray(axes) @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
        return turned


def _draw(rng: np.random.Generator, mean: Number, deviation: Number, low: Number, high: Number) -> float:
    """A normal number, clipped."""
    return float(np.clip(rng.normal(mean, deviation), low, high))


def draw_patient(seed: int, version: int = 1) -> Patient:
    """A healthy patient at rest (phase 0), drawn from the seed around the means of one of `VERSIONS`."""
    means = VERSIONS[version]
    body, posture, heart = stream(seed, "body"), stream(seed, "posture"), stream(seed, "heart")
    abdomen, skeleton = stream(seed, "abdomen"), stream(seed, "skeleton")
    female = bool(body.random() < 0.48)
    stature = _draw(body, 0.955 if female else 1.03, 0.05, 0.85, 1.14)
    habitus = _draw(body, 0, 1, -1.9, 2.2)  # thin to obese
    barrel = _draw(body, 0, 1, -2, 2)
    width = (means.width + 4 * habitus + 3 * barrel) * stature
    height = means.height * stature * _draw(body, 1, 0.03, 0.93, 1.07)
    depth = (means.depth + 5 * habitus + 10 * barrel) * stature
    fat = float(np.exp(np.log(12) + 0.5 * habitus)) * (1.15 if female else 1.0)
    inspiration = float(posture.beta(2.2, 1.8))
    tilt = np.clip(heart.normal(0, 1), -2, 2) - 0.5 * habitus  # a vertical heart in the thin
    axis = np.array([-0.66 - 0.06 * tilt, 0.48, -0.58 + 0.13 * tilt])
    axis /= np.linalg.norm(axis)
    enhanced = bool(heart.random() < 0.4)
    return Patient(
        seed=seed,
        sex="female" if female else "male",
        width=width,
        depth=depth,
        height=height,
        fat=fat,
        muscle=_draw(body, 0.9 if female else 1.1, 0.14, 0.65, 1.5),
        arms_up=bool(posture.random() < 0.75),
        apex=0.43 * height + _draw(posture, 7, 7, -12, 24),
        inspiration=inspiration,
        rotation_deg=_draw(posture, 0, 2.5, -6, 6),
        lean=(_draw(posture, 0, 0.015, -0.04, 0.04), _draw(posture, 0, 0.022, -0.06, 0.06)),
        offset=(_draw(posture, 0, 3, -8, 8), _draw(posture, 0, 4, -10, 10)),
        kyphosis=_draw(posture, *means.kyphosis),
        heart_scale=_draw(heart, 0.97, 0.06, 0.82, 1.12) * stature * (1 + 0.02 * habitus),
        heart_shift=(float(heart.normal(0, 4)), float(heart.normal(0, 3)), float(heart.normal(0, 5))),
        heart_axis=(float(axis[0]), float(axis[1]), float(axis[2])),
        blood_hu=float(heart.uniform(150, 260)) if enhanced else float(heart.uniform(35, 50)),
        lung_hu=_draw(posture, -790 - 60 * inspiration, 18, -890, -740),
        bone_density=_draw(skeleton, 1, 0.14, 0.65, 1.35),
        liver_scale=_draw(abdomen, 1, 0.08, 0.8, 1.2),
        dome_difference=_draw(abdomen, 11, 5, 0, 24),
        tidal=float(abdomen.uniform(8, 22)),
        breast=_draw(body, 50 + 9 * habitus, 7, 28, 78) if female else 0.0,
        aorta_radius=_draw(heart, 14, 1.6, 11, 19),
    )
