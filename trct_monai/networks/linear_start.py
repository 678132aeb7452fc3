"""Where a reconstruction from any views can start: the most probable volume of a linear model."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trct_monai.geometry import Camera
from trct_monai.intensity import HU_WINDOW, attenuation_per_unit, check_hu_window, unit_to_attenuation
from trct_monai.projector import project
from trct_monai.resampling import resize_radiographs


class Projections(NamedTuple):
    """Line integrals of a linear model from the cameras of one case; see `LinearStart.project`.

    Attributes:
        mean: Of the mean volume (V, h, w).
        modes: Of each principal component (K, V, h, w).
    """

    mean: Tensor
    modes: Tensor


class LinearStart(nn.Module):
    """The most probable volume under a normal distribution in the training volumes' principal components.

    A volume is taken as mean + sum of c_k * modes_k with independent standard normal c, and the radiographs as its
    projections and white noise. Then c solves (H^T H + noise^2) c = H^T (radiographs - projected mean), H being the
    projected modes (Tarantola, Inverse Problem Theory, 2005, section 3.2), for any number of views from anywhere, and
    the more they are the more is known. Before `fit` it adds nothing.

    The exposure of a radiograph may be off: for each view a gain and a quadratic term (by which beam hardening is
    corrected: Brooks and Di Chiro, Phys. Med. Biol. 21, 1976) are unknowns of the same equation. Pixels at its upper
    end, which lie under a shutter or were cut off, do not count.

    Args:
        num_modes: Principal components.
        size: Voxels along each side of the modes.
        image_size: Rows and columns to which radiographs are averaged.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1.
        noise: Standard deviation of what the components cannot explain in a line integral.
        exposure: Standard deviations of the unknown gain and quadratic term of each view, the latter as a share of the
            largest line integral (that of the averaged radiograph: one hot pixel does not count).
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
        exposure: Sequence[float] = (0.1, 0.1),
    ) -> None:
        super().__init__()
        if num_modes < 1 or noise <= 0:
            raise ValueError(f"num_modes and noise must be positive, got {num_modes} and {noise}")
        if len(exposure) != 2 or min(exposure) < 0:
            raise ValueError(f"exposure must be two numbers that are not negative, got {tuple(exposure)}")
        self.image_size, self.extent, self.noise = image_size, extent, noise
        self.exposure = tuple(float(deviation) for deviation in exposure)
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
    def project(self, cameras: Sequence[Camera]) -> Projections:
        """Line integrals of the mean and of the components: what one case needs them for, it is projected once.

        Args:
            cameras: The views of one case.
        """
        views = [camera.resized((self.image_size,) * 2) for camera in cameras]
        modes = self.modes * attenuation_per_unit(self.hu_window)
        volumes = torch.cat([unit_to_attenuation(self.mean, self.hu_window), modes])
        images = project(volumes, views, self.extent / self.mean.shape[-1])
        return Projections(images[0], images[1:])

    @torch.no_grad()
    def forward(
        self, image: Float[Tensor, "B V H W"], projections: Sequence[Projections], present: Bool[Tensor, "B V"]
    ) -> tuple[Float[Tensor, "B 1 X Y Z"], Float[Tensor, "B V H W"]]:
        """What to add to the mean of the training volumes, and to the radiographs to correct their exposure.

        Args:
            image: Line integrals.
            projections: Those of each case.
            present: Which views are present.
        """
        with torch.autocast(image.device.type, enabled=False):
            image = image.float()
            solutions = [solve(matrix, right) for matrix, right in self._equations(image, projections, present)]
            number = len(self.modes)
            added: Tensor = torch.tensordot(torch.stack([c[:number] for c in solutions]), self.modes, dims=1)
            errors = torch.stack([c[number:] for c in solutions]).view(len(image), -1, 2, 1, 1)
            fitted = self.modes.abs().amax() > 0  # before `fit` there is nothing by which to judge an exposure
            return added, -(fitted * errors * self._exposures(image)).sum(dim=2)

    @torch.no_grad()
    def standard_deviation(
        self, image: Float[Tensor, "B V H W"], projections: Sequence[Projections], present: Bool[Tensor, "B V"]
    ) -> Float[Tensor, "B 1 X Y Z"]:
        """What the views leave open within the components: large in their null space, less with every view.

        The covariance of all unknowns is noise^2 (H^T H + noise^2)^-1 (Tarantola, section 3.2). Arguments as in
        `forward`.
        """
        number = len(self.modes)
        with torch.autocast(image.device.type, enabled=False):
            deviations = []
            for matrix, _ in self._equations(image.float(), projections, present):
                unknown = F.pad(self.modes.flatten(1), (0, 0, 0, len(matrix) - number))
                root = torch.linalg.solve_triangular(_cholesky(matrix), unknown, upper=False)
                deviations.append(root.square().sum(dim=0).sqrt() * self.noise)
            return torch.stack(deviations).view(-1, *self.mean.shape[1:])

    @torch.no_grad()
    def calibrate(
        self, pictures: Float[Tensor, "V H W"], projections: Projections, calibrated: Sequence[bool]
    ) -> list[tuple[float, float]]:
        """Gain and offset that turn pictures without a scale into line integrals.

        They are found together with the volume: c, gains and offsets solve one linear least-squares problem,
        gain * picture + offset = projected mean + H c + noise. Pixels at the upper end of a picture's range, which may
        have been cut off, do not count.

        Args:
            pictures: In their own scale.
            projections: Those of the case.
            calibrated: Which ones hold line integrals already: their gain is 1 and their offset 0.

        Returns:
            Gain and offset of each picture.
        """
        mean, modes = (images.double().cpu() for images in projections)
        pictures = pictures.double().cpu()
        images = resize_radiographs(pictures, self.image_size)
        counted = self._unsaturated(pictures) | torch.tensor(calibrated)[:, None, None]
        blocks, targets = [], []
        for view, (image, mask) in enumerate(zip(images, counted)):
            scale = torch.zeros(int(mask.sum()), 2 * len(images), dtype=torch.float64)
            target = -mean[view][mask]
            if calibrated[view]:
                target = target + image[mask]
            else:
                scale[:, 2 * view], scale[:, 2 * view + 1] = -image[mask], -1.0
            blocks.append(torch.cat([modes[:, view, mask].T, scale], dim=1))
            targets.append(target)
        a, b = torch.cat(blocks), torch.cat(targets)
        prior = torch.zeros(a.shape[1], dtype=torch.float64)
        prior[: len(modes)] = self.noise**2
        prior[len(modes) :] = 1e-9  # for views that have no unknowns
        solution = torch.linalg.solve(a.T @ a + prior.diag(), a.T @ b)[len(modes) :].view(-1, 2).tolist()
        return [(1.0, 0.0) if known else (gain, offset) for known, (gain, offset) in zip(calibrated, solution)]

    def _equations(
        self, image: Tensor, projections: Sequence[Projections], present: Tensor
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """H^T H + noise^2 and H^T (radiographs - projected mean) of each case: modes first, then 2 rows a view."""
        radiographs = resize_radiographs(image, self.image_size)
        counted = self._unsaturated(image) & present[:, :, None, None]
        for (mean, modes), measured, mask in zip(projections, radiographs, counted.float(), strict=True):
            each = torch.eye(len(measured), device=measured.device)[:, None, :, None, None]
            errors = (self._exposures(measured)[:, :, None] * each).flatten(0, 1)  # a view's do not change the others
            h = (torch.cat([modes, errors]) * mask).flatten(1)
            identity = torch.eye(len(h), device=h.device)
            yield h @ h.T + self.noise**2 * identity, h @ ((measured - mean) * mask).flatten()

    def _exposures(self, image: Float[Tensor, "*B V H W"]) -> Float[Tensor, "*B V 2 H W"]:
        """What one standard deviation of gain and quadratic term adds to each view."""
        top = resize_radiographs(image, self.image_size).amax((-2, -1), keepdim=True).clamp(min=1e-6)
        gain, quadratic = self.exposure
        return torch.stack([gain * image, quadratic * (image.square() / top)], dim=-3)

    def _unsaturated(self, image: Float[Tensor, "*B V H W"]) -> Bool[Tensor, "*B V h w"]:
        """Where no pixel lies at the upper end of its view."""
        low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
        inside = (image < high - 1e-4 * (high - low)).float()  # resampling has rounded what was one value
        return resize_radiographs(inside, self.image_size) > 0.999


def solve(matrix: Float[Tensor, "K K"], right: Float[Tensor, " K"]) -> Float[Tensor, " K"]:
    """The solution of a positive definite system. ONNX has no solver: there it is Gauss and Jordan's elimination.

    Raises:
        torch.linalg.LinAlgError: On the CPU, if it is singular; on a GPU, which is not waited for, the result is NaN.
    """
    if not torch.onnx.is_in_onnx_export():
        return _valid(*torch.linalg.solve_ex(matrix, right, check_errors=matrix.device.type == "cpu"))
    both, one = torch.cat([matrix, right[:, None]], dim=1), torch.eye(len(matrix), device=matrix.device)
    for k in range(len(matrix)):
        both = both - (both[:, k : k + 1] - one[:, k : k + 1]) * (both[k : k + 1] / both[k : k + 1, k : k + 1])
    return both[:, -1]


def _cholesky(matrix: Float[Tensor, "K K"]) -> Float[Tensor, "K K"]:
    """The lower factor; raises and gives NaN as `solve` does."""
    return _valid(*torch.linalg.cholesky_ex(matrix, check_errors=matrix.device.type == "cpu"))


def _valid(result: Tensor, info: Tensor) -> Tensor:
    """A result, or NaN where a factorisation has failed."""
    return result if result.device.type == "cpu" else result.where(info == 0, torch.nan)
