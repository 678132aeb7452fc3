"""Where a reconstruction from any views can start: the most probable volume of a linear model, or of several."""

from collections.abc import Iterable, Iterator, Sequence
from math import inf, log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from trct_monai.geometry import Camera
from trct_monai.intensity import HU_WINDOW, attenuation_per_unit, check_hu_window, unit_to_attenuation
from trct_monai.networks.normal_equation import NormalEquation, cholesky, normal_equation
from trct_monai.projector import project
from trct_monai.resampling import resize_radiographs


class Projections(NamedTuple):
    """Line integrals of a linear start's models from the cameras of one case; see `LinearStart.project`.

    Attributes:
        mean: Of the mean volume of each of M models (M, V, h, w).
        modes: Of each of their K principal components (M, K, V, h, w).
    """

    mean: Tensor
    modes: Tensor

    def of(self, views: Tensor) -> "Projections":
        """Those of some of the views, by their mask (V,)."""
        return Projections(self.mean[:, views], self.modes[:, :, views])


class Start(NamedTuple):
    """What a linear start makes of the radiographs of a batch; see `LinearStart.forward`.

    Attributes:
        added: What to add to the models' means (B, 1, X, Y, Z).
        correction: What to add to the radiographs to correct their exposure (B, V, H, W).
        weights: In which share the case follows each model (B, M).
    """

    added: Tensor
    correction: Tensor
    weights: Tensor


class LinearStart(nn.Module):
    """The most probable volume under a normal distribution in the training volumes' principal components.

    A volume is taken as mean + sum of c_k * modes_k with independent standard normal c, and the radiographs as its
    projections and white noise. Then c solves (H^T H + noise^2) c = H^T (radiographs - projected mean), H being the
    projected modes (Tarantola, Inverse Problem Theory, 2005, section 3.2), for any number of views from anywhere, and
    the more they are the more is known. Before `fit` it adds nothing.

    One normal distribution for phantoms and warped CTs of patients would describe neither. There may be several, each
    of its own training volumes, equally probable beforehand: a case follows them in the shares of their evidence, the
    density of its radiographs with c integrated out (MacKay, Neural Comput. 4, 1992), which for a thousand pixels is
    almost always that of one model alone.

    The exposure of a radiograph may be off: for each view a gain and a quadratic term (by which beam hardening is
    corrected: Brooks and Di Chiro, Phys. Med. Biol. 21, 1976) are unknowns of the same equation, unless its exposure is
    a fact. Pixels at its upper end, which lie under a shutter or were cut off, do not count.

    Args:
        num_modes: Principal components of a model.
        num_models: Models; those that were not fitted take no part.
        size: Voxels along each side of the modes.
        image_size: Rows and columns to which radiographs are averaged.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1.
        noise: Standard deviation of what the components cannot explain in a line integral, one for all models or one
            for each.
        exposure: Standard deviations of the unknown gain and quadratic term of each view, the latter as a share of the
            largest line integral (that of the averaged radiograph: one hot pixel does not count).
    """

    mean: Tensor
    modes: Tensor

    def __init__(
        self,
        num_modes: int = 64,
        *,
        num_models: int = 1,
        size: int = 32,
        image_size: int = 32,
        extent: float,
        hu_window: Sequence[float] = HU_WINDOW,
        noise: float | Sequence[float] = 0.2,
        exposure: Sequence[float] = (0.1, 0.1),
    ) -> None:
        super().__init__()
        if num_models < 1:
            raise ValueError(f"num_models must be positive, got {num_models}")
        noises = [float(one) for one in ([noise] * num_models if isinstance(noise, int | float) else noise)]
        if num_modes < 1 or len(noises) != num_models or min(noises) <= 0:
            raise ValueError(
                f"num_modes and noise must be positive, with one noise for all of {num_models} models or one for each, "
                f"got {num_modes} and {noise}"
            )
        if len(exposure) != 2 or min(exposure) < 0:
            raise ValueError(f"exposure must be two numbers that are not negative, got {tuple(exposure)}")
        self.num_modes, self.num_models, self.noise = num_modes, num_models, tuple(noises)
        self.image_size, self.extent = image_size, extent
        self.exposure = tuple(float(deviation) for deviation in exposure)
        self.hu_window = check_hu_window(hu_window)
        self.register_buffer("mean", torch.zeros(num_models, 1, size, size, size))
        self.register_buffer("modes", torch.zeros(num_models * num_modes, 1, size, size, size))

    @torch.no_grad()
    def fit(self, volumes: Iterable[Float[Tensor, "1 X X X"]], model: int = 0) -> None:
        """Mean and principal components of the training volumes of a model; modes beyond their rank stay zero.

        Args:
            volumes: Values in [0, 1] of the window.
            model: Which of the models.
        """
        size, (mean, modes) = self.mean.shape[-1], self.model(model)
        small = torch.stack([F.adaptive_avg_pool3d(v.as_subclass(Tensor).float(), size) for v in volumes])
        middle = small.mean(dim=0, keepdim=True)
        centred = (small - middle).flatten(1).double()
        values, vectors = torch.linalg.eigh(centred @ centred.T)  # N x N, whatever the number of voxels
        number = min(len(modes), max(len(small) - 1, 0))
        found = vectors[:, -number:].T @ centred if number else centred[:0]
        mean.copy_(middle)
        modes.zero_()
        modes[:number] = (found / len(small) ** 0.5).unflatten(1, mean.shape[1:]).to(modes)

    def model(self, index: int) -> tuple[Float[Tensor, "1 1 X Y Z"], Float[Tensor, "K 1 X Y Z"]]:
        """Mean and components of one of the models."""
        return self.mean[index, None], self.modes.view(self.num_models, self.num_modes, *self.mean.shape[1:])[index]

    @property
    def fitted(self) -> Bool[Tensor, " M"]:
        """Which of the models were fitted."""
        return self.modes.view(self.num_models, -1).abs().amax(dim=1) > 0

    @property
    def models(self) -> list[int]:
        """Those that were fitted; the first before any is."""
        return self.fitted.nonzero()[:, 0].tolist() or [0]

    @property
    def last(self) -> int:
        """The last model that was fitted: that of patients, where there is one."""
        return self.models[-1]

    @torch.no_grad()
    def project(self, cameras: Sequence[Camera]) -> Projections:
        """Line integrals of the means and of the components: what one case needs them for, it is projected once.

        Args:
            cameras: The views of one case.
        """
        views = [camera.resized((self.image_size,) * 2) for camera in cameras]
        modes = self.modes * attenuation_per_unit(self.hu_window)
        volumes = torch.cat([unit_to_attenuation(self.mean, self.hu_window), modes])
        images = project(volumes, views, self.extent / self.mean.shape[-1])
        number = self.num_models
        return Projections(images[:number], images[number:].view(number, self.num_modes, *images.shape[1:]))

    @torch.no_grad()
    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        projections: Sequence[Projections],
        present: Bool[Tensor, "B V"],
        exposed: Bool[Tensor, "B V"] | None = None,
    ) -> Start:
        """The most probable volume and exposures, and the models that they follow.

        Args:
            image: Line integrals.
            projections: Those of each case.
            present: Which views are present.
            exposed: Which views have a known exposure: their line integrals are a fact. None of them if None.
        """
        with torch.autocast(image.device.type, enabled=False):
            image, fitted = image.float(), self.fitted
            added, errors, weights = [], [], []
            for equations in self._equations(image, projections, present, exposed):
                solutions = torch.stack([one.solution for one in equations])
                share = _shares(equations, fitted)
                weighted = share[:, None] * solutions
                added.append(torch.tensordot(weighted[:, : self.num_modes].flatten(), self.modes, dims=1))
                errors.append((fitted[:, None] * weighted)[:, self.num_modes :].sum(dim=0).view(-1, 2, 1, 1))
                weights.append(share)
            unknown = _unknown(present, exposed)
            top = _top(resize_radiographs(image, self.image_size))
            correction = -(torch.stack(errors) * self._exposures(image, top, unknown)).sum(dim=2)
            return Start(torch.stack(added), correction, torch.stack(weights))

    @torch.no_grad()
    def standard_deviation(
        self,
        image: Float[Tensor, "B V H W"],
        projections: Sequence[Projections],
        present: Bool[Tensor, "B V"],
        exposed: Bool[Tensor, "B V"] | None = None,
    ) -> Float[Tensor, "B 1 X Y Z"]:
        """What the views leave open within the components: large in their null space, less with every view.

        The covariance of all unknowns is noise^2 (H^T H + noise^2)^-1 (Tarantola, section 3.2). Arguments as in
        `forward`.
        """
        with torch.autocast(image.device.type, enabled=False):
            variances, fitted = [], self.fitted
            for equations in self._equations(image.float(), projections, present, exposed):
                variance = torch.zeros((), device=image.device)
                for index, (one, share) in enumerate(zip(equations, _shares(equations, fitted))):
                    modes = self.model(index)[1].flatten(1)
                    unknown = F.pad(modes, (0, 0, 0, len(one.matrix) - len(modes)))
                    root = torch.linalg.solve_triangular(cholesky(one.matrix), unknown, upper=False)
                    variance = variance + share * root.square().sum(dim=0) * self.noise[index] ** 2
                variances.append(variance)
            return torch.stack(variances).sqrt().view(-1, *self.mean.shape[1:])

    @torch.no_grad()
    def calibrate(
        self, pictures: Float[Tensor, "V H W"], projections: Projections, calibrated: Sequence[bool]
    ) -> list[tuple[float, float]]:
        """Gain and offset that turn pictures without a scale into line integrals.

        They are found together with the volume: c, gains and offsets solve one linear least-squares problem,
        gain * picture + offset = projected mean + H c + noise. Pixels at the upper end of a picture's range, which may
        have been cut off, do not count. Of several models that one counts under which the pictures are most probable;
        since a gain is a change of variables, the density has the factor gain for each pixel.

        Args:
            pictures: In their own scale.
            projections: Those of the case.
            calibrated: Which ones hold line integrals already: their gain is 1 and their offset 0.

        Returns:
            Gain and offset of each picture.
        """
        models = self.models
        found = self._scales(pictures, projections, calibrated, models[0])
        if len(models) == 1:
            return found
        best = -inf
        for index in models:
            scales = self._scales(pictures, projections, calibrated, index)
            gain, offset = pictures.new_tensor(scales).T[:, :, None, None]
            everything = torch.ones(1, len(pictures), dtype=torch.bool, device=pictures.device)
            image = (pictures * gain + offset)[None].float()
            (equations,) = self._equations(image, [projections], everything, everything)
            counted = self._unsaturated(image)[0].sum(dim=(-2, -1)).tolist()
            evidence = float(equations[index].evidence)
            evidence += sum(number * log(max(abs(scale[0]), 1e-12)) for number, scale in zip(counted, scales))
            if evidence > best:
                best, found = evidence, scales
        return found

    def _scales(
        self, pictures: Float[Tensor, "V H W"], projections: Projections, calibrated: Sequence[bool], model: int
    ) -> list[tuple[float, float]]:
        """Gain and offset of each picture under one of the models."""
        mean, modes = (images[model].double().cpu() for images in projections)
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
        prior[: len(modes)] = self.noise[model] ** 2
        prior[len(modes) :] = 1e-9  # for views that have no unknowns
        solution = torch.linalg.solve(a.T @ a + prior.diag(), a.T @ b)[len(modes) :].view(-1, 2).tolist()
        return [(1.0, 0.0) if known else (gain, offset) for known, (gain, offset) in zip(calibrated, solution)]

    def _equations(
        self, image: Tensor, projections: Sequence[Projections], present: Tensor, exposed: Tensor | None
    ) -> Iterator[list[NormalEquation]]:
        """The solved equation of each model, for each case; unknowns are the modes first, then 2 of each view."""
        radiographs = resize_radiographs(image, self.image_size)
        counted = (self._unsaturated(image) & present[:, :, None, None]).float()
        unknown = _unknown(present, exposed)
        for case, measured, own, mask in zip(projections, radiographs, unknown, counted, strict=True):
            each = torch.eye(len(measured), device=measured.device)[:, None, :, None, None]
            equations = []
            for mean, modes, noise in zip(case.mean, case.modes, self.noise, strict=True):
                errors = self._exposures(mean, _top(measured), own)
                own_errors = (errors[:, :, None] * each).flatten(0, 1)  # a view's do not change the others
                h = (torch.cat([modes, own_errors]) * mask).flatten(1)
                equations.append(normal_equation(h, ((measured - mean) * mask).flatten(), mask, noise))
            yield equations

    def _exposures(
        self, image: Float[Tensor, "*B V H W"], top: Float[Tensor, "*B V 1 1"], unknown: Bool[Tensor, "*B V"]
    ) -> Float[Tensor, "*B V 2 H W"]:
        """What one standard deviation of gain and quadratic term adds to each view, nothing where they are known.

        The solution has them of a model's mean, not of what was measured: that holds its own noise, and a gain that
        makes it fainter would always pay.
        """
        gain, quadratic = self.exposure
        errors = torch.stack([gain * image, quadratic * (image.square() / top)], dim=-3)
        return errors * unknown[..., None, None, None]

    def _unsaturated(self, image: Float[Tensor, "*B V H W"]) -> Bool[Tensor, "*B V h w"]:
        """Where no pixel lies at the upper end of its view."""
        low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
        inside = (image < high - 1e-4 * (high - low)).float()  # resampling has rounded what was one value
        return resize_radiographs(inside, self.image_size) > 0.999


def _unknown(present: Bool[Tensor, "B V"], exposed: Bool[Tensor, "B V"] | None) -> Bool[Tensor, "B V"]:
    """Which views have an unknown exposure: all of them where nothing is known."""
    return torch.ones_like(present) if exposed is None else ~exposed.to(present.device, non_blocking=True)


def _top(image: Float[Tensor, "*B V H W"]) -> Float[Tensor, "*B V 1 1"]:
    """The largest line integral of each view."""
    return image.amax((-2, -1), keepdim=True).clamp(min=1e-6)


def _shares(equations: Sequence[NormalEquation], fitted: Bool[Tensor, " M"]) -> Float[Tensor, " M"]:
    """The models' shares of the evidence; the first model's is all before any is fitted."""
    evidence = torch.stack([one.evidence for one in equations])
    never = -1e30 * torch.arange(1, 1 + len(evidence), device=evidence.device)
    return evidence.where(fitted, never).softmax(dim=0)
