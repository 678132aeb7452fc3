"""Files to tensors: radiographs as line integrals, CTs in [0, 1] of a window."""

import logging
import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from trct_monai.geometry.orientations import orient
from trct_monai.geometry.presets import follows_preset, is_near_preset, preset
from trct_monai.intensity import HU_WINDOW, hu_to_unit
from trct_monai.io.ct import read_ct
from trct_monai.io.datalist import ANY_CAMERAS, OWN_CAMERAS
from trct_monai.io.radiograph import Radiograph, read_radiograph, side_car_of
from trct_monai.resampling import resize_radiographs

logger = logging.getLogger(__name__)

Source = str | os.PathLike[str] | Radiograph | None
"""A radiograph's file, one that was read already, or None for a view that is missing."""


class LoadRadiographsd(MapTransform):
    """Radiographs of a case as one tensor (V, H, W) of line integrals, with their cameras.

    Of a datalist's case the item's ``cameras``, ``orientation`` (what to do to each stored picture) and ``intensity``
    (gain and offset of pictures that are not quantitative) are applied; `trct_monai.io.datalist.load_datalist` brings
    all of them along. Other files bring their cameras in side-cars; a picture without any was taken by the camera of
    the `geometry` that has its place in the list (see `Radiograph.taken_by`). The item gets

    - ``cameras``: as dictionaries, one for each view, where they are known;
    - ``calibrated``: a bool tensor (V,): which views hold line integrals. The others are on a scale of their own;
    - ``exposed``: a bool tensor (V,): those whose exposure is known: rendered without hardening and scatter, or with
      gain and offset from their CT; not those whose scale was estimated from the picture (`Radiograph.exposed`).

    Nothing happens to a value that is a tensor already.

    Args:
        keys: Keys of lists of files, or of radiographs that were read already.
        size: Rows and columns of the result, one number for a square; None keeps the files' size.
        allow_unquantitative: Accept pictures whose gain and offset nobody fitted, in their own scale.
        allow_missing_views: Accept None in place of a file: that view is NaN, for a network that takes missing views.
        geometry: Preset of pictures that do not state where they were taken.
        any_camera: Accept cameras other than those of the geometry: for a network that takes any.
        near_cameras: Accept cameras near those of the geometry, see `trct_monai.geometry.is_near_preset`: for a network
            that takes each case's own, but one for each of its views.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        size: int | Sequence[int] | None = None,
        allow_unquantitative: bool = False,
        allow_missing_views: bool = False,
        geometry: str | None = None,
        any_camera: bool = False,
        near_cameras: bool = False,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.geometry, self.any_camera, self.near_cameras = size, geometry, any_camera, near_cameras
        self.allow_unquantitative, self.allow_missing_views = allow_unquantitative, allow_missing_views

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, each list of files as float32 tensor (V, H, W).

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is damaged or not quantitative, the views' sizes differ and no size is set, a view is
                missing where none may be, or cameras are not those of the geometry.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            if isinstance(result[key], Tensor):
                continue
            radiographs = self._read(result[key])
            if "cameras" not in data:
                radiographs = self._with_cameras(radiographs)
                if all(one is None or one.camera is not None for one in radiographs):
                    result["cameras"] = [one and one.camera and one.camera.to_dict() for one in radiographs]
            images = self._line_integrals(radiographs, data.get("orientation"), data.get("intensity"))
            result["calibrated"] = torch.tensor([image is None or image[1] for image in images])
            exposed = torch.tensor([one is not None and one.exposed for one in radiographs])
            result["exposed"] = result["calibrated"] & exposed
            result[key] = self._stacked([image and image[0] for image in images], radiographs)
        return result

    def _read(self, sources: Source | Sequence[Source]) -> list[Radiograph | None]:
        files = [sources] if isinstance(sources, str | os.PathLike | Radiograph) else list(sources or [])
        missing = sum(file is None for file in files)
        if missing == len(files) or (missing and not self.allow_missing_views):
            raise ValueError(
                f"{missing} of {len(files)} views are missing; give a file for each"
                + (", or for one at least" if self.allow_missing_views else "")
            )
        return [read_radiograph(file) if isinstance(file, str | os.PathLike) else file for file in files]

    def _with_cameras(self, radiographs: Sequence[Radiograph | None]) -> list[Radiograph | None]:
        """Radiographs with the cameras of their side-cars, or all of them with those of the geometry."""
        present = [one for one in radiographs if one is not None]
        without = [str(one.path) for one in present if one.camera is None]
        if without and len(without) < len(present):
            raise ValueError(
                f"some radiographs have a camera in their side-car, {', '.join(without)} not; give all or none"
            )
        placed = list(radiographs)
        if without and self.geometry is not None:
            cameras = preset(self.geometry)
            if len(radiographs) != len(cameras):
                raise ValueError(
                    f"{len(radiographs)} pictures without side-cars, but geometry {self.geometry!r} has {len(cameras)} "
                    "views; give as many (null for one that is missing), or side-cars that state where they were taken"
                )
            placed = [one and one.taken_by(camera) for one, camera in zip(radiographs, cameras)]
            logger.info("%s: no side-cars, the cameras are those of geometry %s", ", ".join(without), self.geometry)
        if self.geometry is not None and not self.any_camera:
            found = [one.camera for one in placed if one is not None and one.camera is not None]
            accepted = is_near_preset if self.near_cameras else follows_preset
            if found and not accepted(found, self.geometry):
                nor_near = ", nor near them" if self.near_cameras else ""
                others = f"{ANY_CAMERAS}, for any cameras" if self.near_cameras else OWN_CAMERAS
                raise ValueError(
                    f"the cameras of {', '.join(str(one.path) for one in present)} are not those of geometry "
                    f"{self.geometry!r}{nor_near}, which is all that this method knows: check the order of the views, "
                    f"or use {others}"
                )
        return placed

    def _line_integrals(
        self,
        radiographs: Sequence[Radiograph | None],
        orientation: Sequence[Mapping[str, Any]] | None,
        intensity: Sequence[Mapping[str, Any]] | None,
    ) -> list[tuple[Tensor, bool] | None]:
        """Each picture in our convention, and whether it holds line integrals."""
        images: list[tuple[Tensor, bool] | None] = []
        for view, radiograph in enumerate(radiographs):
            if radiograph is None:
                images.append(None)
                continue
            recorded = intensity[view] if intensity else {}
            image, gain, offset = radiograph.image, recorded.get("gain"), recorded.get("offset")
            calibrated = gain is not None and offset is not None
            if gain is not None and offset is not None:
                image = image * float(gain) + float(offset)
            elif radiograph.quantitative or radiograph.floats:
                calibrated = bool(recorded.get("quantitative", radiograph.quantitative))
            elif recorded.get("quantitative"):
                raise ValueError(
                    f"{radiograph.path}: the datalist says that it holds line integrals, but "
                    f"{side_car_of(radiograph.path).name}, which states their scale, is missing"
                )
            if not calibrated and not self.allow_unquantitative:
                raise ValueError(
                    f"{radiograph.path}: not quantitative, and no gain and offset are recorded for it; "
                    "run prepare on its folder, or set allow_unquantitative=True to take it as it is"
                )
            images.append((orient(image, orientation[view]["transform"]) if orientation else image, calibrated))
        return images

    def _stacked(self, images: Sequence[Tensor | None], radiographs: Sequence[Radiograph | None]) -> Tensor:
        """One tensor of all views, of the wanted size; NaN for those that are missing."""
        resized = {
            view: image if self.size is None else resize_radiographs(image, self.size)
            for view, image in enumerate(images)
            if image is not None
        }
        if len({image.shape for image in resized.values()}) != 1:
            named = ((radiographs[view], image) for view, image in resized.items())
            sizes = ", ".join(f"{one.path.name} {tuple(image.shape)}" for one, image in named if one is not None)
            raise ValueError(f"the views have different sizes ({sizes}); set size to resize them")
        first = next(iter(resized.values()))
        return torch.stack([resized.get(view, torch.full_like(first, torch.nan)) for view in range(len(images))])


class LoadCTd(MapTransform):
    """Read CTs as networks take them: (1, X, Y, Z) in [0, 1] of the window, axes in RAS order.

    Args:
        keys: Keys of paths, of files in any format or folders with one DICOM series; the volumes take their place.
        hu_window: Lowest and highest HU.
    """

    def __init__(self, keys: KeysCollection = "image", hu_window: Sequence[float] = HU_WINDOW) -> None:
        super().__init__(keys)
        self.hu_window = hu_window

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items with volumes."""
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = hu_to_unit(read_ct(result[key]).ct_hu.float(), self.hu_window).contiguous()
        return result
