"""The rays of a camera in the coordinates of a volume's voxels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from trct_monai.geometry import Camera

Shape = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Rays:
    """The rays of a camera in voxel coordinates, float64.

    Pixel (r, c) stands at corner + c * column + r * row. A ray of a cone is at source + t * (pixel - source), so that
    the source has t = 0 and the detector t = 1. A ray of a parallel beam is at pixel + t * direction, with t in mm.
    No ray ends at the detector.
    """

    camera: Camera
    corner: Tensor
    column: Tensor
    row: Tensor
    source: Tensor | None
    direction: Tensor
    length: Tensor
    """Length of each ray in mm for one unit of t, (H, W)."""

    @classmethod
    def of(cls, camera: Camera, affine: Tensor) -> "Rays":
        """The rays of a camera.

        Args:
            camera: The camera.
            affine: Matrix (4, 4), float64, from voxel index to mm from the isocentre.
        """
        world_to_voxel = torch.linalg.inv(affine)
        turn, shift = world_to_voxel[:3, :3], world_to_voxel[:3, 3]
        pixel_to_world = camera.pixel_to_world()
        column, row, corner = (turn @ pixel_to_world).unbind(1)
        direction = turn @ torch.tensor(camera.normal, dtype=torch.float64)
        if camera.source is None:
            length = torch.ones(camera.size, dtype=torch.float64)
            return cls(camera, corner + shift, column, row, None, direction, length)
        source = torch.tensor(camera.source, dtype=torch.float64)
        r, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in camera.size), indexing="ij")
        pixels = torch.stack([c, r, torch.ones_like(c)], dim=-1) @ pixel_to_world.T
        length = (pixels - source).norm(dim=-1)
        return cls(camera, corner + shift, column, row, turn @ source + shift, direction, length)

    @property
    def is_separable(self) -> bool:
        """Whether the detector's rows are stacked along the volume's z axis and nothing else."""
        row_is_z = self.row[:2].abs().max() <= 1e-9 * self.row.norm()
        return bool(row_is_z and self.column[2].abs() <= 1e-9 * self.column.norm())

    def check_source(self, shape: Shape) -> None:
        """Raise ValueError if a part of the volume reaches behind the source."""
        if self.source is not None and self.depth(_corners(shape, margin=0.5))[0].min() <= 0:
            raise ValueError(
                f"camera {self.camera.name!r}: the source {self.camera.source} mm is inside or beside the volume, of "
                "which no part may reach behind it; move the source away or check the unit of the voxel spacing"
            )

    def depth(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """The t of points (N, 3), and its gradient (3): across planes parallel to the detector t is the same."""
        normal = torch.linalg.cross(self.row, self.column)
        start, reach = (
            (self.corner, self.direction) if self.source is None else (self.source, self.corner - self.source)
        )
        gradient = normal / (normal @ reach)
        return (points - start) @ gradient, gradient

    def planes(self, shape: Shape) -> tuple[Tensor, float]:
        """Planes parallel to the detector, one voxel apart, from one end of the volume to the other.

        Returns:
            The planes' t, and the distance in t between two of them. For a view along a voxel axis the planes are the
            volume's slices themselves.
        """
        t, gradient = self.depth(_corners(shape, margin=0.0))
        step = float(gradient.norm())
        count = int(torch.ceil((t.max() - t.min()) / step - 1e-6)) + 1
        return (t.max() + t.min()) / 2 + (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * step, step

    def first(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Where pixel (0, 0)'s ray meets the planes t, and how far a step on the detector reaches there."""
        if self.source is None:
            return self.corner + t[:, None] * self.direction, torch.ones_like(t)
        return self.source + t[:, None] * (self.corner - self.source), t

    def starts_and_directions(self) -> tuple[Tensor, Tensor]:
        """Point at t = 0 and voxels for one unit of t of each ray, (H, W, 3)."""
        r, c = torch.meshgrid(*(torch.arange(n) for n in self.length.shape), indexing="ij")
        pixels = self.corner + c[..., None] * self.column + r[..., None] * self.row
        if self.source is None:
            return pixels, self.direction.expand_as(pixels)
        return self.source.expand_as(pixels), pixels - self.source

    def main_axis(self, direction: Tensor) -> int:
        """The volume's axis that the beam runs along most.

        Args:
            direction: Of each ray, (H, W, 3), as from `starts_and_directions`.

        Raises:
            ValueError: If a ray does not cross that axis's slices, or crosses them the other way.
        """
        axis = int(direction.mean(dim=(0, 1)).abs().argmax())
        if not (direction[..., axis].min() > 0 or direction[..., axis].max() < 0):
            raise ValueError(
                f"camera {self.camera.name!r} has rays that run along the slices of the volume's axis {axis}; "
                "use a longer source-detector distance or a smaller detector"
            )
        return axis


def _corners(shape: Shape, margin: float) -> Tensor:
    """The eight corner voxels' centres (margin 0) or the volume's corners (margin 0.5) in voxel coordinates."""
    ends = [torch.tensor([-margin, n - 1 + margin], dtype=torch.float64) for n in shape]
    return torch.cartesian_prod(*ends)
