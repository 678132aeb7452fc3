"""Cameras beside radiographs: where each view was taken, which views a network gets, and where they claim to be."""

from collections.abc import Hashable, Mapping, Sequence
from math import radians
from typing import Any

import torch
from jaxtyping import Int64
from monai.config import KeysCollection
from monai.engines.utils import default_prepare_batch
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from trct_monai.geometry import Camera, preset, projection_matrices, rigid_motion
from trct_monai.transforms.cut_cube import EMPHASIS


class CameraMatricesd(MapTransform):
    """The world-to-detector matrices (V, 3, 4) of a case's ``cameras``, which its datalist or side-cars brought along.

    Args:
        keys: Where the matrices go.
        geometry: Preset of a case that has no cameras, such as two files given by hand.
    """

    def __init__(self, keys: KeysCollection = "matrices", geometry: str | None = None) -> None:
        super().__init__(keys)
        self.geometry = geometry

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, and the matrices.

        Raises:
            ValueError: If the case has no cameras and there is no geometry.
        """
        result = dict(data)
        known = [camera for camera in data.get("cameras") or [] if camera is not None]
        if known:  # a view that is missing may stand anywhere
            cameras = [Camera.from_dict(camera or known[0]) for camera in data["cameras"]]
        elif self.geometry is not None:
            cameras = list(preset(self.geometry))
        else:
            raise ValueError(f"case {data.get('case_id')} has no cameras: prepare it again, or give a geometry")
        for key in self.keys:
            result[key] = projection_matrices(cameras)
        return result


class SelectViewsd(MapTransform):
    """Some of the views, in the order asked for.

    Args:
        keys: Keys of tensors with the views first, or of lists with one entry for each view.
        views: Indices of the views; all if None.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self, keys: KeysCollection, views: Sequence[int] | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.views = None if views is None else [int(view) for view in views]
        if self.views is not None and (not self.views or min(self.views) < 0):
            raise ValueError(f"views must be indices from 0 on, at least one, got {self.views}")

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with those views alone.

        Raises:
            ValueError: If a case has fewer views than that.
        """
        result = dict(data)
        if self.views is None:
            return result
        for key in self.key_iterator(result):
            value = result[key]
            if max(self.views) >= len(value):
                raise ValueError(
                    f"case {data.get('case_id')} has {len(value)} views, views {self.views} were asked for; they are "
                    "counted from 0"
                )
            result[key] = value[self.views] if isinstance(value, Tensor) else [value[view] for view in self.views]
        return result


class RandPosed(Randomizable, MapTransform):
    """Matrices of cameras that stand a little elsewhere: real radiographs are never exactly where they claim.

    Each view is turned about a random axis through the isocentre and shifted, both by normal deviates.

    Args:
        keys: Keys of matrices (V, 3, 4).
        rotation_deg: Standard deviation of the angle in degrees.
        translation_mm: Standard deviation of the shift along each axis in mm.
        prob: Probability that a case is changed at all.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection = "matrices",
        rotation_deg: float = 1.0,
        translation_mm: float = 2.0,
        prob: float = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        if rotation_deg < 0 or translation_mm < 0:
            raise ValueError(
                f"rotation_deg and translation_mm must not be negative, got {rotation_deg} and {translation_mm}"
            )
        self.rotation_deg, self.translation_mm, self.prob = rotation_deg, translation_mm, prob

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, with other matrices."""
        result = dict(data)
        for key in self.key_iterator(result):
            matrices = result[key]
            if self.R.random() >= self.prob:
                continue
            axis = torch.as_tensor(self.R.normal(size=(len(matrices), 3)), dtype=torch.float64)
            angle = radians(self.rotation_deg) * torch.as_tensor(self.R.normal(size=(len(matrices), 1)))
            shift = self.translation_mm * torch.as_tensor(self.R.normal(size=(len(matrices), 3)))
            motion = rigid_motion(torch.nn.functional.normalize(axis, dim=-1) * angle, shift)
            result[key] = (matrices.double() @ motion.to(matrices.device)).to(matrices.dtype)
        return result


class PrepareViews:
    """MONAI's `prepare_batch` for networks that take any views: matrices go along, and training draws views by chance.

    With an item ``exposed`` the network is told which views have a known exposure, too. An item ``emphasis``, as
    `trct_monai.transforms.RandFindingsd` gives it, is a second channel of the label, for
    `trct_monai.losses.EmphasisLoss`.

    The number of views is drawn for each batch, and which they are for each case, from PyTorch's generator.
    The matrices stay on the CPU: networks read cameras from them, and would wait for a GPU to have them back.

    Args:
        min_views: Fewest views that are drawn; None takes all of a batch.
        usual_views: Indices of the views that most users have, such as those of a frontal and a lateral radiograph.
        usual_share: Share of the batches that get those; the others get any.
        matrices_key: Key of the matrices.
        share: Give one set of matrices (1, V, 3, 4) where all cases of a batch have the same, as those of a preset:
            what a network computes from them alone is computed once.
        network: For inference, a network with a `calibrate` method, such as
            `trct_monai.networks.AnyView`: pictures whose ``calibrated`` is false become line integrals. Another
            network takes line integrals alone.
        alone_share: Share of the batches with the usual views that get the first of them alone.
    """

    def __init__(
        self,
        min_views: int | None = None,
        usual_views: Sequence[int] = (),
        usual_share: float = 0.0,
        matrices_key: str = "matrices",
        share: bool = False,
        network: Any = None,
        alone_share: float = 0.0,
    ) -> None:
        if not 0 <= usual_share <= 1 or (usual_share and not usual_views):
            raise ValueError(
                f"usual_share must lie in [0, 1], and needs usual_views, got {usual_share} and {list(usual_views)}"
            )
        if not 0 <= alone_share <= 1:
            raise ValueError(f"alone_share must lie in [0, 1], got {alone_share}")
        self.min_views, self.matrices_key, self.share, self.network = min_views, matrices_key, share, network
        self.usual_views, self.usual_share = [int(view) for view in usual_views], usual_share
        self.alone_share = alone_share

    def __call__(
        self, batchdata: Mapping[str, Any], device: torch.device | str | None, non_blocking: bool, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, tuple[()], dict[str, Any]]:
        """Radiographs as line integrals, the label if there is one, and by name the matrices and what was computed.

        Raises:
            ValueError: If a batch has fewer views than `min_views` or those of `usual_views`.
        """
        prepared = default_prepare_batch(batchdata, device, non_blocking, **kwargs)
        image, label = prepared if isinstance(prepared, tuple | list) else (prepared, None)
        if EMPHASIS in batchdata:
            emphasis = batchdata[EMPHASIS].as_subclass(Tensor).to(label, non_blocking=non_blocking)
            label = torch.cat([label, emphasis], dim=1)
        of_views = {"matrices": batchdata[self.matrices_key]}
        if "exposed" in batchdata:
            of_views["exposed"] = batchdata["exposed"]
        if self.network is not None and not hasattr(self.network, "calibrate"):
            if not bool(batchdata["calibrated"].all()):
                raise ValueError(
                    "the radiographs hold no line integrals, and this network has no `calibrate` that makes some of "
                    "them; give radiographs with side-cars, as `prepare` writes them"
                )
        elif self.network is not None:
            image, projections = self.network.calibrate(image, of_views["matrices"], batchdata["calibrated"])
            return image, label, (), {**of_views, "projections": projections}
        if self.min_views is not None:
            chosen, cases = self.draw(*image.shape[:2]), torch.arange(len(image))[:, None]
            there, where = (index.to(image.device, non_blocking=True) for index in (cases, chosen))
            image, of_views = image[there, where], {name: value[cases, chosen] for name, value in of_views.items()}
        matrices = of_views["matrices"]
        if self.share and bool((matrices == matrices[:1]).all()):
            of_views["matrices"] = matrices[:1]
        return image, label, (), of_views

    def draw(self, batch: int, views: int) -> Int64[Tensor, "B N"]:
        """Which views of each case a network sees, by their indices; all of them without `min_views`.

        Args:
            batch: Cases.
            views: Views of each.

        Raises:
            ValueError: If they are fewer than `min_views`, or some of `usual_views` are not among them.
        """
        if self.min_views is None:
            return torch.arange(views).expand(batch, -1)
        if not 1 <= int(self.min_views or 1) <= views or max(self.usual_views, default=0) >= views:
            raise ValueError(
                f"min_views must be 1 to the data's {views} views, and usual_views below {views}, "
                f"got {self.min_views} and {self.usual_views}"
            )
        number = int(torch.randint(int(self.min_views or 1), views + 1, ()))
        chosen = torch.rand(batch, views).argsort(dim=1)[:, :number]
        if self.usual_share and float(torch.rand(())) < self.usual_share:
            alone = self.alone_share and float(torch.rand(())) < self.alone_share
            chosen = torch.tensor(self.usual_views[:1] if alone else self.usual_views).expand(batch, -1)
        return chosen
