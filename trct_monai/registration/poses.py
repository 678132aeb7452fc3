"""How a radiograph was taken, as eight numbers: the unknowns of a registration, and the camera that they stand for."""

from dataclasses import dataclass
from math import exp, log

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.motion import rigid_motion

DETECTOR_DISTANCE = 200.0
"""From the isocentre to the detector in mm. A picture does not tell it: a detector farther away with pixels as much
larger gives the same picture."""

PARALLEL = 2e-5
"""Beams whose inverse source-isocentre distance in 1/mm is below this (50 m) count as parallel."""

PARAMETERS = ("width", "aspect", "shift_column", "shift_row", "inverse_distance", "tilt", "turn", "roll")
"""The numbers of a pose: log of the field's width at the isocentre in mm, log of its height over its width, shift of
source and detector along the columns and rows in mm, 1 / source-isocentre distance in 1/mm, and the rotation vector in
radians about the column axis (tilt), the row axis (turn) and the detector's normal (roll)."""


@dataclass(frozen=True, eq=False)
class Beam:
    """The nominal direction of a view: what poses are relative to.

    Attributes:
        name: Name of the view.
        axes: Column axis, row axis and normal in the world, in its rows (3, 3), float64.
    """

    name: str
    axes: Float[Tensor, "3 3"]

    @classmethod
    def of(cls, camera: Camera) -> "Beam":
        """The direction of a camera."""
        axes = [camera.column_axis, camera.row_axis, camera.normal]
        return cls(camera.name, torch.tensor(axes, dtype=torch.float64))

    def turned(self, poses: Float[Tensor, "N 8"]) -> Float[Tensor, "N 3 3"]:
        """Column axis, row axis and normal of each pose."""
        vectors = poses[:, 5:8].double() @ self.axes
        turns = rigid_motion(vectors, torch.zeros_like(vectors))[:, :3, :3]
        return self.axes @ turns.transpose(1, 2)

    def camera(self, pose: Float[Tensor, " 8"], size: tuple[int, int]) -> Camera:
        """The camera of a pose, in mm from the isocentre.

        Args:
            pose: The numbers of `PARAMETERS`.
            size: Rows and columns of the picture.
        """
        column, row, normal = self.turned(pose[None])[0]
        width, inverse = exp(float(pose[0])), float(pose[4])
        height = width * exp(float(pose[1]))
        center = float(pose[2]) * column + float(pose[3]) * row
        parallel = inverse < PARALLEL
        magnification = 1.0 if parallel else 1 + inverse * DETECTOR_DISTANCE
        source = None if parallel else _vector(center - normal / inverse)
        detector = center if parallel else center + DETECTOR_DISTANCE * normal
        return Camera(
            name=self.name,
            source=source,
            detector_center=_vector(detector),
            column_axis=_vector(column),
            row_axis=_vector(row),
            pixel_spacing=(height * magnification / size[0], width * magnification / size[1]),
            size=size,
        )

    @staticmethod
    def pose(camera: Camera) -> Float[Tensor, " 8"]:
        """The pose of a camera whose own direction is the beam's; its central ray meets the middle of its detector."""
        normal = torch.tensor(camera.normal, dtype=torch.float64)
        center = torch.tensor(camera.detector_center, dtype=torch.float64)
        inverse, magnification = 0.0, 1.0
        if camera.source is not None:
            inverse = -1 / float(torch.tensor(camera.source, dtype=torch.float64) @ normal)
            magnification = 1 + inverse * float(center @ normal)
        height, width = (n * side / magnification for n, side in zip(camera.size, camera.pixel_spacing))
        column, row = (torch.tensor(axis, dtype=torch.float64) for axis in (camera.column_axis, camera.row_axis))
        shift = [float(center @ column), float(center @ row)]
        return torch.tensor([log(width), log(height / width), *shift, inverse, 0.0, 0.0, 0.0])

    def image_points(self, poses: Float[Tensor, "N 8"], points: Float[Tensor, "P 3"]) -> Float[Tensor, "N P 2"]:
        """Where points appear, along the columns and rows, in [-1, 1] from edge to edge of the picture.

        Args:
            poses: The numbers of `PARAMETERS`.
            points: In mm from the isocentre.
        """
        poses = poses.double()
        inside = points.double() @ self.turned(poses).transpose(1, 2)
        depth = 1 + poses[:, 4, None] * inside[..., 2]
        half = torch.stack([poses[:, 0], poses[:, :2].sum(1)], dim=1).exp() / 2
        return (inside[..., :2] - poses[:, None, 2:4]) / depth[..., None] / half[:, None]


def _vector(values: Tensor) -> tuple[float, float, float]:
    x, y, z = (float(v) + 0.0 for v in values.tolist())
    return x, y, z
