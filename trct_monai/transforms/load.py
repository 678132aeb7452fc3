"""Files to tensors: radiographs as line integrals, CTs in [0, 1] of a window."""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.orientations import orient
from trct_monai.geometry.presets import follows_preset
from trct_monai.intensity import HU_WINDOW, hu_to_unit
from trct_monai.io.ct import read_ct
from trct_monai.io.radiograph import read_radiograph, read_side_car
from trct_monai.resampling import resize_radiographs


class LoadRadiographsd(MapTransform):
    """Radiographs of a datalist's case as one tensor (V, H, W) of line integrals, views in the datalist's order.

    The item's ``orientation`` (what to do to each stored picture) and ``intensity`` (gain and offset of pictures that
    are not quantitative) are applied where they are given; `trct_monai.io.datalist.load_datalist` brings both along.
    Nothing happens to a value that is a tensor already. An item without ``cameras`` gets those of the files' side-cars,
    if they have any.

    Args:
        keys: Keys of lists of file names.
        size: Rows and columns of the result, one number for a square; None keeps the files' size.
        allow_unquantitative: Accept pictures that nobody fitted to line integrals, in their own scale.
        allow_missing_views: Accept None in place of a file: that view is NaN, for a network that takes missing views.
        geometry: Preset that cameras of side-cars must follow: that of a network which knows no other.
        allow_missing_keys: Do nothing for a key that is not there.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        size: int | Sequence[int] | None = None,
        allow_unquantitative: bool = False,
        allow_missing_views: bool = False,
        geometry: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.geometry = size, geometry
        self.allow_unquantitative, self.allow_missing_views = allow_unquantitative, allow_missing_views

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, each list of files as float32 tensor (V, H, W).

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is damaged or not quantitative, the views' sizes differ and no size is set, a view is
                missing where none may be, or side-cars have other cameras than those of the geometry.
        """
        result = dict(data)
        for key in self.key_iterator(result):
            if not isinstance(result[key], Tensor):
                cameras = None if "cameras" in data else self._cameras(result[key])
                self._check_cameras(cameras, result[key])
                result[key] = self._load(result[key], data.get("orientation"), data.get("intensity"))
                if cameras is not None:
                    result["cameras"] = cameras
        return result

    def _load(
        self,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | None],
        orientation: Sequence[Mapping[str, Any]] | None,
        intensity: Sequence[Mapping[str, Any]] | None,
    ) -> Tensor:
        paths = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        present = [path for path in paths if path is not None]
        if not present or (len(present) < len(paths) and not self.allow_missing_views):
            raise ValueError(
                f"{len(paths) - len(present)} of {len(paths)} views are missing; give a file for each"
                + (", or for one at least" if self.allow_missing_views else "")
            )
        images = []
        for view, path in enumerate(paths):
            if path is None:
                continue
            image = self._line_integrals(path, intensity[view] if intensity else {})
            if orientation:
                image = orient(image, orientation[view]["transform"])
            images.append(image if self.size is None else resize_radiographs(image, self.size))
        if len({image.shape for image in images}) != 1:
            sizes = ", ".join(f"{Path(path).name} {tuple(image.shape)}" for path, image in zip(present, images))
            raise ValueError(f"the views have different sizes ({sizes}); set size to resize them")
        result = images[0].new_full((len(paths), *images[0].shape), torch.nan)
        result[[path is not None for path in paths]] = torch.stack(images)
        return result

    @staticmethod
    def _cameras(
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str] | None],
    ) -> list[dict[str, Any] | None] | None:
        """The cameras of the files' side-cars, None for a missing view; None if no file has one."""
        files = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        pages = [None if path is None else (read_side_car(Path(path)) or {}).get("camera") for path in files]
        without = [str(path) for path, page in zip(files, pages) if path is not None and page is None]
        if len(without) == sum(path is not None for path in files):
            return None
        if without:
            raise ValueError(
                f"some radiographs have a camera in their side-car, {', '.join(without)} not; give all or none"
            )
        return pages

    def _check_cameras(self, cameras: Sequence[dict[str, Any] | None] | None, paths: Any) -> None:
        if cameras is None or self.geometry is None:
            return
        if not follows_preset([Camera.from_dict(camera) for camera in cameras if camera is not None], self.geometry):
            raise ValueError(
                f"the side-cars of {paths} have other cameras than geometry {self.geometry!r}, which is all that this "
                "network knows: check the order of the views, or take a network for any cameras"
            )

    def _line_integrals(self, path: str | os.PathLike[str], intensity: Mapping[str, Any]) -> Tensor:
        radiograph = read_radiograph(path)
        gain, offset = intensity.get("gain"), intensity.get("offset")
        if gain is not None and offset is not None:
            return radiograph.image * float(gain) + float(offset)
        if not (radiograph.quantitative and intensity.get("quantitative", True)) and not self.allow_unquantitative:
            raise ValueError(
                f"{path}: not quantitative, and no gain and offset are recorded for it; "
                "run prepare on its folder, or set allow_unquantitative=True to take it as it is"
            )
        return radiograph.image


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
