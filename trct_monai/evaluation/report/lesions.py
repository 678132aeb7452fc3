"""What the viewer shows of planted spheres: slices through them, with and without, and their radiographs."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from trct_monai.evaluation.predictions import load_pair, prediction_file
from trct_monai.evaluation.report.case import HU_STEP, at_most, encode_picture, sides_of
from trct_monai.evaluation.report.codec import encode
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.figures import planes
from trct_monai.geometry import Camera

PLANES = {"axial": (0, 1), "coronal": (0, 2)}
"""The planes that are shown, with the axes of the volume that run along their columns and rows, both backwards."""

VIEWS = 2
"""Radiographs that are shown, one beside each plane."""


def choose_lesions(cases: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """The planted cases that are shown: the largest diameter first, of one diameter the middle contrast.

    Args:
        cases: Cases of the datalist.
        count: Most that are shown.
    """
    planted = [case for case in cases if case.get("planted")]
    contrasts = sorted({case["planted"]["contrast_hu"] for case in planted})

    def order(case: Mapping[str, Any]) -> tuple[float, int]:
        sphere = case["planted"]
        return -sphere["diameter_mm"], abs(contrasts.index(sphere["contrast_hu"]) - len(contrasts) // 2)

    return sorted(planted, key=order)[:count]


def encode_lesion(
    case: Mapping[str, Any], base: Mapping[str, Any], summary: Mapping[str, Any], size: int
) -> dict[str, Any]:
    """Slices through a sphere's centre and radiographs, encoded, each with the place of the sphere in it.

    Args:
        case: A planted case of `load_datalist`.
        base: The case without the sphere.
        summary: Of the evaluation.
        size: Most voxels along each side.
    """

    def pair(one: Mapping[str, Any]) -> tuple[Any, Any]:
        path = prediction_file(summary["predictions"], one["case_id"])
        return load_pair(one, path, size=summary["size"], resample=summary["resample"])

    (prediction, truth), (without, _) = pair(case), pair(base)
    volumes = {name: at_most(v, size) for name, v in (("truth", truth), ("with", prediction), ("without", without))}
    voxels, sphere = volumes["truth"].shape[-1], case["planted"]
    spacing = float(truth.pixdim[0]) * truth.shape[-1] / voxels
    center = [place / spacing + (voxels - 1) / 2 for place in sphere["center_mm"]]
    index = [min(max(round(place), 0), voxels - 1) for place in center]
    low, high = summary["hu_window"]
    slices = []
    for plane, axes in PLANES.items():
        x, y = (voxels - 1 - center[axis] for axis in axes)
        pictures = {name: encode(planes(v, index)[plane], low, high, HU_STEP) for name, v in volumes.items()}
        slices.append({"plane": plane, "mark": _mark(x, y, sphere["diameter_mm"] / 2 / spacing), **pictures})
    return {"case_id": case["case_id"], **sphere, "slices": slices, "views": _views(case, sphere)}


def _views(case: Mapping[str, Any], sphere: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Radiographs with the sphere; none if the datalist does not have their cameras."""
    radiographs = CaseRadiographs.of(case)
    if radiographs is None:
        return []
    views = []
    for camera, image in list(zip(radiographs.cameras, radiographs.images))[:VIEWS]:
        picture = encode_picture(image)
        rows, columns = picture["shape"]
        shown, radius = camera.resized((rows, columns)), sphere["diameter_mm"] / 2
        x, y = _project(shown, sphere["center_mm"])
        rim = [c + radius * a for c, a in zip(sphere["center_mm"], camera.column_axis)]
        mark = _mark(x, y, abs(_project(shown, rim)[0] - x))
        views.append({"name": camera.name, "sides": sides_of(camera), "mark": mark, "radiograph": picture})
    return views


def _project(camera: Camera, point_mm: Sequence[float]) -> tuple[float, float]:
    """Column and row of a point's shadow, in pixels from the middle of the first."""
    u, v, w = (camera.world_to_detector() @ torch.tensor([*point_mm, 1.0], dtype=torch.float64)).tolist()
    rows, columns = camera.size
    return (u / w + 1) * columns / 2 - 0.5, (v / w + 1) * rows / 2 - 0.5


def _mark(x: float, y: float, radius: float) -> dict[str, float]:
    return {"x": round(x, 2), "y": round(y, 2), "radius": round(radius, 2)}
