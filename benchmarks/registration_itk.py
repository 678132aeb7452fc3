"""ITK's 2-D/3-D registration, as its own example has it: rays cast through the CT, normalised correlation, six numbers.

`RayCastInterpolateImageFunction`, `NormalizedCorrelationImageToImageMetric`, `CenteredEuler3DTransform` and Powell's
optimiser. It moves the CT; orientation, pixel sizes and the distance of the source are not among its unknowns. So it
gets them: from the truth, or from the first guess of our search.
"""

from dataclasses import replace

import itk
import numpy as np
import torch
from torch import Tensor

from trct_monai.geometry import Camera, voxel_to_world
from trct_monai.geometry.orientations import orient
from trct_monai.intensity import AIR_HU
from trct_monai.resampling import resample, resize_radiographs

SIZE = 48
VOXEL = 4.0
FAR = 50000.0
"""Distance in mm of the source of a parallel beam: ITK has none at infinity."""

ROTATION, TRANSLATION = 0.1, 20.0
"""What counts as one step of the optimiser, in radians and in mm."""


def prepare(ct_hu: Tensor, spacing: tuple[float, ...]) -> "itk.Image":
    """The CT at 4 mm as ITK wants it: whole numbers from 0 (air) up, its middle at the origin."""
    shape = [max(1, round(n * side / VOXEL)) for n, side in zip(ct_hu.shape, spacing)]
    target = voxel_to_world(shape, VOXEL).numpy()
    hu = resample(ct_hu, voxel_to_world(ct_hu.shape, spacing).numpy(), shape, target, AIR_HU)
    image = itk.image_from_array(np.ascontiguousarray((hu - AIR_HU).clamp(0, 30000).numpy().astype(np.int16).T))
    image.SetSpacing([VOXEL] * 3)
    image.SetOrigin(target[:3, 3].tolist())
    return image


def register_itk(image: "itk.Image", picture: Tensor, camera: Camera, transform: str) -> Camera:
    """The camera with the CT moved so that it fits.

    Args:
        image: From `prepare`.
        picture: The radiograph as it is stored.
        camera: Where to start, in mm from the CT's middle: its pixels and the distance of its source stay.
        transform: The picture's orientation.
    """
    size = (SIZE, SIZE)
    camera = camera.resized(size)
    fixed = _fixed(resize_radiographs(orient(picture, transform), size), camera)
    scan, flat = type(image), type(fixed)
    moves = itk.CenteredEuler3DTransform[itk.D].New()
    moves.SetIdentity()
    interpolator = itk.RayCastInterpolateImageFunction[scan, itk.D].New()
    interpolator.SetInputImage(image)
    interpolator.SetTransform(moves)
    interpolator.SetThreshold(0.0)
    normal, center = np.array(camera.normal), np.array(camera.detector_center)
    source = np.array(camera.source) if camera.source is not None else center - FAR * normal
    interpolator.SetFocalPoint(source.tolist())
    metric = itk.NormalizedCorrelationImageToImageMetric[flat, scan].New()
    metric.SubtractMeanOn()
    metric.SetFixedImage(fixed)
    metric.SetMovingImage(image)
    metric.SetInterpolator(interpolator)
    metric.SetTransform(moves)
    metric.SetFixedImageRegion(fixed.GetBufferedRegion())
    metric.Initialize()
    optimizer = itk.PowellOptimizer.New()
    optimizer.SetCostFunction(metric)
    optimizer.SetMaximize(False)
    scales = itk.OptimizerParameters[itk.D](9)
    for index, scale in enumerate([1 / ROTATION] * 3 + [1e6] * 3 + [1 / TRANSLATION] * 3):
        scales[index] = scale  # the centre of rotation stays
    optimizer.SetScales(scales)
    optimizer.SetStepLength(0.5)
    optimizer.SetStepTolerance(0.01)
    optimizer.SetValueTolerance(1e-6)
    optimizer.SetMaximumIteration(6)
    optimizer.SetInitialPosition(moves.GetParameters())
    optimizer.StartOptimization()
    moves.SetParameters(optimizer.GetCurrentPosition())
    return _moved(camera, moves)


def _fixed(picture: Tensor, camera: Camera) -> "itk.Image":
    """The radiograph as a slice in space, where the camera's detector is; a distant one for a parallel beam."""
    image = itk.image_from_array(np.ascontiguousarray((picture * 100).round().numpy().astype(np.int16)[None]))
    height, width = camera.pixel_spacing
    column, row, normal = (np.array(v) for v in (camera.column_axis, camera.row_axis, camera.normal))
    corner = camera.pixel_to_world()[:, 2].numpy()
    # The detector lies behind the patient; ITK's rays run from the pixel to the source.
    corner = corner if camera.source is not None else corner + 400 * normal
    image.SetSpacing([width, height, 1.0])
    image.SetOrigin(corner.tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(np.stack([column, row, np.cross(column, row)], 1))))
    return image


def _moved(camera: Camera, moves: "itk.Transform") -> Camera:
    """The camera moved as the transform moves points of the picture into the CT."""

    def at(point: np.ndarray) -> np.ndarray:
        return np.array(moves.TransformPoint(point.tolist()))

    zero = at(np.zeros(3))

    def axis(vector: tuple[float, ...]) -> np.ndarray:
        turned = at(np.array(vector)) - zero
        return turned / np.linalg.norm(turned)

    column, row = axis(camera.column_axis), axis(camera.row_axis)
    row = row - (row @ column) * column
    source = None if camera.source is None else tuple(at(np.array(camera.source)).tolist())
    return replace(
        camera,
        source=source,
        detector_center=tuple(at(np.array(camera.detector_center)).tolist()),
        column_axis=tuple(column.tolist()),
        row_axis=tuple((row / np.linalg.norm(row)).tolist()),
    )


def nominal(camera: Camera, axes: Camera) -> Camera:
    """A camera with the pixels and the distance of one and the direction of another, aimed at the middle.

    Args:
        camera: Whose field and source distance are known.
        axes: Whose direction is.
    """
    normal = torch.tensor(axes.normal, dtype=torch.float64)
    toward = torch.tensor(camera.normal, dtype=torch.float64)

    def along(point: tuple[float, ...]) -> tuple[float, ...]:
        return tuple((normal * float(torch.tensor(point, dtype=torch.float64) @ toward)).tolist())

    return replace(
        axes,
        source=None if camera.source is None else along(camera.source),
        detector_center=along(camera.detector_center),
        pixel_spacing=camera.pixel_spacing,
        size=camera.size,
    )
