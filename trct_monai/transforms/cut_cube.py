"""The cube in the middle of a patient's box: the label of a case whose radiographs are rendered."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW, check_hu_window, hu_to_unit
from trct_monai.resampling import resize_cube

EMPHASIS = "emphasis"
"""Key of the voxels that a loss shall weigh more."""


class CutCubed(MapTransform):
    """The cube in the middle of a box as a label: (1, X, X, X) in [0, 1] of the HU window, beside the box itself.

    An item ``emphasis`` on the box's grid, as `trct_monai.transforms.RandFindingsd` gives it, is cut alike.

    Args:
        keys: Keys of boxes (1, X, Y, Z) in HU.
        label_key: Where the cube goes.
        size: Voxels along each side of the cube, averaged from the box's.
        spacing: Voxel side of the box in mm.
        extent: Side of the cube in mm.
        hu_window: HU of 0 and 1.
    """

    def __init__(
        self,
        keys: KeysCollection = "patient",
        label_key: str = "label",
        size: int = 64,
        spacing: float = 2.5,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        super().__init__(keys)
        self.label_key, self.size, self.hu_window = label_key, size, check_hu_window(hu_window)
        self.number = round(extent / spacing)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with their labels."""
        result = dict(data)
        for key in self.key_iterator(result):
            cube = middle_cube(result[key].as_subclass(Tensor).float(), self.number)
            result[self.label_key] = resize_cube(hu_to_unit(cube, self.hu_window)[None], self.size)[0]
            if EMPHASIS in result:
                emphasis = middle_cube(result[EMPHASIS].as_subclass(Tensor).float(), self.number)
                result[EMPHASIS] = resize_cube(emphasis[None], self.size)[0]
        return result


def middle_cube(volume: Tensor, number: int) -> Tensor:
    """The middle (..., N, N, N) of a volume (..., X, Y, Z) whose sides are longer by even numbers of voxels."""
    for axis in (-3, -2, -1):
        before, odd = divmod(volume.shape[axis] - number, 2)
        if before < 0 or odd:
            raise ValueError(f"a volume of {tuple(volume.shape[-3:])} voxels has no cube of {number} in its middle")
        volume = volume.narrow(axis, before, number)
    return volume
