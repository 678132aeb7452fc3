"""What chests look like: a mean volume and its principal components, and their projections from any distance."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import make_camera
from trct_monai.geometry.presets import DEFAULT_EXTENT
from trct_monai.intensity import HU_WINDOW, attenuation_per_unit, check_hu_window, unit_to_attenuation
from trct_monai.projector import project

FIELD = 600.0
"""Side in mm, at the isocentre, of the wide projections from which those of a picture are sampled."""

FIELD_PIXELS = 96
"""Their rows and columns: 6.25 mm, less than a voxel of the model."""


class Distance(NamedTuple):
    """Where the source stands.

    Attributes:
        sod: Source-to-isocentre distance in mm; None for a parallel beam.
        sdd: Source-to-detector distance in mm; None for a parallel beam.
    """

    sod: float | None
    sdd: float | None

    @property
    def magnification(self) -> float:
        """How much larger the isocentre's plane is on the detector."""
        return 1.0 if self.sod is None or self.sdd is None else self.sdd / self.sod


class Wide(NamedTuple):
    """Projections on a detector of `FIELD` mm.

    Attributes:
        mean: Line integrals of the mean volume (N, N).
        modes: Those of the components (K, N, N).
        length: Millimetres that each ray runs inside the volume (N, N).
    """

    mean: Tensor
    modes: Tensor
    length: Tensor


class ChestModel:
    """A volume is mean + sum of c_k * modes_k with independent standard normal c, as in `LinearStart`.

    Args:
        mean: Mean volume (1, 1, X, X, X) in [0, 1] of the window.
        modes: Principal components (K, 1, X, X, X), each multiplied by its standard deviation.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1.

    Raises:
        ValueError: If the shapes do not fit.
    """

    def __init__(
        self,
        mean: Float[Tensor, "1 1 X X X"],
        modes: Float[Tensor, "K 1 X X X"],
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        if mean.shape != (1, 1, *mean.shape[2:3] * 3) or modes.shape[1:] != mean.shape[1:]:
            raise ValueError(
                f"mean must be (1, 1, X, X, X) and modes (K, 1, X, X, X), got {tuple(mean.shape)} and "
                f"{tuple(modes.shape)}"
            )
        self.mean, self.modes = mean.detach().float().cpu(), modes.detach().float().cpu()
        self.extent, self.hu_window = float(extent), check_hu_window(hu_window)
        self._wide: dict[tuple[float, Distance], Wide] = {}

    @property
    def voxel_spacing(self) -> float:
        """Voxel side in mm."""
        return self.extent / self.mean.shape[-1]

    def wide(self, azimuth_deg: float, distance: Distance) -> Wide:
        """Projections on the wide detector; they are computed once.

        Args:
            azimuth_deg: Of the view.
            distance: Of the source.
        """
        key = (azimuth_deg, distance)
        if key not in self._wide:
            side = FIELD * distance.magnification
            camera = make_camera(
                "wide", azimuth_deg, sod=distance.sod, sdd=distance.sdd, detector_extent=(side, side),
                size=(FIELD_PIXELS, FIELD_PIXELS),
            )  # fmt: skip
            modes = self.modes * attenuation_per_unit(self.hu_window)
            volumes = torch.cat([unit_to_attenuation(self.mean, self.hu_window), modes, torch.ones_like(self.mean)])
            with torch.no_grad():
                images = project(volumes, [camera], self.voxel_spacing)[:, 0]
            self._wide[key] = Wide(images[0], images[1:-1], images[-1])
        return self._wide[key]

    def volume(self, coefficients: Float[Tensor, " K"]) -> Float[Tensor, "1 1 X X X"]:
        """The volume of some coefficients in [0, 1] of the window."""
        volume: Tensor = self.mean + torch.tensordot(coefficients.float()[None], self.modes, dims=1)
        return volume.clamp(0.0, 1.0)
