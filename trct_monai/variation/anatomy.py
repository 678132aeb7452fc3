"""Where lungs, heart, spine and bones of a CT are, on a coarse grid: quick enough to be found anew for each case."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from trct_monai.intensity import BONE_HU, LUNG_HU

COARSE_MM = 5.0
"""Voxel side of the grid, about; finer CTs are averaged to it."""

MIN_LUNG_ML = 150.0
"""Smaller pockets of air are no lungs."""

TUBE_MM = 12.0
"""Half the width of air that is no lung but an airway."""

Array = np.ndarray
SIDES = {"left": -1, "right": 1}
"""Sign of x: volumes are RAS+, and x grows to the patient's right."""


@dataclass(frozen=True)
class Anatomy:
    """A CT on a coarse grid on the CPU, and its lungs. Positions are (x, y, z) in mm from the middle of the volume.

    Attributes:
        shape: Voxels of the CT (X, Y, Z).
        spacing: Their side in mm.
        hu: The CT on the coarse grid (A, B, C).
        step: Voxel sides of the coarse grid in mm.
        lungs: The lungs on it by side, vessels included and trachea not; empty without lungs.
    """

    shape: tuple[int, ...]
    spacing: float
    hu: Float[Array, "A B C"]
    step: tuple[float, ...]
    lungs: dict[str, Bool[Array, "A B C"]]

    def positions(self, mask: Bool[Array, "A B C"]) -> Float[Array, "N 3"]:
        """Where a mask is."""
        return (np.argwhere(mask) - (np.array(mask.shape) - 1) / 2) * np.array(self.step)

    def draw(
        self, random: np.random.RandomState, mask: Bool[Array, "A B C"], number: int = 1
    ) -> Float[Array, "N 3"] | None:
        """Random positions in a mask; None where it is empty."""
        there = self.positions(mask)
        if not len(there):
            return None
        chosen = there[random.randint(len(there), size=number)]
        result: Array = chosen + (random.random((number, 3)) - 0.5) * np.array(self.step)
        return result

    @cached_property
    def body(self) -> Bool[Array, "A B C"]:
        """The patient, without lungs."""
        return self.hu > LUNG_HU

    @cached_property
    def bone(self) -> Bool[Array, "A B C"]:
        """Bone, and whatever is as dense."""
        return self.hu > BONE_HU

    @cached_property
    def corners(self) -> dict[str, Float[Array, "2 3"]]:
        """Lowest and highest corner of each lung."""
        there = {side: self.positions(mask) for side, mask in self.lungs.items()}
        return {side: np.stack([points.min(axis=0), points.max(axis=0)]) for side, points in there.items()}

    @cached_property
    def chest(self) -> Float[Array, "2 3"]:
        """Lowest and highest corner of both lungs."""
        corners = np.stack([*self.corners.values()])
        return np.stack([corners[:, 0].min(axis=0), corners[:, 1].max(axis=0)])

    @cached_property
    def middle(self) -> float:
        """The x of the mediastinum."""
        return float(self.corners["left"][1, 0] + self.corners["right"][0, 0]) / 2

    def at(self, x: float, y: float, z: float) -> Float[Array, "3"]:
        """A position by its distance in mm from the mediastinum to the right, and by shares of the lungs' depth and
        height from the back and from below."""
        low, high = self.chest
        return np.array([self.middle + x, low[1] + y * (high[1] - low[1]), low[2] + z * (high[2] - low[2])])

    def front(self, x: float, z: float) -> float:
        """The y of the skin in front at a place; that of the volume's front where there is no body."""
        index = [self._index(0, x), self._index(2, z)]
        dense = np.flatnonzero(self.body[index[0], :, index[1]])
        last = int(dense[-1]) if len(dense) else self.hu.shape[1] - 1
        return (last + 0.5 - (self.hu.shape[1] - 1) / 2) * self.step[1]

    def heart(self) -> Float[Array, "3"]:
        """The middle of the heart: that of the soft tissue between the lungs, a little left and in the lower half."""
        place = self.at(-15, 0.6, 0.35)
        soft = (self.hu > -100) & (self.hu < BONE_HU)
        box = tuple(
            slice(self._index(axis, place[axis] - reach), self._index(axis, place[axis] + reach) + 1)
            for axis, reach in enumerate((60.0, 35.0, 30.0))
        )
        inside = np.zeros_like(soft)
        inside[box] = soft[box]
        found = self.positions(inside)
        return found.mean(axis=0) if len(found) else place

    def spine(self, z: float) -> Float[Array, "2"]:
        """The (x, y) of the spine at a height: the mean of the bone near the middle and in the back half."""
        k = self._index(2, z)
        bone = self.bone.copy()
        bone[:, :, : max(0, k - 2)] = bone[:, :, k + 3 :] = False
        found = self.positions(bone)
        back = self.at(0, 0.5, 0)[1]
        found = found[(np.abs(found[:, 0] - self.middle) < 40) & (found[:, 1] < back)]
        return found.mean(axis=0)[:2] if len(found) else self.at(0, 0.1, 0)[:2]

    def cavity(self, side: str, ct_hu: Float[Tensor, "1 X Y Z"]) -> Bool[Tensor, "X Y Z"]:
        """A lung on the CT's own grid and device, vessels included: its air, and what is well inside."""
        mask = self.lungs[side]
        near, inside = ndimage.binary_dilation(mask), ndimage.binary_erosion(mask)
        both = torch.from_numpy(np.stack([near, inside])).float().to(ct_hu.device)
        near_fine, inside_fine = F.interpolate(both[None], size=self.shape, mode="trilinear")[0] > 0.5
        return (near_fine & (ct_hu[0] < LUNG_HU + 150)) | inside_fine

    def _index(self, axis: int, place: float) -> int:
        number = self.hu.shape[axis]
        return min(max(round(place / self.step[axis] + (number - 1) / 2), 0), number - 1)


def find_anatomy(ct_hu: Float[Tensor, "1 X Y Z"], spacing: float) -> Anatomy:
    """The anatomy of a CT. Copying the coarse grid from its device is all that waits for the device.

    Args:
        ct_hu: CT numbers in HU.
        spacing: Voxel side in mm.
    """
    shape = tuple(ct_hu.shape[1:])
    size = [max(1, round(n * spacing / max(COARSE_MM, spacing))) for n in shape]
    coarse = F.interpolate(ct_hu[None].float(), size=size, mode="area")[0, 0].cpu().numpy()
    step = tuple(n * spacing / m for n, m in zip(shape, size))
    return Anatomy(shape, spacing, coarse, step, _lungs(coarse, step))


def _lungs(hu: Float[Array, "A B C"], step: Sequence[float]) -> dict[str, Bool[Array, "A B C"]]:
    """The two lungs by side; empty if one is missing.

    Air that does not reach the front, the back or a side of the volume, and is large, is lung; what is as narrow as an
    airway is none; what small dense things are inside belongs to it.
    """
    labels, count = ndimage.label(hu < LUNG_HU)
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        voxels[np.unique(face)] = 0
    voxels[0] = 0
    least = max(MIN_LUNG_ML * 1e3 / float(np.prod(step)), 0.2 * float(voxels.max()))
    air = (voxels >= least)[labels]
    if not air.any():
        return {}
    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(air))
    around = round(TUBE_MM / float(np.mean(step)))
    ball = ndimage.generate_binary_structure(3, 1)
    inner = np.pad(air[box], around + 1, mode="edge")
    if around:
        wide = ndimage.binary_opening(inner, ball, iterations=around)
        inner = ndimage.binary_dilation(wide, ball, iterations=around + 1, mask=inner)
        inner = ndimage.binary_closing(inner, ball, iterations=around)
    inner = inner[(slice(around + 1, -around - 1),) * 3]
    x = np.nonzero(inner)[0]
    if not len(x):
        return {}
    result = {}
    middle = (x.min() + x.max()) / 2
    for side, sign in SIDES.items():
        mask = np.zeros(hu.shape, bool)
        mask[box] = inner & (sign * (np.arange(inner.shape[0]) - middle) > 0)[:, None, None]
        result[side] = mask
    return result if all(mask.any() for mask in result.values()) else {}
