"""A camera: source and detector of one radiograph, and its map from the world to pixels."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, isfinite, radians, sin
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Camera:
    """One view: position of source and detector in mm relative to the isocentre.

    Attributes:
        name: Name of the view, such as ``pa`` or ``lat``.
        source: Position of the X-ray source; None for a source at infinity: a beam parallel to the detector's normal.
        detector_center: Position of the middle of the detector.
        column_axis: Unit vector along which the column index grows.
        row_axis: Unit vector along which the row index grows; at right angles to `column_axis`.
        pixel_spacing: Height and width of one pixel in mm, in the order of `size`.
        size: Number of rows and columns (H, W).

    Raises:
        ValueError: If the axes are not orthonormal, a size is not positive, the source is behind the detector, or the
            name, which files are called by, has a separator of folders or a control character.
    """

    name: str
    source: Vector | None
    detector_center: Vector
    column_axis: Vector
    row_axis: Vector
    pixel_spacing: tuple[float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if not str(self.name).isprintable() or set(str(self.name)) & {"/", "\\"}:
            raise ValueError(f"a camera's name must be without / and \\ and control characters, got {self.name!r}")
        vectors = [self.source or (0.0,) * 3, self.detector_center, self.column_axis, self.row_axis]
        if {len(vector) for vector in vectors} != {3} or {len(self.pixel_spacing), len(self.size)} != {2}:
            raise ValueError(
                f"camera {self.name!r}: points and axes have three numbers, pixels and size two, got {self}"
            )
        column, row = _vector(self.column_axis), _vector(self.row_axis)
        numbers = [*(self.source or ()), *self.detector_center, *self.column_axis, *self.row_axis, *self.pixel_spacing]
        if not all(isfinite(number) for number in numbers):
            raise ValueError(f"camera {self.name!r}: every length and axis must be finite, got {self}")
        if max(abs(column @ column - 1), abs(row @ row - 1), abs(column @ row)) > 1e-6:
            raise ValueError(
                f"camera {self.name!r}: column_axis and row_axis must be unit vectors at right angles, "
                f"got {self.column_axis} and {self.row_axis}"
            )
        if min(self.pixel_spacing) <= 0 or min(self.size) < 1:
            raise ValueError(
                f"camera {self.name!r}: pixel_spacing and size must be positive, "
                f"got {self.pixel_spacing} mm and {self.size} pixels"
            )
        if self.source is not None and (_vector(self.detector_center) - _vector(self.source)) @ self._normal() <= 0:
            raise ValueError(
                f"camera {self.name!r}: row_axis x column_axis must point from the source to the detector, got source "
                f"{self.source} and detector centre {self.detector_center}; a mirrored axis?"
            )

    def _normal(self) -> Tensor:
        normal: Tensor = torch.linalg.cross(_vector(self.row_axis), _vector(self.column_axis))
        return normal

    @property
    def normal(self) -> Vector:
        """Unit vector of the detector that points away from the source, row_axis x column_axis."""
        return _as_vector(self._normal())

    def resized(self, size: tuple[int, int]) -> "Camera":
        """The same detector with another number of rows and columns."""
        _check_size(size)
        height, width = self.pixel_spacing
        spacing = (height * self.size[0] / size[0], width * self.size[1] / size[1])
        return replace(self, size=(int(size[0]), int(size[1])), pixel_spacing=spacing)

    def turned(self, azimuth_deg: float) -> "Camera":
        """The camera rotated about the patient's z axis, source and detector together.

        Args:
            azimuth_deg: Angle to add to the view's azimuth.
        """
        c, s = cos(radians(azimuth_deg)), sin(radians(azimuth_deg))

        def turn(v: Vector) -> Vector:
            return (c * v[0] - s * v[1], s * v[0] + c * v[1], v[2])

        return replace(
            self,
            source=None if self.source is None else turn(self.source),
            detector_center=turn(self.detector_center),
            column_axis=turn(self.column_axis),
            row_axis=turn(self.row_axis),
        )

    def shifted(self, offset: Sequence[float]) -> "Camera":
        """The camera translated by `offset`, source and detector together.

        Args:
            offset: In mm (x, y, z).
        """

        def moved(point: Vector) -> Vector:
            return point[0] + float(offset[0]), point[1] + float(offset[1]), point[2] + float(offset[2])

        source = None if self.source is None else moved(self.source)
        return replace(self, source=source, detector_center=moved(self.detector_center))

    def opposite(self) -> "Camera":
        """The view from the other side, source and detector exchanged, with an image that is not mirrored.

        In a cone beam a right lateral is no mirrored left lateral: parts near to the detector are less magnified.
        """

        def negated(point: Vector) -> Vector:
            return -point[0], -point[1], -point[2]

        return replace(
            self,
            source=None if self.source is None else negated(self.source),
            detector_center=negated(self.detector_center),
            column_axis=negated(self.column_axis),
        )

    def for_picture(self, size: tuple[int, int], pixel_spacing: tuple[float, float] | None = None) -> "Camera":
        """The camera of a picture that was taken with this source and detector and has pixels of its own.

        This is the one rule for pictures without a camera. The middle of the picture is the middle of the detector. The
        pixels have the size of the picture's header; without one they are square, and the picture's longer side fills
        the longer side of the detector. Nothing is stretched.

        Args:
            size: Rows and columns of the picture.
            pixel_spacing: Height and width of its pixels at the detector in mm, from its header; None without one.
        """
        _check_size(size)
        side = max(n * spacing for n, spacing in zip(self.size, self.pixel_spacing)) / max(size)
        return replace(self, size=(int(size[0]), int(size[1])), pixel_spacing=pixel_spacing or (side, side))

    def pixel_to_world(self) -> Float[Tensor, "3 3"]:
        """Matrix (float64) that takes (c, r, 1) to the pixel's centre in world mm."""
        column = _vector(self.column_axis) * self.pixel_spacing[1]
        row = _vector(self.row_axis) * self.pixel_spacing[0]
        corner = _vector(self.detector_center) - column * (self.size[1] - 1) / 2 - row * (self.size[0] - 1) / 2
        return torch.stack([column, row, corner], dim=1)

    def world_to_detector(self) -> Float[Tensor, "3 4"]:
        """Projection matrix (float64) from homogeneous world mm to homogeneous detector coordinates (u, v, w).

        u / w runs over the columns and v / w over the rows, both in [-1, 1] from edge to edge of the detector
        (`grid_sample` with align_corners=False), for any number of pixels. w is positive in front of the source.
        """
        column, row, normal = _vector(self.column_axis), _vector(self.row_axis), self._normal()
        half_height = self.pixel_spacing[0] * self.size[0] / 2
        half_width = self.pixel_spacing[1] * self.size[1] / 2
        center = _vector(self.detector_center)
        axes = torch.stack([column / half_width, row / half_height])
        if self.source is None:
            top = torch.cat([axes, -(axes @ center)[:, None]], dim=1)
            bottom = torch.tensor([[0.0, 0.0, 0.0, 1.0]], dtype=torch.float64)
            return torch.cat([top, bottom])
        source = _vector(self.source)
        sdd = normal @ (center - source)
        # A point at depth d behind the source is magnified by sdd / d; w = d / sdd.
        depth = torch.cat([normal, -(normal @ source)[None]]) / sdd
        offset = torch.cat([axes, -(axes @ source)[:, None]], dim=1)
        shift = axes @ (source - center)
        return torch.cat([offset + shift[:, None] * depth, depth[None]])

    @classmethod
    def from_world_to_detector(
        cls, matrix: Float[Tensor, "3 4"], size: tuple[int, int], name: str = "view"
    ) -> "Camera":
        """The camera with this projection matrix; inverse of `world_to_detector`.

        Args:
            matrix: As `world_to_detector` gives it, up to a rigid motion of the world and float32's rounding.
            size: Rows and columns (H, W).
            name: Name of the view.
        """
        top, depth = matrix[:2].double(), matrix[2].double()
        cone = float(depth[:3].norm()) > 0
        sdd = 1 / float(depth[:3].norm()) if cone else 0.0
        normal = depth[:3] * sdd
        along = top[:, :3] @ normal  # how far the detector's middle is off the foot of the source, in half detectors
        axes = top[:, :3] - along[:, None] * normal
        half_width, half_height = (1 / float(axis.norm()) for axis in axes)
        column = axes[0] * half_width
        row = axes[1] * half_height - (axes[1] @ column) * half_height * column
        row = row / row.norm()
        if cone:
            source = torch.linalg.solve(matrix[:, :3].double(), -matrix[:, 3].double())
            u, v = (along * sdd).tolist()
            center = source + sdd * normal - u * half_width * column - v * half_height * row
        else:
            source, center = None, -float(top[0, 3]) * half_width * column - float(top[1, 3]) * half_height * row
        return cls(
            name=name,
            source=None if source is None else _as_vector(source),
            detector_center=_as_vector(center),
            column_axis=_as_vector(column),
            row_axis=_as_vector(row),
            pixel_spacing=(2 * half_height / size[0], 2 * half_width / size[1]),
            size=(int(size[0]), int(size[1])),
        )

    def to_dict(self) -> dict[str, Any]:
        """The camera as a dictionary for JSON; inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Camera":
        """The camera of a dictionary from `to_dict`.

        Raises:
            ValueError: If a field is missing or unknown.
        """
        if set(values) != set(cls.__dataclass_fields__):
            fields = ", ".join(cls.__dataclass_fields__)
            raise ValueError(f"a camera needs the fields {fields}, got {', '.join(values)}")
        fixed: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**fixed)


def make_camera(
    name: str,
    azimuth_deg: float,
    *,
    elevation_deg: float = 0.0,
    sod: float | None,
    sdd: float | None,
    detector_extent: tuple[float, float],
    size: tuple[int, int],
) -> Camera:
    """The camera that looks at the isocentre from a given angle.

    Args:
        name: Name of the view.
        azimuth_deg: DICOM Positioner Primary Angle: 0 = detector anterior, +90 = detector at the patient's left.
        elevation_deg: DICOM Positioner Secondary Angle, cranial positive.
        sod: Source-to-isocentre distance in mm; None for a parallel beam.
        sdd: Source-to-detector distance in mm; None for a parallel beam.
        detector_extent: Height and width of the detector in mm.
        size: Rows and columns of the detector (H, W).

    Raises:
        ValueError: If only one of `sod` and `sdd` is given, or not 0 < sod < sdd.
    """
    _check_size(size)
    azimuth, elevation = radians(azimuth_deg), radians(elevation_deg)
    toward = torch.tensor([-sin(azimuth), cos(azimuth), 0.0], dtype=torch.float64)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    normal = cos(elevation) * toward + sin(elevation) * up
    row_axis = sin(elevation) * toward - cos(elevation) * up
    if sod is None and sdd is None:
        source, center = None, 0.0 * normal
    elif sod is not None and sdd is not None and 0 < sod < sdd:
        source, center = _as_vector(-sod * normal), (sdd - sod) * normal
    else:
        raise ValueError(
            f"sod and sdd must satisfy 0 < sod < sdd in mm, or both be None (parallel), got {sod} and {sdd}"
        )
    return Camera(
        name=name,
        source=source,
        detector_center=_as_vector(center),
        column_axis=_as_vector(torch.tensor([-cos(azimuth), -sin(azimuth), 0.0], dtype=torch.float64)),
        row_axis=_as_vector(row_axis),
        pixel_spacing=(detector_extent[0] / size[0], detector_extent[1] / size[1]),
        size=(int(size[0]), int(size[1])),
    )


def projection_matrices(cameras: Sequence[Camera]) -> Float[Tensor, "V 3 4"]:
    """World-to-detector matrices (float32) of several views; see `Camera.world_to_detector`."""
    return torch.stack([camera.world_to_detector() for camera in cameras]).float()


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ValueError(f"size must be positive numbers of rows and columns, got {tuple(size)}")


def _vector(values: Sequence[float]) -> Tensor:
    return torch.tensor([*values], dtype=torch.float64)


def _as_vector(values: Tensor) -> Vector:
    x, y, z = (float(v) + 0.0 for v in values.tolist())  # + 0.0 turns -0.0 into 0.0
    return x, y, z
