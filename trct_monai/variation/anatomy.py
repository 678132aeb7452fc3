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

COARSE_MM = 6.4
"""Voxel side of the grid, about; finer CTs are averaged to it."""

MIN_LUNG_ML = 150.0
"""Smaller pockets of air are no lungs."""

TUBE_MM = 12.0
"""Half the width of air that is no lung but an airway."""

Array = np.ndarray
_IN_SLICES = ndimage.generate_binary_structure(3, 1) & np.array([False, True, False])
PLEURA_HU = -350.0
"""Below it a voxel at the border of a lung is mostly lung."""

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
        places: Array = (np.argwhere(mask) - (np.array(mask.shape) - 1) / 2) * np.array(self.step)
        return places

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
        """The patient without lungs, skin and table: the largest part of what is dense, one voxel inside."""
        labels, _ = ndimage.label(ndimage.binary_erosion(self.hu > LUNG_HU, border_value=1))
        voxels = np.bincount(labels.ravel())
        voxels[0] = 0
        return np.asarray(labels == max(int(voxels.argmax()), 1))

    @cached_property
    def bone(self) -> Bool[Array, "A B C"]:
        """Bone in it, and whatever is as dense."""
        return self.body & (self.hu > BONE_HU)

    @cached_property
    def corners(self) -> dict[str, Float[Array, "2 3"]]:
        """Lowest and highest corner of each lung."""
        there = {side: self.positions(mask) for side, mask in self.lungs.items()}
        return {side: np.stack([points.min(axis=0), points.max(axis=0)]) for side, points in there.items()}

    def medial(self, side: str) -> float:
        """The x of a lung's side that is next to the mediastinum."""
        low, high = self.corners[side]
        return float(low[0] if SIDES[side] > 0 else high[0])

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
        """The y of the skin in front at a place; that of the lungs' front where there is no body."""
        dense = np.flatnonzero(self.body[self._index(0, x), :, self._index(2, z)])
        if not len(dense):
            return float(self.chest[1, 1])
        return float(int(dense[-1]) + 1.5 - (self.hu.shape[1] - 1) / 2) * self.step[1]

    def sternum(self, z: float) -> float:
        """The y of the foremost bone near the skin in the middle at a height; a little behind the skin without one."""
        i, k = self._index(0, self.middle), self._index(2, z)
        found = self.positions(self._only(self.bone, (i - 2, i + 3), (0, None), (k - 1, k + 2)))
        skin = self.front(self.middle, z)
        found = found[found[:, 1] > skin - 45]  # behind it a heart with contrast agent is as dense
        return float(found[:, 1].max()) if len(found) else skin - 20

    def heart(self) -> Float[Array, "3"]:
        """The middle of the heart: that of the soft tissue between the lungs, a little left and in the lower half."""
        place = self.at(-15, 0.6, 0.35)
        soft = (self.hu > -100) & (self.hu < BONE_HU)
        ends = [
            (self._index(axis, place[axis] - reach), self._index(axis, place[axis] + reach) + 1)
            for axis, reach in enumerate((60.0, 35.0, 30.0))
        ]
        found = self.positions(self._only(soft, *ends))
        return found.mean(axis=0) if len(found) else place

    def spine(self, z: float) -> Float[Array, "2"]:
        """The (x, y) of the spine at a height: the mean of the bone near the middle and in the back half."""
        k = self._index(2, z)
        found = self.positions(self._only(self.bone, (0, None), (0, None), (k - 2, k + 3)))
        back = self.at(0, 0.5, 0)[1]
        found = found[(np.abs(found[:, 0] - self.middle) < 40) & (found[:, 1] < back)]
        return found.mean(axis=0)[:2] if len(found) else self.at(0, 0.1, 0)[:2]

    def cavity(self, side: str, ct_hu: Float[Tensor, "1 X Y Z"], rim: bool = False) -> Bool[Tensor, "X Y Z"]:
        """A lung on the CT's own grid and device, vessels included: its air, and what is well inside.

        Args:
            side: Of `lungs`.
            ct_hu: The CT, whose numbers may have changed since.
            rim: Whether what is around it by a voxel of the coarse grid belongs to it.
        """
        mask = self.lungs[side]
        near = self._fine(ndimage.binary_dilation(mask), ct_hu)
        if rim:
            return near
        lung: Tensor = (near & (ct_hu[0] < PLEURA_HU)) | self._fine(ndimage.binary_erosion(mask), ct_hu)
        return lung

    def _fine(self, mask: Bool[Array, "A B C"], ct_hu: Float[Tensor, "1 X Y Z"]) -> Bool[Tensor, "X Y Z"]:
        """A mask on the CT's own grid and device."""
        coarse = torch.from_numpy(mask)[None, None].float().to(ct_hu.device)
        result: Tensor = F.interpolate(coarse, size=self.shape, mode="trilinear")[0, 0] > 0.5
        return result

    def _only(self, mask: Bool[Array, "A B C"], *ends: tuple[int, int | None]) -> Bool[Array, "A B C"]:
        """A mask between these indices along x, y and z."""
        box = tuple(slice(max(first, 0), last) for first, last in ends)
        result = np.zeros_like(mask)
        result[box] = mask[box]
        return result

    def _index(self, axis: int, place: float) -> int:
        number = int(self.hu.shape[axis])
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

    Air that in its axial slice is enclosed by the body, and is large, is lung, wherever the scan ends; what is as
    narrow as an airway is none; what small dense things are inside belongs to it.
    """
    labels, count = ndimage.label(hu < LUNG_HU, _IN_SLICES)
    enclosed = np.ones(count + 1, bool)
    enclosed[0] = False
    for face in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        enclosed[face.ravel()] = False
    labels, count = ndimage.label(enclosed[labels])
    voxels = np.bincount(labels.ravel(), minlength=count + 1)
    voxels[0] = 0
    least = max(MIN_LUNG_ML * 1e3 / float(np.prod(step)), 0.2 * float(voxels.max()))
    air = (voxels >= least)[labels]
    if not air.any():
        return {}
    box = ndimage.find_objects(air.astype(np.uint8))[0]
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
