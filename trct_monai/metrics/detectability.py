"""Does a reconstruction show a lesion that is in the radiographs? Spheres of known size and contrast, planted.

A template observer looks at the place where it knows the sphere to be: the mean inside the sphere less the mean of the
shell around it, in HU (a non-prewhitening matched filter; Barrett and Myers, Foundations of Image Science, 2004, ch.
13). It looks at the reconstruction with the sphere and at the one without. Its responses over many patients give a
detectability: that of chance, for a method that hallucinates or averages. The same observer looks at places without a
sphere, where no contrast may come from it, and the difference of the two reconstructions shows where the sphere came to
lie, and how large it became.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf, nan, sqrt
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from trct_monai.geometry import Camera
from trct_monai.metrics.anatomy import find_lungs
from trct_monai.metrics.false_contrast import false_contrast, other_places
from trct_monai.metrics.localization import find_trace
from trct_monai.metrics.sphere import SHELL, SUBVOXELS, Sphere

__all__ = ["SHELL", "SUBVOXELS", "Observation", "PlantedPair", "Sphere", "detectability", "observe", "planted_pairs"]

Array = np.ndarray

PLANTED = ("base", "center_mm", "diameter_mm", "contrast_hu")
"""What a datalist says of a planted sphere."""


@dataclass(frozen=True)
class PlantedPair:
    """A patient with a sphere and without it, as it is and as a method reconstructs it, all (X, Y, Z) in HU.

    Attributes:
        case_id: The case with the sphere.
        base: The case without it.
        sphere: The sphere.
        cameras: The views; none if the datalist does not have them.
        with_sphere: Reconstruction with the sphere.
        without: Reconstruction without it.
        true_with: Truth with the sphere.
        true_without: Truth without it.
        voxel_spacing: Voxel side in mm.
        lungs: True in the lungs of the truth without the sphere.
        quantiles: Intervals of the reconstruction with the sphere (X, Y, Z, 4), as
            `trct_monai.metrics.uncertainty.QUANTILES`; None of a method without any.
    """

    case_id: str
    base: str
    sphere: Sphere
    cameras: tuple[Camera, ...]
    with_sphere: Array
    without: Array
    true_with: Array
    true_without: Array
    voxel_spacing: float
    lungs: Array
    quantiles: Array | None = None

    @cached_property
    def difference(self) -> Float[Array, "X Y Z"]:
        """What the sphere changes in the reconstruction, in HU."""
        return np.asarray(np.subtract(self.with_sphere, self.without, dtype=np.float64))

    @cached_property
    def true_difference(self) -> Float[Array, "X Y Z"]:
        """What it changes in the truth, in HU."""
        return np.asarray(np.subtract(self.true_with, self.true_without, dtype=np.float64))

    def coverage_90(self) -> float | None:
        """Share of the sphere's voxels, those that it fills at least by half, whose truth the 90 % interval holds."""
        inside = self.sphere.share(self.true_with.shape, self.voxel_spacing) >= 0.5
        if self.quantiles is None or not inside.any():
            return None
        truth, bounds = self.true_with[inside], self.quantiles[inside]
        return float(((bounds[:, 0] <= truth) & (truth <= bounds[:, -1])).mean())


@dataclass(frozen=True)
class Observation:
    """What the observer measures in one patient.

    Attributes:
        sphere: The sphere.
        with_sphere: Response to the reconstruction with the sphere, in HU.
        without: Response to the reconstruction without it.
        contrast: Difference of the responses to the two truths.
        false_contrast: Mean absolute difference of the responses at other places, in HU; None if there is no such
            place, as without lungs.
        place_error_mm: Distance between the sphere's centre and the centroid of what comes back; None if nothing does.
        size_ratio: Diameter of what comes back over that of the truth's sphere, found alike; None if nothing does.
        coverage_90: See `PlantedPair.coverage_90`.
    """

    sphere: Sphere
    with_sphere: float
    without: float
    contrast: float
    false_contrast: float | None = None
    place_error_mm: float | None = None
    size_ratio: float | None = None
    coverage_90: float | None = None

    @classmethod
    def of(cls, pair: PlantedPair) -> "Observation":
        """Look at a pair.

        Raises:
            ValueError: If the sphere lies outside the volume.
        """
        sphere, spacing = pair.sphere, pair.voxel_spacing
        volumes = pair.with_sphere, pair.without, pair.true_difference
        with_sphere, without, contrast = (sphere.response(volume, spacing) for volume in volumes)
        places = other_places(pair.lungs, spacing, sphere, pair.cameras, pair.case_id)
        trace = find_trace(pair.difference, sphere, spacing)
        true_trace = find_trace(pair.true_difference, sphere, spacing)
        return cls(
            sphere,
            with_sphere,
            without,
            contrast,
            false_contrast(pair.difference, places, spacing),
            trace.place_error_mm if trace else None,
            (trace.voxels / true_trace.voxels) ** (1 / 3) if trace and true_trace else None,
            pair.coverage_90(),
        )


class Loaded(NamedTuple):
    """A case of a planted data set, all in HU.

    Attributes:
        prediction: Reconstruction (X, Y, Z).
        truth: Its CT.
        voxel_spacing: Voxel side in mm.
        quantiles: Intervals of the reconstruction, as in `PlantedPair`.
    """

    prediction: Array
    truth: Array
    voxel_spacing: float
    quantiles: Array | None = None


def planted_pairs(cases: Sequence[Mapping[str, Any]], load: Callable[[str], tuple[Any, ...]]) -> Iterator[PlantedPair]:
    """The pairs of a data set that the command `plant` made, read one by one.

    Args:
        cases: Cases of the datalist, the planted ones with their field ``planted``.
        load: The fields of `Loaded` of a case by its id.

    Raises:
        ValueError: If the case that a sphere was planted in is not one of them, or what is said of a sphere is not all.
    """
    known = {case["case_id"] for case in cases}
    bases: dict[str, tuple[Loaded, Array]] = {}
    for case in cases:
        planted = case.get("planted")
        if not planted:
            continue
        case_id = case["case_id"]
        if missing := [name for name in PLANTED if name not in planted]:
            raise ValueError(f"{case_id}: its planted sphere lacks {', '.join(missing)}; plant the data set again")
        base = planted["base"]
        sphere = Sphere(tuple(planted["center_mm"]), planted["diameter_mm"], planted["contrast_hu"])
        if base not in known:
            raise ValueError(f"{case_id} has a sphere planted in {base}, which is missing; add that case")
        if base not in bases:
            whole = Loaded(*load(base))
            bases = {base: (whole, find_lungs(whole.truth, whole.voxel_spacing))}  # planted cases follow their base
        (without, true_without, *_), lungs = bases[base]
        with_sphere, true_with, spacing, quantiles = Loaded(*load(case_id))
        cameras = tuple(Camera.from_dict(camera) for camera in case.get("cameras") or ())
        volumes = with_sphere, without, true_with, true_without
        yield PlantedPair(case_id, base, sphere, cameras, *volumes, spacing, lungs, quantiles)


def observe(cases: Sequence[Mapping[str, Any]], load: Callable[[str], tuple[Any, ...]]) -> list[Observation]:
    """Look at every pair of a data set; see `planted_pairs`."""
    return [Observation.of(pair) for pair in planted_pairs(cases, load)]


def detectability(observations: Iterable[Observation]) -> list[dict[str, float]]:
    """Contrast against size: one row for each diameter and contrast, ascending.

    - ``auc``: Probability that the response to a patient with a sphere is higher than to one without (ties count half);
      0.5 = chance, 1 = always.
    - ``paired``: Share of patients with a higher response with the sphere than without (ties count half).
    - ``d_prime``: Difference of the means over the root mean square of both standard deviations.
    - ``recovered_contrast``: Mean share of the true contrast that the reconstruction shows: 1 = all, 0 = none.
    - ``false_contrast``: Mean absolute change of the response at other places of the lungs over the true contrast, of
      ``false_contrast_cases`` patients: 0 = the sphere changes nothing elsewhere.
    - ``place_error_mm``, ``size_ratio``: Means over the ``located_cases`` patients in whom something comes back. See
      `trct_monai.metrics.localization`. NaN where there is none.
    - ``coverage_90``: Mean share of the spheres' voxels that the 90 % interval holds; NaN without intervals.

    Raises:
        ValueError: If the truths themselves do not show the spheres.
    """
    groups: dict[tuple[float, float], list[Observation]] = {}
    for one in observations:
        groups.setdefault((one.sphere.diameter_mm, one.sphere.contrast_hu), []).append(one)
    return [_row(diameter, contrast, group) for (diameter, contrast), group in sorted(groups.items())]


def _row(diameter: float, contrast: float, group: Sequence[Observation]) -> dict[str, float]:
    """The row of one diameter and contrast."""
    with_sphere, without = (np.array([getattr(one, name) for one in group]) for name in ("with_sphere", "without"))
    spread = sqrt((with_sphere.var() + without.var()) / 2)
    gain, shown = float(with_sphere.mean() - without.mean()), float(np.mean([o.contrast for o in group]))
    if shown <= 0:
        raise ValueError(f"the truths do not show the spheres of {diameter:g} mm and {contrast:g} HU")
    false_hu, false_cases = _mean(group, "false_contrast")
    place_error, located = _mean(group, "place_error_mm")
    return {
        "diameter_mm": diameter,
        "contrast_hu": contrast,
        "cases": len(group),
        "auc": _share_above(with_sphere[:, None] - without),
        "paired": _share_above(with_sphere - without),
        "d_prime": gain / spread if spread > 0 else (inf if gain > 0 else 0.0),
        "recovered_contrast": gain / shown,
        "false_contrast": false_hu / shown,
        "false_contrast_cases": false_cases,
        "place_error_mm": place_error,
        "size_ratio": _mean(group, "size_ratio")[0],
        "located_cases": located,
        "coverage_90": _mean(group, "coverage_90")[0],
    }


def _mean(group: Sequence[Observation], name: str) -> tuple[float, int]:
    """Mean over the patients in whom something was measured, and their number; NaN if there is none."""
    values = [value for one in group if (value := getattr(one, name)) is not None]
    return (float(np.mean(values)) if values else nan), len(values)


def _share_above(difference: Array) -> float:
    """Share of differences above zero, ties counted half."""
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())
