"""Does a reconstruction show a lesion that is in the radiographs? Spheres of known size and contrast, planted.

A template observer looks at the place where it knows the sphere to be: the mean inside the sphere less the mean of the
shell around it, in HU (a non-prewhitening matched filter; Barrett and Myers, Foundations of Image Science, 2004, ch.
13). It looks at the reconstruction with the sphere and at the one without. Its responses over many patients give a
detectability: that of chance, for a method that hallucinates or averages.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from typing import Any

import numpy as np
from jaxtyping import Float

Array = np.ndarray
SHELL = 2.0
"""Outer radius of the shell that is compared with the sphere, in radii of the sphere."""

SUBVOXELS = (4, 32)
"""A voxel's side is divided into as many parts as make 16 in the sphere's radius, within these limits."""


@dataclass(frozen=True)
class Sphere:
    """A planted sphere, or one to look for.

    Attributes:
        center_mm: Its centre (x, y, z) in mm from the middle of the volume.
        diameter_mm: Its diameter.
        contrast_hu: HU that it adds to the tissue.
    """

    center_mm: tuple[float, float, float]
    diameter_mm: float
    contrast_hu: float

    def share(self, shape: Sequence[int], voxel_spacing: float, scale: float = 1.0) -> Float[Array, "X Y Z"]:
        """The share of each voxel that is inside the sphere, or inside one `scale` times as large.

        Args:
            shape: Number of voxels.
            voxel_spacing: Voxel side in mm.
            scale: Factor on the diameter.
        """
        radius = scale * self.diameter_mm / 2
        parts = min(max(ceil(16 * voxel_spacing / radius), SUBVOXELS[0]), SUBVOXELS[1])
        share, spans, squares = np.zeros(tuple(shape)), [], []
        for center, size in zip(self.center_mm, shape):
            middle = center / voxel_spacing + (size - 1) / 2
            reach = radius / voxel_spacing + 1
            low, high = max(0, int(np.floor(middle - reach))), min(size, int(np.ceil(middle + reach)) + 1)
            if high <= low:
                return share
            inside = np.arange(low * parts, high * parts) / parts + (1 / parts - 1) / 2
            spans.append(slice(low, high))
            squares.append(np.square((inside - middle) * voxel_spacing))
        fine = squares[0][:, None, None] + squares[1][:, None] + squares[2] <= radius**2
        blocks = fine.reshape([n for square in squares for n in (len(square) // parts, parts)])
        share[tuple(spans)] = blocks.mean(axis=(1, 3, 5))
        return share

    def response(self, volume_hu: Float[Array, "X Y Z"], voxel_spacing: float) -> float:
        """The observer's response to a volume: mean inside the sphere less mean of its shell, in HU.

        Raises:
            ValueError: If the volume has nothing inside the sphere, or nothing around it.
        """
        inside = self.share(volume_hu.shape, voxel_spacing)
        shell = self.share(volume_hu.shape, voxel_spacing, SHELL) - inside
        if not (inside.any() and shell.any()):
            raise ValueError(
                f"a sphere of {self.diameter_mm:g} mm at {self.center_mm} mm has nothing inside it, or around it, in "
                f"{volume_hu.shape} voxels of {voxel_spacing:g} mm"
            )
        return float((volume_hu * inside).sum() / inside.sum() - (volume_hu * shell).sum() / shell.sum())


@dataclass(frozen=True)
class Observation:
    """The observer's responses for one patient, in HU.

    Attributes:
        sphere: The sphere.
        with_sphere: Response to the reconstruction with the sphere.
        without: Response to the reconstruction without it.
        contrast: Difference of the responses to the two truths.
    """

    sphere: Sphere
    with_sphere: float
    without: float
    contrast: float


def observe(cases: Sequence[Mapping[str, Any]], load: Callable[[str], tuple[Array, Array, float]]) -> list[Observation]:
    """The observer's responses on a data set that the command `plant` made.

    Args:
        cases: Cases of the datalist, the planted ones with their field ``planted``.
        load: Prediction and truth (X, Y, Z) in HU, and voxel side in mm, of a case by its id.

    Raises:
        ValueError: If the case that a sphere was planted in is not one of them.
    """
    known = {case["case_id"] for case in cases}
    observations, bases = [], {}
    for case in cases:
        planted = case.get("planted")
        if not planted:
            continue
        sphere = Sphere(tuple(planted["center_mm"]), planted["diameter_mm"], planted["contrast_hu"])
        if planted["base"] not in known:
            raise ValueError(
                f"{case['case_id']} has a sphere planted in {planted['base']}, which is missing; add that case"
            )
        if planted["base"] not in bases:
            bases = {planted["base"]: load(planted["base"])}  # planted cases follow their base: one is enough
        without, true_without, _ = bases[planted["base"]]
        with_sphere, true_with, spacing = load(case["case_id"])
        a, b, true_a, true_b = (sphere.response(v, spacing) for v in (with_sphere, without, true_with, true_without))
        observations.append(Observation(sphere, a, b, true_a - true_b))
    return observations


def detectability(observations: Iterable[Observation]) -> list[dict[str, float]]:
    """Contrast against size: one row for each diameter and contrast, ascending.

    - ``auc``: Probability that the response to a patient with a sphere is higher than to one without (ties count half);
      0.5 = chance, 1 = always.
    - ``paired``: Share of patients with a higher response with the sphere than without (ties count half).
    - ``d_prime``: Difference of the means over the root mean square of both standard deviations.
    - ``recovered_contrast``: Mean share of the true contrast that the reconstruction shows: 1 = all, 0 = none.

    Raises:
        ValueError: If the truths themselves do not show the spheres.
    """
    groups: dict[tuple[float, float], list[Observation]] = {}
    for one in observations:
        groups.setdefault((one.sphere.diameter_mm, one.sphere.contrast_hu), []).append(one)
    rows = []
    for (diameter, contrast), group in sorted(groups.items()):
        with_sphere, without = (np.array([getattr(one, name) for one in group]) for name in ("with_sphere", "without"))
        difference = with_sphere[:, None] - without
        spread = sqrt((with_sphere.var() + without.var()) / 2)
        gain, contrast_shown = float(with_sphere.mean() - without.mean()), float(np.mean([o.contrast for o in group]))
        if contrast_shown <= 0:
            raise ValueError(f"the truths do not show the spheres of {diameter:g} mm and {contrast:g} HU")
        rows.append(
            {
                "diameter_mm": diameter,
                "contrast_hu": contrast,
                "cases": len(group),
                "auc": _share_above(difference),
                "paired": _share_above(with_sphere - without),
                "d_prime": gain / spread if spread > 0 else (inf if gain > 0 else 0.0),
                "recovered_contrast": gain / contrast_shown,
            }
        )
    return rows


def _share_above(difference: Array) -> float:
    """Share of differences above zero, ties counted half."""
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
