"""Cases that need no files: phantoms drawn from a seed, and radiographs rendered where the network is."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from trct_monai.geometry import DEFAULT_EXTENT, Camera, preset, projection_matrices
from trct_monai.intensity import HU_WINDOW, check_hu_window, hu_to_attenuation, hu_to_unit, unit_to_attenuation
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project
from trct_monai.transforms.augmentation import RandRadiographd
from trct_monai.transforms.cameras import PrepareViews, RandPosed
from trct_monai.transforms.cut_cube import EMPHASIS, middle_cube


class DrawPhantomd(MapTransform):
    """Draw the thorax phantom of a seed in place of the seed: (1, X, Y, Z) in [0, 1] of the HU window.

    Args:
        keys: Keys of seeds.
        size: Voxels along each side.
        extent: Side of the cube in mm.
        hu_window: HU of 0 and 1.
        version: Of the anatomy; see `trct_monai.phantoms.thorax_phantom`.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection = "label",
        size: int = 64,
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        version: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.size, self.extent, self.hu_window = size, extent, check_hu_window(hu_window)
        self.version = version

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with volumes in place of seeds."""
        result = dict(data)
        for key in self.key_iterator(result):
            phantom = thorax_phantom(int(result[key]), self.size, self.extent, version=self.version)
            result[key] = hu_to_unit(torch.from_numpy(phantom.ct_hu)[None], self.hu_window)
        return result


class RenderViews:
    """MONAI's `prepare_batch` for cases that are volumes alone: their radiographs are rendered on the device.

    The volume stands for the patient: it is projected by the cameras of a preset, and the radiographs are changed by
    chance as those of a data set are by `RandRadiographd`. Which views the network sees is up to `PrepareViews`; only
    those are rendered.

    A batch may hold the patient beside the label: a box in HU, finer and larger than the cube, as `LoadPatientd` gives
    it. Then that is projected, whole or, as `prepare` does by default, without what lies outside the cube.

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
        share: As in `PrepareViews`.
        patient_key: Key of the boxes; where it is missing the labels are projected.
        spacing: Voxel side of the boxes in mm.
        whole_share: Share of the batches whose boxes are projected whole.
        camera_share: Share of the batches whose cameras stand elsewhere than those of the preset, and say so: all of
            them as far away as is drawn, each turned by itself. For networks that take any camera.
        camera_distances: Shortest and longest distance of their sources from the isocentre in mm.
        camera_turn: Standard deviation in degrees by which each is turned about the z axis.
        alone_share: As in `PrepareViews`.
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
        share: bool = False,
        patient_key: str = "patient",
        spacing: float | None = None,
        whole_share: float = 0.0,
        camera_share: float = 0.0,
        camera_distances: Sequence[float] = (541.0, 1600.0),
        camera_turn: float = 5.0,
        alone_share: float = 0.0,
    ) -> None:
        if not (0 <= whole_share <= 1 and 0 <= camera_share <= 1):
            raise ValueError(f"whole_share and camera_share must lie in [0, 1], got {whole_share} and {camera_share}")
        if len(camera_distances) != 2 or not 0 < camera_distances[0] <= camera_distances[1] or camera_turn < 0:
            raise ValueError(
                "camera_distances must be two in mm, the shorter one first, and camera_turn not negative, got "
                f"{tuple(camera_distances)} and {camera_turn}"
            )
        self.cameras = list(preset(geometry, radiograph_size))
        self.extent, self.hu_window = extent, check_hu_window(hu_window)
        self.augment = RandRadiographd("image", prob=augmentation)
        self.pose = RandPosed("matrices", pose_rotation, pose_translation, prob=1.0)
        self.views = PrepareViews(min_views, usual_views, usual_share, alone_share=alone_share)
        self.share = PrepareViews(share=share)
        self.patient_key, self.spacing, self.whole_share = patient_key, spacing, whole_share
        self.camera_share, self.camera_turn = camera_share, camera_turn
        self.camera_distances = camera_distances

    @torch.no_grad()
    def __call__(
        self, batchdata: Mapping[str, Any], device: torch.device | str | None, non_blocking: bool, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, tuple[()], dict[str, Any]]:
        """What `PrepareViews` gives for the rendered radiographs, and the volumes as labels.

        Args:
            batchdata: A batch with ``label``: volumes (B, 1, X, X, X) in [0, 1], and perhaps boxes (B, 1, X, Y, Z) in
                HU.
            device: Where the network is.
            non_blocking: Copy to it without waiting.
            kwargs: As in MONAI's `prepare_batch`.

        Returns:
            Radiographs (B, V, H, W) as line integrals, the volumes, and by name the matrices (B, V, 3, 4) and
            which views have kept their exposure (B, V).

        Raises:
            ValueError: If a volume is no cube.
        """
        label = batchdata["label"].as_subclass(Tensor).to(device=device, non_blocking=non_blocking)
        if len(set(label.shape[2:])) != 1:
            raise ValueError(f"volumes must be cubes of {self.extent:g} mm, got {tuple(label.shape[2:])} voxels")
        attenuation, spacing = self._attenuation(batchdata, label)
        placed = self._placed()
        chosen = self.views.draw(len(label), len(placed)).tolist()
        cameras = [[placed[view] for view in views] for views in chosen]
        images = project(attenuation, cameras, spacing)
        exposed = torch.ones(images.shape[:2], dtype=torch.bool)
        if self.augment.prob:
            changed = [[self.augment.changed(view) for view in image] for image in images]
            images = torch.stack([torch.stack([view for view, _ in case]) for case in changed])
            exposed = torch.tensor([[kept for _, kept in case] for case in changed])
        matrices = torch.stack([self.pose({"matrices": projection_matrices(case)})["matrices"] for case in cameras])
        rendered = {"image": images, "label": label, "matrices": matrices, "exposed": exposed}
        if EMPHASIS in batchdata:
            rendered[EMPHASIS] = batchdata[EMPHASIS]
        return self.share(rendered, device, non_blocking, **kwargs)

    def _attenuation(self, batchdata: Mapping[str, Any], label: Tensor) -> tuple[Tensor, float]:
        """What is projected, in 1/mm, and its voxel side in mm."""
        if self.patient_key not in batchdata:
            return unit_to_attenuation(label.float(), self.hu_window), self.extent / label.shape[-1]
        if self.spacing is None:
            raise ValueError(f"a batch with {self.patient_key!r} needs the spacing of its voxels")
        box = batchdata[self.patient_key].as_subclass(Tensor)
        if not (self.whole_share and float(torch.rand(())) < self.whole_share):
            box = middle_cube(box, round(self.extent / self.spacing))
        return hu_to_attenuation(box.to(label.device, non_blocking=True).float()), self.spacing

    def _placed(self) -> list[Camera]:
        """The cameras of a batch."""
        if not self.camera_share or float(torch.rand(())) >= self.camera_share:
            return self.cameras
        shortest, longest = self.camera_distances
        distance = shortest + (longest - shortest) * float(torch.rand(()))
        turns = (self.camera_turn * torch.randn(len(self.cameras))).tolist()
        return [farther(camera, distance).turned(turn) for camera, turn in zip(self.cameras, turns)]


def farther(camera: Camera, distance: float) -> Camera:
    """A camera whose source is so many mm from the isocentre, and whose detector sees as much of the isocentre's plane.

    Args:
        camera: A camera with a source.
        distance: From its source to the isocentre.
    """
    if camera.source is None:
        return camera
    before = sum(side**2 for side in camera.source) ** 0.5
    behind = sum(side**2 for side in camera.detector_center) ** 0.5
    scale = (distance + behind) / distance / ((before + behind) / before)
    source = tuple(side * distance / before for side in camera.source)
    height, width = camera.pixel_spacing
    return replace(camera, source=source, pixel_spacing=(height * scale, width * scale))
