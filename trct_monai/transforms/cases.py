"""The transforms that every bundle's cases go through, as one `Compose` each: for training, and for inference."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from monai.transforms import Compose, CopyItemsd, EnsureTyped, LoadImaged, SelectItemsd

from trct_monai.geometry import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW
from trct_monai.transforms.cameras import CameraMatricesd, SelectViewsd
from trct_monai.transforms.cube import CTPreprocessingd
from trct_monai.transforms.load import LoadRadiographsd
from trct_monai.transforms.save import SaveCTd, UnitToHUd

Transform = Callable[[Any], Any]

PLACE = "place"
"""Key of the CT's path in inference, whose grid the result gets: the evaluator puts its own, empty label over it."""


def load_case(
    volume_size: int,
    radiograph_size: int | Sequence[int],
    *,
    extent: float = DEFAULT_EXTENT,
    hu_window: Sequence[float] = HU_WINDOW,
    views: Sequence[int] | None = None,
    more_keys: Sequence[str] = (),
    random: Sequence[Transform | list[Transform]] = (),
) -> Compose:
    """A case of a datalist as training takes it: ``label`` (1, X, Y, Z) in [0, 1], ``image`` (V, H, W), ``matrices``.

    The random transforms come last, so that a CacheDataset keeps what the others give.

    Args:
        volume_size: Voxels along each side of the label.
        radiograph_size: Rows and columns of the radiographs, one number for a square.
        extent: Side of the label's cube in mm.
        hu_window: HU of 0 and of 1.
        views: Indices of the views; all if None.
        more_keys: Items that the network is told beside those, such as ``exposed``.
        random: Random transforms of such a case, or lists of them.
    """
    image = ["image", "matrices", *more_keys]
    load = load_labelled_radiographs(volume_size, radiograph_size, extent=extent, hu_window=hu_window)
    return Compose(
        [
            *load.transforms,
            CameraMatricesd(keys="matrices"),
            SelectViewsd(keys=image, views=views),
            SelectItemsd(keys=[*image, "label", "case_id"]),
            EnsureTyped(keys=["image", "label", "matrices"], track_meta=False),
            *joined(random).transforms,
        ]
    )


def load_labelled_radiographs(
    volume_size: int,
    radiograph_size: int | Sequence[int],
    *,
    extent: float = DEFAULT_EXTENT,
    hu_window: Sequence[float] = HU_WINDOW,
) -> Compose:
    """A case as a baseline is fitted to it: ``label`` and ``image`` as `load_case` gives them, with their cameras.

    Args:
        volume_size: Voxels along each side of the label.
        radiograph_size: Rows and columns of the radiographs, one number for a square.
        extent: Side of the label's cube in mm.
        hu_window: HU of 0 and of 1.
    """
    return Compose(
        [
            LoadImaged(keys="label", reader="NibabelReader", ensure_channel_first=True),
            CTPreprocessingd(keys="label", size=volume_size, extent=extent, hu_window=hu_window),
            LoadRadiographsd(keys="image", size=radiograph_size),
        ]
    )


def load_radiographs(
    radiograph_size: int | Sequence[int],
    geometry: str,
    *,
    data_geometry: str | None = None,
    views: Sequence[int] | None = None,
    more_keys: Sequence[str] = (),
    **options: Any,
) -> Compose:
    """Radiographs as inference takes them: ``image`` (V, H, W), ``matrices``, and the path of the CT, if there is one.

    Args:
        radiograph_size: Rows and columns, one number for a square.
        geometry: Preset of pictures that do not state where they were taken.
        data_geometry: Preset that the cameras must follow, for a method that knows no others; ``near_cameras`` does not
            hold then.
        views: Indices of the views; all if None.
        more_keys: Items that the network is told beside those, such as ``exposed``.
        options: Of `LoadRadiographsd`: ``any_camera``, ``near_cameras``, ``allow_missing_views``,
            ``allow_unquantitative``.
    """
    options["near_cameras"] = options.get("near_cameras", False) and not data_geometry
    image = ["image", "matrices", *more_keys]
    return Compose(
        [
            LoadRadiographsd(keys="image", size=radiograph_size, geometry=geometry, **options),
            CameraMatricesd(keys="matrices", geometry=geometry),
            SelectViewsd(keys=image, views=views),
            CopyItemsd(keys="label", names=PLACE, allow_missing_keys=True),
            SelectItemsd(keys=[*image, "case_id", PLACE], allow_missing_keys=True),
            EnsureTyped(keys=["image", "matrices"], track_meta=False),
        ]
    )


def save_cts(
    output_dir: str | os.PathLike[str], hu_window: Sequence[float] = HU_WINDOW, extent: float = DEFAULT_EXTENT
) -> Compose:
    """Predictions in [0, 1] to CASE_ID.nii.gz in HU, on the grid of the case's CT, if there is one.

    Args:
        output_dir: Folder of the files.
        hu_window: HU of 0 and of 1.
        extent: Side in mm of the cube where there is no CT.
    """
    to_hu = UnitToHUd("pred", hu_window, extent, reference_keys=PLACE)
    return Compose([to_hu, SaveCTd(keys="pred", output_dir=str(output_dir))])


def joined(transforms: Sequence[Transform | list[Transform]]) -> Compose:
    """Transforms and lists of them, one after the other, as one flat `Compose`.

    A data set that keeps what comes before the first random transform does not look into a `Compose` within another.

    Args:
        transforms: Transforms, lists of them, or `Compose`.
    """
    flat: list[Transform] = []
    for one in transforms:
        if isinstance(one, Compose | list):
            flat += joined(one.transforms if isinstance(one, Compose) else one).transforms
        else:
            flat.append(one)
    return Compose(flat)
