"""What the viewer shows of one case, as JSON takes it."""

from collections.abc import Mapping
from typing import Any

from monai.data import MetaTensor
from torch import Tensor

from trct_monai.evaluation.predictions import load_pair, prediction_file
from trct_monai.evaluation.report.codec import encode
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.geometry import Camera, voxel_to_world
from trct_monai.intensity import AIR_HU
from trct_monai.resampling import resample, resize_radiographs

HU_STEP = 4.0
"""Fine enough that a soft-tissue window of 400 HU does not show steps."""

MAX_PIXELS = 128
"""Most rows and columns of a radiograph."""


def encode_case(case: Mapping[str, Any], summary: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Truth, prediction, radiographs and reprojections of a case, encoded.

    Args:
        case: A case of `load_datalist`.
        summary: Of its evaluation.
        size: Most voxels along each side.
    """
    path = prediction_file(summary["predictions"], case["case_id"])
    prediction, truth = load_pair(case, path, size=summary["size"], resample=summary["resample"])
    low, high = summary["hu_window"]
    spacing = float(truth.pixdim[0])
    encoded: dict[str, Any] = {"case_id": case["case_id"], "views": [], "fitted": False, "stored_spacing": spacing}
    radiographs = CaseRadiographs.of(case)
    if radiographs is not None:
        projections = radiographs.reproject(prediction.as_subclass(Tensor).clamp(low, high), spacing)
        encoded["fitted"] = radiographs.fit
        for camera, image, projection in zip(radiographs.cameras, radiographs.images, projections):
            pictures = {"radiograph": encode_picture(image), "reprojection": encode_picture(projection)}
            encoded["views"].append({"name": camera.name, "sides": sides_of(camera), **pictures})
    for name, volume in (("truth", truth), ("prediction", prediction)):
        encoded[name] = encode(at_most(volume, size).numpy(), low, high, HU_STEP)
    encoded["spacing"] = spacing * truth.shape[-1] / encoded["truth"]["shape"][-1]
    return encoded


def sides_of(camera: Camera) -> list[str]:
    """Letters of a radiograph's left, right, upper and lower edge; none where the view is oblique."""
    letters = []
    for axis in (camera.column_axis, camera.row_axis):
        nearest = max(range(3), key=lambda k: abs(axis[k]))
        ends = ["LPI"[nearest], "RAS"[nearest]] if abs(axis[nearest]) > 0.9 else ["", ""]
        letters.append(ends if axis[nearest] > 0 else ends[::-1])
    (left, right), (top, bottom) = letters
    return [left, right, top, bottom]


def at_most(volume: MetaTensor, size: int) -> Tensor:
    """The cube (X, X, X) averaged down to at most so many voxels a side."""
    cube: Tensor = volume.as_subclass(Tensor)[0]
    if cube.shape[-1] <= size:
        return cube
    fine, coarse = (voxel_to_world((n,) * 3, cube.shape[-1] / n).numpy() for n in (cube.shape[-1], size))
    return resample(cube, fine, (size,) * 3, coarse, AIR_HU)


def encode_picture(image: Tensor) -> dict[str, Any]:
    """A radiograph in 256 steps, of at most `MAX_PIXELS` a side."""
    rows, columns = (min(n, MAX_PIXELS) for n in image.shape)
    image = resize_radiographs(image, (rows, columns))
    low, high = float(image.min()), float(image.max())
    return encode(image.numpy(), low, high, max(high - low, 1e-6) / 255)
