"""A patient's CT as a box around the chest, and that box as another patient's: random, on the device where it is."""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.io.ct import read_ct
from trct_monai.preprocessing import CTPreprocessing
from trct_monai.transforms.cut_cube import EMPHASIS
from trct_monai.variation import (
    Strengths,
    displaced,
    draw_lattice,
    enhanced,
    limited,
    recoloured,
    shapes_of_others,
    tissue_curve,
    warped,
    with_arms,
    with_table,
)

HEART = (-15.0, 25.0, -20.0)
"""Where contrast agent is, in mm from the middle of the lungs."""


class LoadPatientd(MapTransform):
    """Read CTs, each as a box around the cube of `CTPreprocessing`: (1, X, Y, Z) in HU, int16; air beyond the scan.

    A radiograph shows what is outside the cube as well: shoulders, arms, the body's sides. All boxes have one shape.

    Args:
        keys: Keys of paths, of files in any format or folders with one DICOM series; the boxes take their place.
        files_key: Key of all files of the CT, where they are known, such as those of one of a folder's series.
        spacing: Voxel side in mm.
        extent: Side of the cube in mm.
        margin: How far the box goes beyond the cube at either end of x, y and z, in mm.
        center: As in `CTPreprocessing`.

    Raises:
        ValueError: If the cube is not so many whole voxels wide.
    """

    def __init__(
        self,
        keys: KeysCollection = "patient",
        files_key: str = "files",
        spacing: float = 2.5,
        extent: float = DEFAULT_EXTENT,
        margin: Sequence[float] = (60.0, 20.0, 40.0),
        center: str = "lungs",
    ) -> None:
        super().__init__(keys)
        number = max(1, round(extent / spacing))
        if abs(number * spacing - extent) > 1e-6 * extent:
            raise ValueError(f"spacing must divide the cube of {extent:g} mm into whole voxels, got {spacing} mm")
        self.files_key, self.margin = files_key, tuple(float(side) for side in margin)
        self.protocol = CTPreprocessing(number, extent, center=center)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with boxes.

        Raises:
            ValueError: If a CT cannot be read, or has no lungs to be centred on.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            ct = read_ct(result[key], [Path(file) for file in result.get(self.files_key) or ()])
            try:
                box = self.protocol.box(ct.ct_hu, self.margin, ct.affine)
            except ValueError as error:
                raise ValueError(f"{result[key]}: {error}") from error
            result[key] = box.as_tensor().round().clamp(-1024, 3071).to(torch.int16)
        return result


class OtherShapesd(MapTransform):
    """How a patient's CT takes the shapes of others, for `RandWarpd`; see `trct_monai.variation.shapes_of_others`.

    It goes before `LoadPatientd`, whose arguments it shares. Each CT is registered once to some of the others, in ten
    seconds or so, and the result is kept in memory.

    Args:
        keys: Keys of paths.
        others: Cases with the same keys; a CT is not its own.
        number: To how many of the others, the next ones in their order; 0 for none.
        shapes_key: Where the displacements go (M, 3, N, N, N), on the CPU.
        files_key: As in `LoadPatientd`.
        spacing: As in `LoadPatientd`.
        extent: As in `LoadPatientd`.
        margin: As in `LoadPatientd`.
        center: As in `LoadPatientd`.
    """

    def __init__(
        self,
        keys: KeysCollection = "patient",
        others: Sequence[Mapping[Hashable, Any]] = (),
        number: int = 8,
        shapes_key: str = "shapes",
        files_key: str = "files",
        spacing: float = 2.5,
        extent: float = DEFAULT_EXTENT,
        margin: Sequence[float] = (60.0, 20.0, 40.0),
        center: str = "lungs",
    ) -> None:
        super().__init__(keys)
        self.others, self.number, self.shapes_key, self.spacing = tuple(others), number, shapes_key, float(spacing)
        self.load = LoadPatientd(keys, files_key, spacing, extent, margin, center)
        self._boxes: dict[str, Tensor] = {}
        self._shapes: dict[str, Tensor] = {}

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with displacements; raises as `LoadPatientd` does."""
        result = dict(data)
        for key in self.key_iterator(result):
            own = self._name(result, key)
            if own not in self._shapes:
                names = [self._name(other, key) for other in self.others]
                first = names.index(own) + 1 if own in names else 0
                ordered = [*self.others[first:], *self.others[:first]]
                others = [other for other in ordered if self._name(other, key) != own][: self.number]
                boxes = [self._box(one, key) for one in others]
                box = self._box(result, key) if boxes else torch.zeros(1, 1, 1, 1)
                self._shapes[own] = shapes_of_others(box, boxes, self.spacing)
            result[self.shapes_key] = self._shapes[own]
        return result

    def _name(self, case: Mapping[Hashable, Any], key: Hashable) -> str:
        """What tells a CT from others: a folder may hold several series."""
        return "\n".join([str(case[key]), *map(str, case.get(self.load.files_key) or ())])

    def _box(self, case: Mapping[Hashable, Any], key: Hashable) -> Tensor:
        """One of the last boxes: neighbours have most of their others in common."""
        name = self._name(case, key)
        if name not in self._boxes:
            self._boxes[name] = self.load(case)[key]
            for old in [*self._boxes][: -self.number - 2]:
                self._boxes.pop(old, None)
        return self._boxes[name]


class RandWarpd(Randomizable, MapTransform):
    """The CT of another patient, by a random warp; see `trct_monai.variation.draw_lattice`. No CT is mirrored.

    Args:
        keys: Keys of CTs (1, X, Y, Z) in HU; the results are float32.
        spacing: Voxel side in mm.
        strengths: Arguments of `trct_monai.variation.Strengths`.
        factors: Each warp is so many times as strong, at least and at most: some patients are like the one they come
            from, and some are not.
        prob: Probability that a CT is warped.
        shapes_key: Key of what `OtherShapesd` found, where it was used; the result is without it.
        shape_prob: Probability that a warped CT also goes some of the way to the shapes of two others, in shares drawn
            evenly from all that add up to at most 1.

    Raises:
        ValueError: If a strength is out of its range.
    """

    def __init__(
        self,
        keys: KeysCollection = "patient",
        spacing: float = 2.5,
        strengths: Mapping[str, Any] | None = None,
        factors: Sequence[float] = (0.5, 1.5),
        prob: float = 0.95,
        shapes_key: str = "shapes",
        shape_prob: float = 0.75,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.spacing, self.factors, self.prob = float(spacing), tuple(factors), prob
        self.shapes_key, self.shape_prob = shapes_key, shape_prob
        self.strengths = Strengths(**(strengths or {}))

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, warped."""
        result = dict(data)
        shapes = result.pop(self.shapes_key, ())
        for key in self.key_iterator(result):
            result[key] = result[key].as_subclass(Tensor).float()
            if self.R.random() < self.prob:
                strengths, shape = self.strengths.times(float(self.R.uniform(*self.factors))), result[key].shape[1:]
                lattice = draw_lattice(self.R, shape, self.spacing, strengths)
                if len(shapes) and self.R.random() < self.shape_prob:
                    shares = self.R.dirichlet([1.0] * 3)[:2].tolist()
                    chosen = self.R.permutation(len(shapes))[:2].tolist()
                    towards = torch.stack([share * shapes[one] for share, one in zip(shares, chosen)]).sum(dim=0)
                    lattice = displaced(lattice, towards, shape, self.spacing)
                result[key] = warped(result[key], self.spacing, lattice)
        return result


class RandTissued(Randomizable, MapTransform):
    """Other densities of lung, fat, muscle and bone, and contrast agent.

    Args:
        keys: Keys of CTs (1, X, Y, Z) in HU.
        spacing: Voxel side in mm.
        strength: Factor on the standard deviations of `trct_monai.variation.TISSUES`.
        contrast_hu: Most that contrast agent adds; the least is -30, for blood without any.
        prob: Probability of each of the two.
    """

    def __init__(
        self,
        keys: KeysCollection = "patient",
        spacing: float = 2.5,
        strength: float = 1.0,
        contrast_hu: float = 150.0,
        prob: float = 0.5,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.spacing, self.strength, self.contrast_hu, self.prob = float(spacing), strength, contrast_hu, prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with other HU."""
        result = dict(data)
        for key in self.key_iterator(result):
            if self.R.random() < self.prob:
                result[key] = recoloured(result[key], *tissue_curve(self.R, self.strength))
            if self.R.random() < self.prob:
                center = [middle + 15 * float(shift) for middle, shift in zip(HEART, self.R.normal(size=3))]
                size, hu = float(self.R.uniform(25, 50)), float(self.R.uniform(-30, self.contrast_hu))
                result[key] = enhanced(result[key], self.spacing, center, size, hu)
        return result


class RandSurroundingsd(Randomizable, MapTransform):
    """A table behind the body, and arms beside it.

    Args:
        keys: Keys of CTs (1, X, Y, Z) in HU.
        spacing: Voxel side in mm.
        prob: Probability of each of the two.
    """

    def __init__(self, keys: KeysCollection = "patient", spacing: float = 2.5, prob: float = 0.2) -> None:
        MapTransform.__init__(self, keys)
        self.spacing, self.prob = float(spacing), prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with what was added."""
        result = dict(data)
        for key in self.key_iterator(result):
            if self.R.random() < self.prob:
                gap, curvature = float(self.R.uniform(0, 15)), float(self.R.uniform(0, 0.003))
                thickness, hu = float(self.R.uniform(15, 40)), float(self.R.uniform(-300, 200))
                result[key] = with_table(result[key], self.spacing, gap, curvature, thickness, hu)
            if self.R.random() < self.prob:
                radius, bone_hu = float(self.R.uniform(35, 55)), float(self.R.uniform(500, 900))
                offset = [float(self.R.uniform(0, 30)), float(self.R.normal(-20, 30))]
                sides = [bool(side) for side in self.R.random(2) < 0.8]
                result[key] = with_arms(result[key], self.spacing, radius, offset, sides, bone_hu)
        return result


class RandScanLimitsd(Randomizable, MapTransform):
    """A scan that ends within the cube, as many do: below, above, or in a circular field of view.

    Args:
        keys: Keys of CTs (1, X, Y, Z) in HU.
        spacing: Voxel side in mm.
        low_mm: Highest z at which a scan may begin.
        high_mm: Lowest z at which it may end.
        radius_mm: Smallest radius of a field of view.
        extent: Side of the cube in mm: beyond it nothing changes.
        prob: Probability of each of the three.
    """

    def __init__(
        self,
        keys: KeysCollection = "patient",
        spacing: float = 2.5,
        low_mm: float = -110.0,
        high_mm: float = 110.0,
        radius_mm: float = 150.0,
        extent: float = DEFAULT_EXTENT,
        prob: float = 0.2,
    ) -> None:
        MapTransform.__init__(self, keys)
        self.spacing, self.prob, self.half = float(spacing), prob, extent / 2
        self.low_mm, self.high_mm, self.radius_mm = low_mm, high_mm, radius_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, air beyond the limits."""
        result = dict(data)
        for key in self.key_iterator(result):
            ends = {"low_mm": (-self.half, self.low_mm), "high_mm": (self.high_mm, self.half)}
            ends["radius_mm"] = (self.radius_mm, 1.4 * self.half)
            drawn = {name: float(self.R.uniform(*ends[name])) for name in ends if self.R.random() < self.prob}
            if drawn:
                whole, result[key] = result[key], limited(result[key], self.spacing, **drawn)
                if EMPHASIS in result:  # what the scan does not show is nothing to look for
                    result[EMPHASIS] = result[EMPHASIS] * (result[key] == whole)
        return result
