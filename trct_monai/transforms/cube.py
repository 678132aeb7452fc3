"""`CTPreprocessing` of dictionary items."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW
from trct_monai.preprocessing.cube import CTPreprocessing


class CTPreprocessingd(MapTransform):
    """`CTPreprocessing` of dictionary items.

    Args:
        keys: Keys of the CTs.
        size: As in `CTPreprocessing`.
        extent: As in `CTPreprocessing`.
        hu_window: As in `CTPreprocessing`.
        remove_table: As in `CTPreprocessing`.
        allow_missing_keys: Ignore a missing key.
        center: As in `CTPreprocessing`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        size: int = 64,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        remove_table: bool = False,
        allow_missing_keys: bool = False,
        center: str = "body",
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.protocol = CTPreprocessing(size, extent, hu_window, remove_table, center)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, each CT as `CTPreprocessing` gives it."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = self.protocol(result[key])
        return result
