"""The cases of a datalist by section, as a configuration asks for them; phantoms where it is given none."""

import os
from collections.abc import Sequence
from typing import Any

from trct_monai.datasets.defaults import default_datalist, default_phases
from trct_monai.datasets.phase_slices import load_phases
from trct_monai.datasets.volumes import find_volumes
from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.io.datalist import load_datalist


class RadiographCases:
    """``cases["training"]``: the cases of a section, whose cubes and cameras are those that a network needs.

    Args:
        datalist: The datalist; PhantomThorax if None, which is made first where it is missing.
        dataset_dir: Folder of PhantomThorax.
        volume_size: Voxels along each side of its labels.
        radiograph_size: Rows and columns of its radiographs.
        geometry: Preset that the cameras of every case must be near to (see `trct_monai.geometry.is_near_preset`).
        data_geometry: Preset that they must follow exactly, for a method that knows no others.
        any_camera: Take any cameras; `geometry` is that of PhantomThorax alone.
        extent: Side of the cubes in mm.
        max_cases: Only the first so many of a section; all if None.
        radiographs: One case's radiographs in place of a datalist.
        views: Indices of the views that are kept of every case, before its cameras are looked at; all if None.
    """

    def __init__(
        self,
        datalist: str | os.PathLike[str] | None = None,
        dataset_dir: str | os.PathLike[str] = "data",
        *,
        volume_size: int = 64,
        radiograph_size: int = 128,
        geometry: str = "x2ct",
        data_geometry: str | None = None,
        any_camera: bool = False,
        extent: float = DEFAULT_EXTENT,
        max_cases: int | None = None,
        radiographs: Sequence[str | None] | None = None,
        views: Sequence[int] | None = None,
    ) -> None:
        self.given, self.dataset_dir, self.sizes = datalist, dataset_dir, (volume_size, radiograph_size)
        self.geometry, self.data_geometry, self.any_camera = geometry, data_geometry or None, any_camera
        self.extent, self.max_cases, self.radiographs, self.views = extent, max_cases, radiographs, views

    @property
    def datalist(self) -> str | os.PathLike[str]:
        """The datalist that was given, or that of PhantomThorax, which is made where it is missing."""
        if self.given:
            return self.given
        size, radiograph_size = self.sizes
        geometry = self.geometry if self.any_camera else "x2ct"
        return default_datalist(self.dataset_dir, size=size, radiograph_size=radiograph_size, geometry=geometry)

    def __getitem__(self, section: str) -> list[dict[str, Any]]:
        """The cases of ``training``, ``validation`` or ``test``.

        Raises:
            FileNotFoundError: If the datalist or a file that it names is missing.
            ValueError: See `trct_monai.io.load_datalist`.
        """
        if self.radiographs:
            return [{"case_id": "reconstruction", "image": self.radiographs}]
        cameras: dict[str, Any] = {"with_cameras": True} if self.any_camera else {"near": self.geometry}
        cases = load_datalist(self.datalist, section, self.data_geometry, self.extent, views=self.views, **cameras)
        return cases[: self.max_cases]


class PhaseCases:
    """``cases["training"]``: pairs of a time average and phase 0, as `load_phases` gives them.

    Args:
        datalist: The datalist; phantoms' phases if None, which are made first where they are missing.
        dataset_dir: Folder of those.
        size: Voxels along each side of theirs.
        max_cases: Only the first so many of a section; all if None.
        volumes: CTs in place of a datalist, see `find_volumes`.
    """

    def __init__(
        self,
        datalist: str | os.PathLike[str] | None = None,
        dataset_dir: str | os.PathLike[str] = "data",
        *,
        size: int = 128,
        max_cases: int | None = None,
        volumes: str | Sequence[str] | None = None,
    ) -> None:
        self.given, self.dataset_dir, self.size = datalist, dataset_dir, size
        self.max_cases, self.volumes = max_cases, volumes

    def __getitem__(self, section: str) -> list[dict[str, str]]:
        """The cases of ``training``, ``validation`` or ``test``.

        Raises:
            FileNotFoundError: If the datalist or a file that it names is missing.
            ValueError: If it is a datalist of something else, or the section has no pair.
        """
        if self.volumes:
            return find_volumes(self.volumes)[: self.max_cases]
        return load_phases(self.given or default_phases(self.dataset_dir, size=self.size), section)[: self.max_cases]
