"""Linear regression from radiographs to the principal components of the training volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.baselines.cases import TrainingCases, each, read_case, shrink
from trct_monai.baselines.fitted import register_fitted_buffers, require_fitted

VOXELS_PER_BLOCK = 2**16
"""Voxels of all training cases that are float32 at one time: 105 MB for 400 cases."""

NUM_COMPONENTS = (4, 8, 16, 32, 64, 128, 256, 512)
RIDGES = tuple(10.0**exponent for exponent in (-5, -4.5, -4, -3.5, -3, -2.5, -2, -1.5, -1, 0))


@dataclass(frozen=True)
class Candidate:
    """One point of the grid, and its mean PSNR in dB on the validation cases (peak 1, before clipping to [0, 1])."""

    num_components: int
    ridge: float
    psnr: float


class RidgePCA(nn.Module):
    """A linear model from radiographs to the volume.

    The training volumes are described by their mean and principal components (Turk and Pentland, J. Cognitive
    Neuroscience 3(1), 1991), the radiographs by image_size x image_size area averages of each view. Ridge regression
    (Hoerl and Kennard, Technometrics 12(1), 1970) leads from one to the other. Both are solved through the N x N Gram
    matrices of N training cases, whatever the number of voxels and pixels.

    400 volumes of 128^3 voxels take 1.7 GB while they are fitted (float16, off by at most 0.6 HU in the default
    window); 128 components, which are all that is kept of them, 0.5 GB.

    Args:
        volume_size: Voxels along each side.
        num_components: Principal components, at most the rank of the training volumes.
        ridge: Penalty, as a fraction of the mean squared norm of the centred radiographs.
        image_size: Rows and columns to which radiographs are averaged.
    """

    mean_image: Tensor
    weights: Tensor
    mean_volume: Tensor
    components: Tensor

    def __init__(
        self, volume_size: int = 64, *, num_components: int = 128, ridge: float = 1e-3, image_size: int = 32
    ) -> None:
        super().__init__()
        if num_components < 1 or ridge <= 0:
            raise ValueError(f"num_components and ridge must be positive, got {num_components} and {ridge}")
        self.volume_size, self.image_size = volume_size, image_size
        self.num_components, self.ridge = num_components, ridge
        self.register_buffer("mean_volume", torch.zeros((volume_size,) * 3))
        register_fitted_buffers(self, mean_image=(0, image_size, image_size), weights=(0, 0, image_size, image_size))
        register_fitted_buffers(self, torch.float16, components=(0, *(volume_size,) * 3))

    def fit(self, cases: TrainingCases) -> "RidgePCA":
        """Fit with the number of components and the ridge that the constructor got.

        Raises:
            ValueError: If there are less than two different cases, or a shape does not fit.
        """
        self._take(_Decomposition(*self._read(cases)))
        return self

    def select(
        self,
        training: TrainingCases,
        validation: TrainingCases,
        num_components: Sequence[int] = NUM_COMPONENTS,
        ridges: Sequence[float] = RIDGES,
    ) -> list[Candidate]:
        """Fit with the number of components and the ridge that do best on the validation cases.

        Args:
            training: Cases to fit.
            validation: Cases of other patients; without any this is `fit`, and the grid is empty.
            num_components: Numbers to try; those above the rank of the training volumes mean all components.
            ridges: Penalties to try.

        Returns:
            The whole grid, best first.

        Raises:
            ValueError: If there are less than two different training cases, or a shape does not fit.
        """
        decomposition = _Decomposition(*self._read(training))
        grid = []
        if any(True for _ in each(validation)):
            images, volumes = self._read(validation)
            counts = sorted({min(count, decomposition.rank) for count in num_components})
            for ridge in ridges:
                psnr = decomposition.psnr(images, volumes, ridge)
                grid += [Candidate(count, ridge, float(psnr[count - 1])) for count in counts]
            grid.sort(key=lambda candidate: -candidate.psnr)
            self.num_components, self.ridge = grid[0].num_components, grid[0].ridge
        self._take(decomposition)
        return grid

    def forward(self, image: Float[Tensor, "B V H W"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The mean volume and its components, weighted by the regression on the radiographs, clipped to [0, 1].

        Raises:
            ValueError: If nothing is fitted, or the number of views is another than in training.
        """
        require_fitted(self.weights, "RidgePCA")
        if image.shape[1] != len(self.mean_image):
            raise ValueError(f"image must be (B, {len(self.mean_image)}, H, W), got shape {tuple(image.shape)}")
        coefficients = (shrink(image.float(), self.image_size) - self.mean_image).flatten(1) @ self.weights.flatten(1).T
        blocks = torch.split(self.components.flatten(1), VOXELS_PER_BLOCK, dim=1)
        volume = torch.cat([coefficients @ block.float() for block in blocks], dim=1)
        return (self.mean_volume + volume.view(-1, 1, *self.mean_volume.shape)).clamp(0.0, 1.0)

    def _read(self, cases: TrainingCases) -> tuple[Tensor, list[Tensor]]:
        """Small radiographs (N, V, h, w), and the volumes as float16, flat."""
        images, volumes = [], []
        for case in each(cases):
            image, label = read_case(case, self.volume_size)
            images.append(shrink(image[None].to(self.mean_volume), self.image_size))
            volumes.append(label.to(self.components).flatten())
        if len({image.shape for image in images}) != 1:
            views = ", ".join(str(image.shape[1]) for image in images)
            raise ValueError(f"cases must be at least one, all of the same views; got {views or 'none'}")
        return torch.cat(images), volumes

    def _take(self, decomposition: "_Decomposition") -> None:
        count = min(self.num_components, decomposition.rank)
        self.mean_image = decomposition.mean_image
        self.weights = decomposition.weights(self.ridge, count).float().view(count, *self.mean_image.shape)
        self.mean_volume = decomposition.mean_volume.view_as(self.mean_volume)
        self.components = decomposition.components(count).view(count, *self.mean_volume.shape)


class _Decomposition:
    """What all numbers of components and all ridges share: the spectra of both Gram matrices, in float64.

    A component is scaled to one standard deviation of the training cases, so that its coefficients have variance 1.
    """

    def __init__(self, images: Tensor, volumes: list[Tensor]) -> None:
        self.volumes, num_cases = volumes, len(volumes)
        self.mean_image = images.mean(dim=0)
        self.features = (images - self.mean_image).flatten(1).double()  # (N, D)
        self.mean_volume = torch.cat([block.mean(dim=0) for block in _blocks(volumes)])
        gram = self._inner_products(volumes)
        variance, vectors = torch.linalg.eigh(gram / num_cases)
        self.rank = int((variance > 1e-7 * variance[-1]).sum()) if num_cases > 1 and variance[-1] > 0 else 0
        if self.rank == 0:
            raise ValueError(f"principal components need two different training volumes, got {num_cases} alike")
        self.variance = variance.flip(0)[: self.rank]
        self.coefficients = vectors.flip(1)[:, : self.rank] * num_cases**0.5  # (N, K)
        self.eigenvalues, self.eigenvectors = torch.linalg.eigh(self.features @ self.features.T)

    def _inner_products(self, others: list[Tensor]) -> Tensor:
        """Inner products (N, M) of the centred training volumes with others, centred by the same mean."""
        result = self.features.new_zeros(len(self.volumes), len(others))
        for own, other, mean in zip(_blocks(self.volumes), _blocks(others), self._means()):
            result += (own - mean) @ (other - mean).T
        return result

    def _means(self) -> Sequence[Tensor]:
        """The mean volume in the blocks of `_blocks`."""
        return torch.split(self.mean_volume, VOXELS_PER_BLOCK)

    def _dual_weights(self, ridge: float) -> Tensor:
        """Weights (N, K) of the training cases' kernels: (F F' + ridge I)^-1 C."""
        penalty = ridge * self.eigenvalues.mean()
        scaled = self.eigenvectors / (self.eigenvalues.clamp(min=0) + penalty)
        result: Tensor = scaled @ (self.eigenvectors.T @ self.coefficients)
        return result

    def weights(self, ridge: float, count: int) -> Tensor:
        """Regression weights (K, D) from centred features to coefficients."""
        return self._dual_weights(ridge)[:, :count].T @ self.features

    def components(self, count: int) -> Tensor:
        """Components (K, voxels) as float16."""
        result = self.volumes[0].new_empty(count, len(self.mean_volume))
        mixing = (self.coefficients[:, :count].T / len(self.volumes)).float()
        for part, block, mean in zip(
            torch.split(result, VOXELS_PER_BLOCK, dim=1), _blocks(self.volumes), self._means()
        ):
            part.copy_(mixing @ (block - mean))
        return result

    def psnr(self, images: Tensor, volumes: list[Tensor], ridge: float) -> Tensor:
        """Mean PSNR in dB on other cases with 1, 2, ... components: one number each, without making a volume.

        |v - sum_k c_k p_k|^2 = |v|^2 - 2 sum_k c_k <v, p_k> + sum_k c_k^2 |p_k|^2 for orthogonal components p_k.
        """
        features = (images - self.mean_image).flatten(1).double()
        predicted = features @ self.features.T @ self._dual_weights(ridge)  # (M, K)
        products = self._inner_products(volumes).T @ self.coefficients / len(self.volumes)
        norms = predicted.new_zeros(len(volumes))
        for block, mean in zip(_blocks(volumes), self._means()):
            norms += (block - mean).square().sum(dim=1)
        gain = (2 * predicted * products - predicted.square() * self.variance).cumsum(dim=1)
        error = (norms[:, None] - gain) / len(self.mean_volume)
        psnr: Tensor = -10 * error.clamp(min=1e-12).log10().mean(dim=0)
        return psnr


def _blocks(volumes: list[Tensor]) -> Iterator[Tensor]:
    """The same voxels of all volumes as float32 (N, voxels), block by block."""
    for parts in zip(*(torch.split(volume, VOXELS_PER_BLOCK) for volume in volumes)):
        yield torch.stack(parts).float()
