"""Frames, cameras and geometry presets. This page is the convention; everything else follows it.

World
    Right-handed RAS+ millimetres as in nibabel and MONAI: x grows to the patient's right, y to anterior, z to
    superior. The origin of all camera coordinates is the isocentre: the centre of the volume unless a case says
    otherwise.

Volume
    Tensor (B, 1, X, Y, Z). Voxel (i, j, k) has its centre at (index - (n - 1) / 2) * voxel_spacing from the
    isocentre (`voxel_to_world`); an affine of one's own may turn and shift it.

View
    The azimuth is DICOM's Positioner Primary Angle: the direction from the isocentre to the detector, 0 deg =
    detector anterior of the patient (a PA beam), +90 deg = detector on the patient's left (left lateral). The
    elevation is the secondary angle, cranial positive.

Detector
    Pixel (r, c) has its centre at (c - (W - 1) / 2) * width along the column axis and (r - (H - 1) / 2) * height
    along the row axis, from the detector centre. Row 0 is superior. Columns run to the patient's left at 0 deg (the
    viewer faces the patient: the patient's right is on the left of the image) and to posterior at +90 deg
    (anterior is on the left of the image).

Where a bright voxel lands, seen from the image centre (the nearer to the detector, the less it is magnified):

    ==================  =====================  =====================
    voxel               ``pa`` (0 deg)         ``lat`` (+90 deg)
    ==================  =====================  =====================
    patient's left      to the right           near the detector
    anterior            near the detector      to the left
    superior            up                     up
    ==================  =====================  =====================

Grid
    `torch.nn.functional.grid_sample` wants coordinates in (z, y, x) order of a (X, Y, Z) tensor, in [-1, 1] with
    align_corners=False. `world_to_grid` is the one place where that order is made.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from math import cos, isfinite, radians, sin
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Vector = tuple[float, float, float]

DEFAULT_EXTENT = 320.0
"""Side in mm of the cube that a case is cropped or padded to (X2CT-GAN, Ying et al., CVPR 2019)."""


@dataclass(frozen=True)
class Camera:
    """One view: where source and detector stand, in mm relative to the isocentre.

    Attributes:
        name: Name of the view, such as ``pa`` or ``lat``.
        source: Position of the X-ray source; None is a source at infinity, a beam parallel to the detector's normal.
        detector_center: Position of the middle of the detector.
        column_axis: Unit vector along which the column index grows.
        row_axis: Unit vector along which the row index grows; at right angles to `column_axis`.
        pixel_spacing: Height and width of one pixel in mm, in the order of `size`.
        size: Number of rows and columns (H, W).

    Raises:
        ValueError: If the axes are not orthonormal, a size is not positive, or the source is behind the detector.
    """

    name: str
    source: Vector | None
    detector_center: Vector
    column_axis: Vector
    row_axis: Vector
    pixel_spacing: tuple[float, float]
    size: tuple[int, int]

    def __post_init__(self) -> None:
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
                f"camera {self.name!r}: the source must stand on the side that row_axis x column_axis points away "
                f"from, got source {self.source} and detector centre {self.detector_center}; a mirrored axis?"
            )

    def _normal(self) -> Tensor:
        normal: Tensor = torch.linalg.cross(_vector(self.row_axis), _vector(self.column_axis))
        return normal

    @property
    def normal(self) -> Vector:
        """Unit vector of the detector that points away from the source, row_axis x column_axis."""
        return _as_vector(self._normal())

    def resized(self, size: tuple[int, int]) -> "Camera":
        """The same detector read out with another number of rows and columns."""
        _check_size(size)
        height, width = self.pixel_spacing
        spacing = (height * self.size[0] / size[0], width * self.size[1] / size[1])
        return replace(self, size=(int(size[0]), int(size[1])), pixel_spacing=spacing)

    def turned(self, azimuth_deg: float) -> "Camera":
        """The same set-up turned about the patient's z axis, source and detector together.

        Args:
            azimuth_deg: Angle that is added to the view's azimuth.
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

    def pixel_to_world(self) -> Float[Tensor, "3 3"]:
        """Matrix (float64) that takes (c, r, 1) to the pixel's centre in world mm."""
        column = _vector(self.column_axis) * self.pixel_spacing[1]
        row = _vector(self.row_axis) * self.pixel_spacing[0]
        corner = _vector(self.detector_center) - column * (self.size[1] - 1) / 2 - row * (self.size[0] - 1) / 2
        return torch.stack([column, row, corner], dim=1)

    def world_to_detector(self) -> Float[Tensor, "3 4"]:
        """Projection matrix (float64) from homogeneous world mm to homogeneous detector coordinates (u, v, w).

        u / w runs over the columns and v / w over the rows, both in [-1, 1] from edge to edge of the detector
        (`grid_sample` with align_corners=False), whatever the number of pixels. w is positive in front of the source.
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
        """The camera as JSON takes it; inverse of `from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Camera":
        """The camera that `to_dict` wrote.

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


_PRESETS: dict[str, tuple[float | None, float | None, float]] = {
    # name: source-isocentre, source-detector, side of the square detector, all in mm
    "parallel": (None, None, DEFAULT_EXTENT),
    "x2ct": (541.0, 949.075, 500.0),  # X2CT-GAN's DRR set-up (Ying et al., CVPR 2019)
    "clinic": (1600.0, 1800.0, 430.0),  # upright chest stand: 1.8 m film distance, 43 x 43 cm detector
}


def preset(name: str, size: int | tuple[int, int] = 512) -> tuple[Camera, ...]:
    """The cameras of a named geometry.

    ``parallel``, ``x2ct`` and ``clinic`` have the two views ``pa`` (0 deg) and ``lat`` (+90 deg). ``circle-N`` has N
    views spread evenly over 180 degrees from 0 deg on, with the distances of ``x2ct``.

    Args:
        name: ``parallel``, ``x2ct``, ``clinic`` or ``circle-N``, such as ``circle-8``.
        size: Rows and columns of the detector; one number for a square one.

    Raises:
        ValueError: If no preset has this name.
    """
    rows_columns = (size, size) if isinstance(size, int) else size
    family, _, count = name.partition("-")
    if name in _PRESETS:
        angles = {"pa": 0.0, "lat": 90.0}
    elif family == "circle" and count.isdigit() and int(count) > 0:
        angles = {f"view{i}": 180.0 * i / int(count) for i in range(int(count))}
    else:
        raise ValueError(f"geometry must be one of {', '.join(_PRESETS)} or circle-N, got {name!r}")
    sod, sdd, extent = _PRESETS["x2ct" if family == "circle" else name]
    return tuple(
        make_camera(view, angle, sod=sod, sdd=sdd, detector_extent=(extent, extent), size=rows_columns)
        for view, angle in angles.items()
    )


def follows_preset(cameras: Sequence[Camera], name: str) -> bool:
    """Whether cameras see what those of a preset see, view by view, whatever their numbers of pixels.

    Args:
        cameras: In the preset's order.
        name: The preset.
    """
    expected = preset(name)
    return len(cameras) == len(expected) and all(
        torch.allclose(camera.world_to_detector(), other.world_to_detector(), rtol=1e-4, atol=1e-6)
        for camera, other in zip(cameras, expected)
    )


def projection_matrices(cameras: Sequence[Camera]) -> Float[Tensor, "V 3 4"]:
    """World-to-detector matrices (float32) of several views; see `Camera.world_to_detector`."""
    return torch.stack([camera.world_to_detector() for camera in cameras]).float()


def voxel_to_world(shape: Sequence[int], voxel_spacing: float | Sequence[float]) -> Float[Tensor, "4 4"]:
    """Affine (float64) of a volume that is centred on the isocentre, from voxel index to world mm.

    Args:
        shape: Number of voxels (X, Y, Z).
        voxel_spacing: Voxel side in mm, one number or one for each axis.

    Raises:
        ValueError: If the shape has not three sizes, or a voxel side is not positive.
    """
    spacing = torch.as_tensor(voxel_spacing, dtype=torch.float64)
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be three voxel counts (X, Y, Z), got {tuple(shape)}")
    if spacing.numel() not in (1, 3) or not bool((spacing > 0).all() and spacing.isfinite().all()):
        raise ValueError(f"voxel_spacing must be one or three positive numbers in mm, got {voxel_spacing}")
    spacing = spacing.expand(3)
    affine = torch.diag(torch.cat([spacing, torch.ones(1, dtype=torch.float64)]))
    affine[:3, 3] = -spacing * (torch.tensor([*shape], dtype=torch.float64) - 1) / 2
    return affine


def voxel_centers(shape: Sequence[int], voxel_spacing: float | Sequence[float]) -> Float[Tensor, "X Y Z 3"]:
    """World coordinates in mm (float64) of all voxel centres of a volume that is centred on the isocentre."""
    affine = voxel_to_world(shape, voxel_spacing)
    axes = [torch.arange(n, dtype=torch.float64) * affine[i, i] + affine[i, 3] for i, n in enumerate(shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def world_to_grid(points: Float[Tensor, "*batch 3"], extent: float | Sequence[float]) -> Float[Tensor, "*batch 3"]:
    """Coordinates for `grid_sample` on a (X, Y, Z) volume: [-1, 1] from face to face, in (z, y, x) order.

    Args:
        points: World coordinates (x, y, z) in mm.
        extent: Sides of the volume in mm; the volume is centred on the isocentre.
    """
    half = torch.as_tensor(extent, dtype=points.dtype, device=points.device).expand(3) / 2  # (x, y, z)
    return (points / half).flip(-1)


def _check_size(size: tuple[int, int]) -> None:
    if min(size) < 1:
        raise ValueError(f"size must be positive numbers of rows and columns, got {tuple(size)}")


def _vector(values: Sequence[float]) -> Tensor:
    return torch.tensor([*values], dtype=torch.float64)


def _as_vector(values: Tensor) -> Vector:
    x, y, z = (float(v) + 0.0 for v in values.tolist())  # + 0.0 turns -0.0 into 0.0
    return x, y, z
