"""How sharp a reconstruction is along each axis: the modulation transfer of small planted spheres, or beads.

The line-spread function of an axis is the difference volume, with the bead less without, summed over the other two axes
in a cube around the bead. The modulation transfer is the magnitude of its Fourier transform over that of the truth's,
which has the same bead in the same voxels: size of the bead and of the voxels cancel (as in Rossmann, Radiology 93,
1969, for points; ICRU Report 54, 1996). A method that is not linear has no transfer function in the strict sense; this
one is that of beads of this size and contrast in lungs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import signal

from trct_monai.metrics.detectability import PlantedPair

Array = np.ndarray

DIRECTIONS = ("left_right", "back_front", "down_up")
"""Of the axes x, y and z."""

REACH_MM = 40.0
"""Half the side of the cube around a bead; a Tukey window of the same width fades its outer half."""

FREQUENCIES = 65
"""Number of frequencies from 0 to the Nyquist frequency of the voxels."""

MIN_TRUTH = 0.1
"""Frequencies at which the bead has less than this share of its signal measure nothing."""

MIN_CONTRAST = 0.05
"""Where less than this share of the bead's signal comes back, or it is negative, nothing is sharp or blurred."""


class LineSpread:
    """Line-spread functions of beads, summed over patients before anything is transformed."""

    def __init__(self) -> None:
        self.diameter_mm, self.spacing, self.cases = np.inf, 0.0, 0
        self.prediction, self.truth = np.zeros((3, 0)), np.zeros((3, 0))

    def add(self, pair: PlantedPair) -> None:
        """Add a pair, unless a smaller bead is known; the first of a smaller bead drops all others.

        Raises:
            ValueError: If its voxels have another size than those of the others.
        """
        if pair.sphere.diameter_mm > self.diameter_mm:
            return
        if pair.sphere.diameter_mm < self.diameter_mm:
            self.diameter_mm, self.spacing, self.cases = pair.sphere.diameter_mm, pair.voxel_spacing, 0
            self.prediction = self.truth = np.zeros((3, 2 * int(REACH_MM / self.spacing) + 1))
        if abs(pair.voxel_spacing - self.spacing) > 1e-3 * self.spacing:
            raise ValueError(
                f"{pair.case_id} has voxels of {pair.voxel_spacing:g} mm, others of {self.spacing:g} mm; choose one "
                "size with --size"
            )
        self.cases += 1
        self.prediction = self.prediction + self._of(pair.difference, pair)
        self.truth = self.truth + self._of(pair.true_difference, pair)

    def _of(self, difference: Float[Array, "X Y Z"], pair: PlantedPair) -> Float[Array, "3 N"]:
        """Sums over the other two axes in the cube around the voxel of the bead's centre; beyond the volume is zero."""
        reach = self.truth.shape[-1] // 2
        middle = [
            round(center / self.spacing + (size - 1) / 2)
            for center, size in zip(pair.sphere.center_mm, difference.shape)
        ]
        padded = np.pad(difference, reach)
        cube = padded[tuple(slice(max(0, m), max(0, m) + 2 * reach + 1) for m in middle)]
        return np.stack([cube.sum(axis=tuple({0, 1, 2} - {axis})) for axis in range(3)])

    def transfer(self) -> dict[str, Any] | None:
        """The modulation transfer in the three directions; None without beads.

        Returns:
            ``diameter_mm`` and ``cases`` of the beads; ``frequencies_lp_cm`` in line pairs per cm up to the voxels'
            Nyquist frequency, or to where the bead itself has no signal, and ``limit_lp_cm``, the last of them;
            ``modulation`` by direction at each of them, not normalised: lost contrast shows at 0; ``recovered`` by
            direction, the signed value at 0; ``mtf50_lp_cm`` by direction, the frequency at which the modulation falls
            below half of that at 0: None where it does not, and where too little comes back (see `MIN_CONTRAST`).
        """
        if not self.cases:
            return None
        cycles = np.linspace(0.0, 0.5, FREQUENCIES)  # per voxel
        truth, prediction = (_transform(spread, cycles) for spread in (self.truth, self.prediction))
        weak = (np.abs(truth) < MIN_TRUTH * np.abs(truth[:, :1])).any(axis=0)
        known = int(weak.argmax()) if weak.any() else FREQUENCIES
        frequencies = 10.0 * cycles[:known] / self.spacing
        modulation = np.abs(prediction[:, :known]) / np.abs(truth[:, :known])
        recovered = (prediction[:, 0] / truth[:, 0]).real
        found = [_mtf50(frequencies, m) if r >= MIN_CONTRAST else None for m, r in zip(modulation, recovered)]
        return {
            "diameter_mm": self.diameter_mm,
            "cases": self.cases,
            "frequencies_lp_cm": frequencies.round(4).tolist(),
            "modulation": {name: m.round(4).tolist() for name, m in zip(DIRECTIONS, modulation)},
            "recovered": dict(zip(DIRECTIONS, recovered.round(4).tolist())),
            "mtf50_lp_cm": dict(zip(DIRECTIONS, found)),
            "limit_lp_cm": float(frequencies[-1]),
        }


def _transform(spread: Float[Array, "3 N"], cycles: Float[Array, " F"]) -> Array:
    """Fourier transform (3, F) of windowed line-spread functions around their middle."""
    count = spread.shape[-1]
    places = np.arange(count) - (count - 1) / 2
    window = signal.windows.tukey(count + 2, 0.5)[1:-1]
    return np.asarray((spread * window) @ np.exp(-2j * np.pi * places[:, None] * cycles))


def _mtf50(frequencies: Sequence[float] | Array, modulation: Float[Array, " F"]) -> float | None:
    """Where the modulation first falls below half of its first value, between two frequencies by a straight line."""
    half = modulation[0] / 2
    below = np.flatnonzero(modulation < half)
    if not len(below):
        return None
    n = int(below[0])
    (f0, f1), (m0, m1) = frequencies[n - 1 : n + 1], modulation[n - 1 : n + 1]
    return float(f0 + (f1 - f0) * (m0 - half) / (m0 - m1))
