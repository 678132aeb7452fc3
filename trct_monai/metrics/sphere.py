"""A sphere in a volume: a lesion of known place, size and contrast, and a template that looks for it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

import numpy as np
from jaxtyping import Float

Array = np.ndarray
SHELL = 2.0
"""Outer radius of the shell that is compared with the sphere, in radii of the sphere."""

SUBVOXELS = (4, 32)
"""A voxel's side is divided into as many parts as make 16 in the sphere's radius, within these limits."""


@dataclass(frozen=True)
class Sphere:
    """A planted sphere, or one to look for.

    Attributes:
        center_mm: Its centre (x, y, z) in mm from the middle of the volume.
        diameter_mm: Its diameter.
        contrast_hu: HU that it adds to the tissue.
    """

    center_mm: tuple[float, float, float]
    diameter_mm: float
    contrast_hu: float

    def share(self, shape: Sequence[int], voxel_spacing: float, scale: float = 1.0) -> Float[Array, "X Y Z"]:
        """The share of each voxel that is inside the sphere, or inside one `scale` times as large.

        Args:
            shape: Number of voxels.
            voxel_spacing: Voxel side in mm.
            scale: Factor on the diameter.
        """
        radius = scale * self.diameter_mm / 2
        parts = min(max(ceil(16 * voxel_spacing / radius), SUBVOXELS[0]), SUBVOXELS[1])
        share, spans, squares = np.zeros(tuple(shape)), [], []
        for center, size in zip(self.center_mm, shape):
            middle = center / voxel_spacing + (size - 1) / 2
            reach = radius / voxel_spacing + 1
            low, high = max(0, int(np.floor(middle - reach))), min(size, int(np.ceil(middle + reach)) + 1)
            if high <= low:
                return share
            inside = np.arange(low * parts, high * parts) / parts + (1 / parts - 1) / 2
            spans.append(slice(low, high))
            squares.append(np.square((inside - middle) * voxel_spacing))
        fine = squares[0][:, None, None] + squares[1][:, None] + squares[2] <= radius**2
        blocks = fine.reshape([n for square in squares for n in (len(square) // parts, parts)])
        share[tuple(spans)] = blocks.mean(axis=(1, 3, 5))
        return share

    def response(self, volume_hu: Float[Array, "X Y Z"], voxel_spacing: float) -> float:
        """The observer's response to a volume: mean inside the sphere less mean of its shell, in HU.

        Raises:
            ValueError: If the volume has nothing inside the sphere, or nothing around it.
        """
        window, sphere = self.crop(volume_hu.shape, voxel_spacing, SHELL * self.diameter_mm / 2)
        part = volume_hu[window]
        inside = sphere.share(part.shape, voxel_spacing)
        shell = sphere.share(part.shape, voxel_spacing, SHELL) - inside
        if not (inside.any() and shell.any()):
            raise ValueError(
                f"a sphere of {self.diameter_mm:g} mm at {self.center_mm} mm has nothing inside it, or around it, in "
                f"{volume_hu.shape} voxels of {voxel_spacing:g} mm"
            )
        return float((part * inside).sum() / inside.sum() - (part * shell).sum() / shell.sum())

    def crop(
        self, shape: Sequence[int], voxel_spacing: float, reach_mm: float
    ) -> tuple[tuple[slice, slice, slice], "Sphere"]:
        """The part of a volume around the sphere, and the sphere as it lies in that part.

        Args:
            shape: Number of voxels of the volume.
            voxel_spacing: Voxel side in mm.
            reach_mm: The part holds every voxel that a cube of twice this side around the centre touches.

        Returns:
            The part as slices, empty where it lies outside, and the sphere relative to the part's middle.
        """
        window, center = [], []
        for place, size in zip(self.center_mm, shape):
            middle, reach = place / voxel_spacing + (size - 1) / 2, reach_mm / voxel_spacing + 0.5
            low = min(max(0, ceil(middle - reach)), size)
            high = min(max(low, floor(middle + reach) + 1), size)
            window.append(slice(low, high))
            center.append((middle - (low + high - 1) / 2) * voxel_spacing)
        x, y, z = center
        return (window[0], window[1], window[2]), replace(self, center_mm=(x, y, z))
