"""Back-projection: every radiograph spread along its rays, filtered before or not."""

from collections.abc import Sequence
from math import ceil, log2, pi

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.baselines.cases import cameras_of
from trct_monai.geometry import DEFAULT_EXTENT, Camera, voxel_centers
from trct_monai.intensity import HU_WINDOW, attenuation_to_hu, hu_to_unit
from trct_monai.projector import backproject, project


class Backprojection(nn.Module):
    """Back-projected radiographs: no iteration, no training case.

    Args:
        volume_size: Voxels along each side.
        geometry: Preset of `trct_monai.geometry.preset`, or the cameras; in the order of the radiographs.
        extent: Side of the volume in mm.
        filtered: `filtered_backprojection` in place of `mean_backprojection`.
        hu_window: HU of 0 and 1 of the result.
    """

    def __init__(
        self,
        volume_size: int = 64,
        *,
        geometry: str | Sequence[Camera] = "x2ct",
        extent: float = DEFAULT_EXTENT,
        filtered: bool = False,
        hu_window: Sequence[float] = HU_WINDOW,
    ) -> None:
        super().__init__()
        self.volume_size, self.geometry, self.extent = volume_size, geometry, extent
        self.filtered, self.hu_window = filtered, hu_window

    def forward(self, image: Float[Tensor, "B V H W"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The back-projected volume, clipped to [0, 1].

        Args:
            image: Radiographs as line integrals, views in the order of the geometry.

        Raises:
            ValueError: If the number of views does not fit.
        """
        cameras = cameras_of(self.geometry, image)
        method = filtered_backprojection if self.filtered else mean_backprojection
        attenuation = method(image.float(), cameras, (self.volume_size,) * 3, self.extent / self.volume_size)
        return hu_to_unit(attenuation_to_hu(attenuation), self.hu_window)


def mean_backprojection(
    image: Float[Tensor, "B V H W"], cameras: Sequence[Camera], shape: tuple[int, int, int], voxel_spacing: float
) -> Float[Tensor, "B 1 X Y Z"]:
    """The mean attenuation along the rays that meet a voxel: A'(y / A1) / A'1, the first step of SIRT.

    (Gilbert, J. Theoretical Biology 36(1), 1972.) A voxel that no ray meets is 0.

    Args:
        image: Line integrals, without unit.
        cameras: The views.
        shape: Number of voxels.
        voxel_spacing: Voxel side in mm.

    Returns:
        Linear attenuation in 1/mm.
    """
    length = project(image.new_ones(1, 1, *shape), cameras, voxel_spacing)
    weight = backproject(torch.ones_like(length), cameras, shape, voxel_spacing)
    # A ray that only grazes the volume, shorter than a voxel, does not count.
    along = torch.where(length > voxel_spacing, image / length.clamp(min=voxel_spacing), 0.0)
    return backproject(along, cameras, shape, voxel_spacing) / weight.clamp(min=torch.finfo(weight.dtype).tiny)


def filtered_backprojection(
    image: Float[Tensor, "B V H W"], cameras: Sequence[Camera], shape: tuple[int, int, int], voxel_spacing: float
) -> Float[Tensor, "B 1 X Y Z"]:
    """Filtered back-projection; for a cone beam the algorithm of Feldkamp, Davis and Kress (JOSA A 1(6), 1984, eq. 28).

    Exact in the limit of many views of parallel beams over 180 degrees, and in the middle plane of a cone's full
    circle. Over 180 degrees a cone measures some rays twice and others never; no Parker weights correct for that. With
    few views the result is mostly streaks, far outside the range of tissue: a property of the method. Views are taken
    as turned about the z axis, each row of a detector is filtered by itself, and what is beyond the detector
    counts as 0.

    Args:
        image: Line integrals, without unit.
        cameras: The views, at any azimuths; each stands for the angles that are nearest to it, modulo 180 degrees.
        shape: Number of voxels.
        voxel_spacing: Voxel side in mm.

    Returns:
        Linear attenuation in 1/mm; may be negative.
    """
    points = voxel_centers(shape, voxel_spacing).flatten(0, 2)
    volume = image.new_zeros(len(image), 1, *shape)
    for camera, angle, radiographs in zip(cameras, _angles(cameras), image.unbind(1)):
        matrix = camera.world_to_detector()
        u, v, depth = matrix[:, :3] @ points.T + matrix[:, 3:]  # depth: distance from the source / sdd
        isocenter_depth = float(matrix[2, 3])
        weighted = radiographs * _cosines(camera).to(image)
        filtered = _ramp(weighted, camera.pixel_spacing[1] * isocenter_depth)
        grid = torch.stack([u / depth, v / depth], dim=-1)[None, None].to(image)
        samples = F.grid_sample(filtered[None], grid, padding_mode="zeros", align_corners=False)[0, :, 0]
        volume += (samples * (angle * (isocenter_depth / depth) ** 2).to(image)).view_as(volume)
    return volume


def _angles(cameras: Sequence[Camera]) -> Tensor:
    """The angle in radians that each view stands for, half way to its neighbours modulo 180 degrees; sum pi."""
    normals = torch.tensor([camera.normal for camera in cameras], dtype=torch.float64)
    azimuth, order = torch.atan2(-normals[:, 0], normals[:, 1]).remainder(pi).sort()
    gap = azimuth.roll(-1) - azimuth
    gap[-1] += pi
    return torch.empty_like(gap).scatter(0, order, (gap + gap.roll(1)) / 2)


def _cosines(camera: Camera) -> Tensor:
    """Cosine (H, W) between each ray and the detector's normal."""
    if camera.source is None:
        return torch.ones(camera.size, dtype=torch.float64)
    r, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in camera.size), indexing="ij")
    source, normal = (torch.tensor(v, dtype=torch.float64) for v in (camera.source, camera.normal))
    rays = torch.stack([c, r, torch.ones_like(c)], dim=-1) @ camera.pixel_to_world().T - source
    cosines: Tensor = rays @ normal / rays.norm(dim=-1)
    return cosines


def _ramp(rows: Float[Tensor, "B H W"], spacing: float) -> Float[Tensor, "B H W"]:
    """Rows through the ramp filter, band-limited (Kak and Slaney, 1988, eq. 3.61), padded so that nothing wraps round.

    Args:
        rows: Values along the last axis.
        spacing: Distance in mm between two of them.
    """
    width = rows.shape[-1]
    length = 2 ** ceil(log2(2 * width))
    index = torch.arange(length, dtype=torch.float64)
    distance = torch.minimum(index, length - index)
    kernel = torch.where(distance % 2 == 1, -1 / (pi * distance.clamp(min=1) * spacing) ** 2, 0.0)
    kernel[0] = 1 / (4 * spacing**2)
    response = torch.fft.rfft(kernel).real.to(rows) * spacing
    filtered: Tensor = torch.fft.irfft(torch.fft.rfft(rows, length) * response, length)
    return filtered[..., :width]
