"""Where a reconstruction from any views can start: the most probable volume of a linear model."""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trct_monai.geometry import Camera
from trct_monai.intensity import HU_WINDOW, MU_WATER, check_hu_window, unit_to_attenuation
from trct_monai.projector import project


class LinearStart(nn.Module):
    """The most probable volume under a normal distribution in the training volumes' principal components.

    A volume is taken as mean + sum of c_k * modes_k with independent standard normal c, and the radiographs as its
    projections and white noise. Then c solves (H^T H + noise^2) c = H^T (radiographs - projected mean), H being the
    projected modes (Tarantola, Inverse Problem Theory, 2005, section 3.2): linear in the radiographs, for any number of
    views from anywhere, and the more they are the more is known. Before `fit` it adds nothing.

    Args:
        num_modes: Principal components.
        size: Voxels along each side of the modes.
        image_size: Rows and columns to which radiographs are averaged.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1.
        noise: Standard deviation of what the components cannot explain in a line integral.
    """

    mean: Tensor
    modes: Tensor

    def __init__(
        self,
        num_modes: int = 64,
        *,
        size: int = 32,
        image_size: int = 32,
        extent: float,
        hu_window: Sequence[float] = HU_WINDOW,
        noise: float = 0.2,
    ) -> None:
        super().__init__()
        if num_modes < 1 or noise <= 0:
            raise ValueError(f"num_modes and noise must be positive, got {num_modes} and {noise}")
        self.image_size, self.extent, self.noise = image_size, extent, noise
        self.hu_window = check_hu_window(hu_window)
        self.register_buffer("mean", torch.zeros(1, 1, size, size, size))
        self.register_buffer("modes", torch.zeros(num_modes, 1, size, size, size))

    @torch.no_grad()
    def fit(self, volumes: Iterable[Float[Tensor, "1 X X X"]]) -> None:
        """Mean and principal components of the training volumes; modes beyond their rank stay zero.

        Args:
            volumes: Values in [0, 1] of the window.
        """
        size = self.mean.shape[-1]
        small = torch.stack([F.adaptive_avg_pool3d(v.as_subclass(Tensor).float(), size) for v in volumes])
        mean = small.mean(dim=0, keepdim=True)
        centred = (small - mean).flatten(1).double()
        values, vectors = torch.linalg.eigh(centred @ centred.T)  # N x N, whatever the number of voxels
        number = min(len(self.modes), max(len(small) - 1, 0))
        modes = vectors[:, -number:].T @ centred if number else centred[:0]
        self.mean.copy_(mean)
        self.modes.zero_()
        self.modes[:number] = (modes / len(small) ** 0.5).unflatten(1, self.mean.shape[1:]).to(self.modes)

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "B V H W"], cameras: Sequence[Sequence[Camera]], present: Bool[Tensor, "B V"]
    ) -> Float[Tensor, "B 1 X Y Z"]:
        """What is to be added to the mean of the training volumes.

        Args:
            image: Line integrals.
            cameras: The views of each case.
            present: Which views there are.
        """
        with torch.autocast(image.device.type, enabled=False):
            found = [torch.linalg.solve(normal, seen) for normal, seen in self._equations(image, cameras, present)]
            result: Tensor = torch.tensordot(torch.stack(found), self.modes, dims=1)
            return result

    @torch.no_grad()
    def standard_deviation(
        self, image: Float[Tensor, "B V H W"], cameras: Sequence[Sequence[Camera]], present: Bool[Tensor, "B V"]
    ) -> Float[Tensor, "B 1 X Y Z"]:
        """What the views leave open within the components: large in their null space, less with every view.

        The covariance of c is noise^2 (H^T H + noise^2)^-1 (Tarantola, section 3.2). Arguments as in `forward`.
        """
        with torch.autocast(image.device.type, enabled=False):
            roots = [
                torch.linalg.solve_triangular(torch.linalg.cholesky(normal), self.modes.flatten(1), upper=False)
                for normal, _ in self._equations(image, cameras, present)
            ]
            deviation = torch.stack([root.square().sum(dim=0).sqrt() for root in roots]) * self.noise
            return deviation.view(-1, *self.mean.shape[1:])

    @torch.no_grad()
    def fit_pictures(
        self, pictures: Float[Tensor, "V H W"], cameras: Sequence[Camera], known: Sequence[bool]
    ) -> list[tuple[float, float]]:
        """Gain and offset that turn pictures without a scale into line integrals.

        They are found together with the volume: c, gains and offsets solve one linear least-squares problem,
        gain * picture + offset = projected mean + H c + noise. Pixels at the upper end of a picture's range, which may
        have been cut off, do not count.

        Args:
            pictures: In their own scale.
            cameras: The views.
            known: Which ones hold line integrals already: their gain is 1 and their offset 0.

        Returns:
            Gain and offset of each picture.
        """
        size = (self.image_size,) * 2
        views = [camera.resized(size) for camera in cameras]
        mean = project(unit_to_attenuation(self.mean, self.hu_window), views, self._spacing)[0].double().cpu()
        modes = project(self._attenuating_modes(), views, self._spacing).double().cpu()
        images = F.adaptive_avg_pool2d(pictures.double().cpu(), size)
        low, high = pictures.amin((1, 2), keepdim=True), pictures.amax((1, 2), keepdim=True)
        inside = (pictures < high - 1e-4 * (high - low)).double().cpu()  # resampling has rounded what was one value
        counted = F.adaptive_avg_pool2d(inside, size) > 0.999
        counted |= torch.tensor(known)[:, None, None]
        blocks, targets = [], []
        for view, (image, there) in enumerate(zip(images, counted)):
            scale = torch.zeros(int(there.sum()), 2 * len(images), dtype=torch.float64)
            target = -mean[view][there]
            if known[view]:
                target = target + image[there]
            else:
                scale[:, 2 * view], scale[:, 2 * view + 1] = -image[there], -1.0
            blocks.append(torch.cat([modes[:, view, there].T, scale], dim=1))
            targets.append(target)
        a, b = torch.cat(blocks), torch.cat(targets)
        prior = torch.zeros(a.shape[1], dtype=torch.float64)
        prior[: len(modes)] = self.noise**2
        prior[len(modes) :] = 1e-9  # for views that have no unknowns
        found = torch.linalg.solve(a.T @ a + prior.diag(), a.T @ b)[len(modes) :].view(-1, 2).tolist()
        return [(1.0, 0.0) if sure else (gain, offset) for sure, (gain, offset) in zip(known, found)]

    def _equations(
        self, image: Tensor, cameras: Sequence[Sequence[Camera]], present: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """H^T H + noise^2 (K, K) and H^T (radiographs - projected mean) (K) of each case."""
        mean, modes, spacing = unit_to_attenuation(self.mean, self.hu_window), self._attenuating_modes(), self._spacing
        radiographs = F.adaptive_avg_pool2d(image.float(), self.image_size)
        for case, seen, there in zip(cameras, radiographs, present):
            views = [camera.resized((self.image_size,) * 2) for camera in case]
            h = project(modes, views, spacing)[:, there].flatten(1)
            beyond = (seen - project(mean, views, spacing)[0])[there].flatten()
            yield h @ h.T + self.noise**2 * torch.eye(len(h), device=h.device), h @ beyond

    @property
    def _spacing(self) -> float:
        return self.extent / self.mean.shape[-1]

    def _attenuating_modes(self) -> Float[Tensor, "K 1 X Y Z"]:
        """The modes in 1/mm."""
        low, high = self.hu_window
        return self.modes * (MU_WATER * (high - low) / 1000)
