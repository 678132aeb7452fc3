"""Cases that need no files: phantoms drawn from a seed, and radiographs rendered where the network is."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT, preset, projection_matrices
from trct_monai.intensity import HU_WINDOW, check_hu_window, hu_to_unit, unit_to_attenuation
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project
from trct_monai.transforms.augmentation import RandRadiographd
from trct_monai.transforms.cameras import PrepareViews, RandPosed


class DrawPhantomd(MapTransform):
    """Draw the thorax phantom of a seed in place of the seed: (1, X, Y, Z) in [0, 1] of the HU window.

    Args:
        keys: Keys of seeds.
        size: Voxels along each side.
        extent: Side of the cube in mm.
        hu_window: HU of 0 and 1.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        size: int = 64,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.extent, self.hu_window = size, extent, check_hu_window(hu_window)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with volumes in place of seeds."""
        result = dict(data)
        for key in self.key_iterator(result):
            phantom = thorax_phantom(int(result[key]), self.size, self.extent)
            result[key] = hu_to_unit(torch.from_numpy(phantom.ct_hu)[None], self.hu_window)
        return result


class RenderViews:
    """MONAI's `prepare_batch` for cases that are volumes alone: their radiographs are rendered on the device.

    The volume stands for the patient: it is projected by the cameras of a preset, and the radiographs are changed by
    chance as those of a data set are by `RandRadiographd`. Which views the network sees is up to `PrepareViews`.

    Args:
        geometry: Preset of the cameras; see `trct_monai.geometry.preset`.
        radiograph_size: Rows and columns.
        extent: Side of the volumes in mm.
        hu_window: HU of 0 and 1.
        augmentation: Probability of each change of `RandRadiographd`.
        pose_rotation: Standard deviation in degrees by which the matrices that the network is given are turned against
            the cameras; see `RandPosed`.
        pose_translation: Standard deviation of their shift in mm.
        min_views: As in `PrepareViews`.
        usual_views: As in `PrepareViews`.
        usual_share: As in `PrepareViews`.
    """

    def __init__(
        self,
        geometry: str = "x2ct",
        radiograph_size: int = 256,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        augmentation: float = 0.0,
        pose_rotation: float = 0.0,
        pose_translation: float = 0.0,
        min_views: int | None = None,
        usual_views: Sequence[int] = (),
        usual_share: float = 0.0,
    ) -> None:
        cameras = preset(geometry)
        self.cameras = list(preset(geometry, radiograph_size))
        self.matrices = projection_matrices(cameras)
        self.extent, self.hu_window = extent, check_hu_window(hu_window)
        self.augment = RandRadiographd("image", prob=augmentation)
        self.pose = RandPosed("matrices", pose_rotation, pose_translation, prob=1.0)
        self.views = PrepareViews(min_views, usual_views, usual_share)

    @torch.no_grad()
    def __call__(
        self, batchdata: Mapping[str, Any], device: torch.device | str | None, non_blocking: bool, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, tuple[()], dict[str, Any]]:
        """What `PrepareViews` gives for the rendered radiographs, and the volumes as labels.

        Args:
            batchdata: A batch with ``label``: volumes (B, 1, X, X, X) in [0, 1].
            device: Where the network is.
            non_blocking: Copy to it without waiting.
            kwargs: As in MONAI's `prepare_batch`.

        Returns:
            Radiographs (B, V, H, W) as line integrals, the volumes, and by name the matrices (B, V, 3, 4).

        Raises:
            ValueError: If a volume is no cube.
        """
        label = batchdata["label"].as_subclass(Tensor).to(device=device, non_blocking=non_blocking)
        if len(set(label.shape[2:])) != 1:
            raise ValueError(f"volumes must be cubes of {self.extent:g} mm, got {tuple(label.shape[2:])} voxels")
        attenuation = unit_to_attenuation(label.float(), self.hu_window)
        images = project(attenuation, self.cameras, self.extent / label.shape[-1])
        if self.augment.prob:
            images = torch.stack([torch.stack([self.augment.change(view) for view in image]) for image in images])
        matrices = torch.stack([self.pose({"matrices": self.matrices})["matrices"] for _ in label])
        rendered = {"image": images, "label": label, "matrices": matrices}
        return self.views(rendered, device, non_blocking, **kwargs)
