"""Whether slices make one volume: every header is compared with all others."""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from trct_monai.io.dicom.slices import TELL_APART, Slice

SLACK = 0.1
"""Share of the slice distance by which a slice may be away from its place on the straight, even line of all."""

ROUNDING_MM = 0.11
"""What rounding to one decimal does to a position, and to the ends of the line: it never counts."""

MAX_JUMP = 8.0
"""HU between two slices of unlike scale."""

DIRECTION_SLACK = 1e-3
"""By how much the unit vectors of two slices may differ, and a vector's length from 1."""


def in_order(slices: Sequence[Slice]) -> list[int]:
    """Indices of slices that have positions, sorted along their normal; those at one place as they came."""
    along = np.array([one.position for one in slices]) @ slices[0].normal
    return [int(index) for index in np.argsort(np.round(along, 4), kind="stable")]


def check_volume(slices: Sequence[Slice]) -> None:
    """Refuse slices that do not make one volume of CT numbers.

    Raises:
        ValueError: With one line that names the file: an element is missing, is impossible, or differs between slices;
            slices are missing, doubled, or not on an even, straight line.
    """
    for one in slices:
        _check_slice(one)
    alike: list[tuple[str, Callable[[Slice], Any], float]] = [
        ("Rows and Columns", lambda one: one.size, 0.0),
        ("PixelSpacing", lambda one: one.spacing, 1e-3 * min(slices[0].spacing or (1.0,))),
        ("ImageOrientationPatient", lambda one: one.orientation, DIRECTION_SLACK),
    ]
    for what in ("is_rescaled", "is_inverted"):
        _check_all_or_none(slices, what)
    if len({one.path for one in slices}) == 1:  # GDCM knows one scale for all frames
        alike.append(("RescaleSlope and RescaleIntercept", lambda one: one.rescale, 0.0))
    for name, value_of, tolerance in alike:
        _check_alike(slices, name, [value_of(one) for one in slices], tolerance)
    _check_places([slices[index] for index in in_order(slices)])


def makes_volume(slices: Sequence[Slice]) -> bool:
    """Whether slices make one volume by their headers."""
    try:
        check_volume(slices)
    except ValueError:
        return False
    return True


def check_scales(volume: Tensor, slices: Sequence[Slice]) -> None:
    """Refuse a volume whose numbers jump where the scale of its slices changes.

    Scales may differ. Whether they are right shows in the pixels that two neighbours have in common, most of them.

    Args:
        volume: HU (slices, rows, columns).
        slices: Their headers in the same order.

    Raises:
        ValueError: If more than `MAX_JUMP` HU lie between two of them, and not between any two.
    """
    if len({one.rescale for one in slices}) == 1:
        return
    sample = volume[:, ::2, ::2].float().flatten(1)
    steps = sample.diff(dim=0).median(dim=1).values
    excess = (steps - steps.median()).abs()
    for place, (one, other) in enumerate(pairwise(slices)):
        if one.rescale != other.rescale and excess[place] > MAX_JUMP:
            raise ValueError(
                f"{other.path}: the numbers jump by {float(steps[place]):g} HU where RescaleSlope and RescaleIntercept "
                f"change from {_text(one.rescale)} to {_text(other.rescale)}"
            )


def _check_slice(one: Slice) -> None:
    for keyword, value in (
        ("ImagePositionPatient", one.position),
        ("ImageOrientationPatient", one.orientation),
        ("PixelSpacing", one.spacing),
    ):
        if value is None:
            raise ValueError(f"{one.path}: the slices have no {keyword}; export them anew, or write it into the header")
    if min(one.spacing or (0.0,)) <= 0:
        raise ValueError(f"{one.path}: PixelSpacing must be above 0, got {_text(one.spacing)}")
    vectors = np.reshape(one.orientation or (0,) * 6, (2, 3))
    if np.abs(vectors @ vectors.T - np.eye(2)).max() > 10 * DIRECTION_SLACK:
        raise ValueError(
            f"{one.path}: ImageOrientationPatient must be two unit vectors at right angles, got "
            f"{_text(one.orientation)}"
        )
    if one.rescale[0] == 0:
        raise ValueError(f"{one.path}: RescaleSlope must be finite and not 0, and RescaleIntercept finite, got "
                         f"{one.rescale[0]:g} and {one.rescale[1]:g}")  # fmt: skip


def _check_all_or_none(slices: Sequence[Slice], what: str) -> None:
    having = [one for one in slices if getattr(one, what)]
    if 0 < len(having) < len(slices):
        other = next(one for one in slices if not getattr(one, what))
        said = "has no RescaleSlope and RescaleIntercept" if what == "is_rescaled" else "is not MONOCHROME1"
        raise ValueError(
            f"{other.path}: {said}, unlike {len(having)} of {len(slices)} slices under one SeriesInstanceUID; export "
            "the series anew"
        )


def _check_alike(slices: Sequence[Slice], name: str, values: list[tuple[float, ...]], tolerance: float) -> None:
    usual, count = Counter(values).most_common(1)[0]
    other = next((i for i, value in enumerate(values) if np.abs(np.subtract(value, usual)).max() > tolerance), None)
    if other is not None:
        raise ValueError(
            f"{slices[other].path}: {name} is {_text(values[other])}, but {_text(usual)} in {count} of {len(slices)} "
            "slices under one SeriesInstanceUID; put each volume into a folder and a series of its own"
        )


def _check_places(slices: Sequence[Slice]) -> None:
    """Of slices in their order."""
    positions = np.array([one.position for one in slices])
    if len(slices) < 2:
        raise ValueError(f"{slices[0].path}: one slice is no volume")
    gaps = np.diff(positions @ slices[0].normal)
    usual = float(np.median(gaps))
    if usual <= 0 or gaps.min() < SLACK * usual:
        first = int(gaps.argmin())
        pair = slices[first].apart, slices[first + 1].apart
        differ = [f"{name} {a or 'none'} and {b or 'none'}" for name, a, b in zip(TELL_APART, *pair) if a != b]
        raise ValueError(
            f"{slices[first + 1].path}: two slices of the series at the same place, the other is "
            f"{slices[first].path.name}; they differ in {', '.join(differ) or 'none of what tells two scans apart'}; "
            "keep one of them, or put each volume into a series of its own"
        )
    if gaps.max() > 1.5 * usual:
        worst = int(gaps.argmax())
        raise ValueError(
            f"{slices[worst].path}: slices are missing after this one, the gap is {gaps[worst]:.2f} mm instead of "
            f"{usual:.2f} mm"
        )
    even = np.linspace(positions[0], positions[-1], len(positions))
    away = np.linalg.norm(positions - even, axis=1)
    if away.max() > max(SLACK * usual, ROUNDING_MM):
        worst = int(away.argmax())
        raise ValueError(
            f"{slices[worst].path}: the slices are not evenly spaced on a straight line, steps are {gaps.min():.2f} to "
            f"{gaps.max():.2f} mm and this one is {away[worst]:.2f} mm from its place; resample the series first"
        )


def _text(numbers: Sequence[float] | None) -> str:
    return "\\".join(f"{number:g}" for number in numbers or ())
