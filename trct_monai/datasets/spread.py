"""How measured cameras differ over a data set: one line for each view."""

from collections.abc import Iterable, Mapping, Sequence
from math import asin, degrees
from typing import Any

import numpy as np

from trct_monai.geometry import Camera
from trct_monai.registration.poses import PARALLEL, Beam


def describe_spread(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    """Median and range of the measured cameras, view by view: field, source, shift and tilt, and their estimated error.

    Args:
        cases: Those of a datalist; views whose cameras were not measured are left out.
    """
    views: dict[str, list[tuple[Camera, float]]] = {}
    for case in cases:
        for camera, orientation in zip(case.get("cameras") or (), case.get("orientation") or ()):
            if isinstance(orientation, Mapping) and "error_mm" in orientation:
                one = Camera.from_dict(camera)
                views.setdefault(one.name, []).append((one, float(orientation["error_mm"])))
    return [_line(name, found) for name, found in views.items()]


def _line(name: str, found: Sequence[tuple[Camera, float]]) -> str:
    poses = np.array([Beam.pose(camera).tolist() for camera, _ in found])
    width, height = np.exp(poses[:, 0]), np.exp(poses[:, :2].sum(1))
    inverse = poses[:, 4]
    with np.errstate(divide="ignore"):
        distance = np.where(inverse < PARALLEL, np.inf, 1 / inverse)
    tilt = [degrees(asin(camera.normal[2])) for camera, _ in found]
    texts = [
        f"width {_range(width)} mm",
        f"height {_range(height)} mm",
        f"source {_range(distance)} mm from the isocentre",
        f"shift {_range(np.hypot(poses[:, 2], poses[:, 3]))} mm",
        f"tilt {_range(np.array(tilt), 1)} degrees",
        f"error {_range(np.array([error for _, error in found]), 1)} mm",
    ]
    return f"measured cameras, {name} ({len(found)}): " + ", ".join(texts)


def _range(values: np.ndarray, digits: int = 0) -> str:
    """Median, and lowest to highest; infinite distances are parallel beams."""
    low, median, high = (
        "parallel" if np.isinf(value) else f"{value:.{digits}f}"
        for value in (values.min(), np.sort(values)[len(values) // 2], values.max())
    )
    return f"{median} ({low} to {high})"
