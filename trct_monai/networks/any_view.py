"""A network around the physics: views lifted along their rays, merged without order, and made to agree with them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from trct_monai.geometry import DEFAULT_EXTENT, Camera
from trct_monai.intensity import HU_WINDOW, attenuation_per_unit, check_hu_window, unit_to_attenuation
from trct_monai.networks.agreement import are_present
from trct_monai.networks.linear_start import LinearStart, Projections
from trct_monai.networks.reconstruction import ReconstructionNetwork, beside
from trct_monai.networks.view_pyramid import ViewPyramid, with_names
from trct_monai.projector import Projector, is_traced, untraced
from trct_monai.resampling import resize_cube


class Linear(NamedTuple):
    """What the linear start leaves to the network; see `AnyView.linear`.

    Attributes:
        volume: The volume that is corrected (B, 1, X, Y, Z).
        image: Radiographs as line integrals, their exposure corrected (B, V, H, W).
        model: The most probable model of each case (B,).
    """

    volume: Tensor
    image: Tensor
    model: Tensor


class AnyView(ReconstructionNetwork):
    """A residual pyramid on what any number of views say of each voxel, and learned steps toward agreement with them.

    A `LinearStart` gives the most probable volume under a model of all volumes, or under several, such as one of
    phantoms and one of patients; a `ViewPyramid` corrects it (see `ReconstructionNetwork`), through the projector and
    the case's own cameras. All models share one pyramid, or each has its own: then a case goes through that of its most
    probable model, and what patients need does not take anything from phantoms.

    The order of the views does not matter, their number may be anything from 1 to `max_views`, and one may be missing
    (NaN). Without `matrices` the views are those of the geometry.

    Args:
        volume_size: Voxels along each side; the coarsest level has volume_size / 2 ** len(decoder_channels).
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        hu_window: HU of 0 and 1 in the volume: needed to project it.
        encoder_channels: Channels of each stage of the encoder; a radiograph shrinks by 2 ** len(encoder_channels).
        decoder_channels: Channels of each level, the coarsest first; at most as many as `encoder_channels`.
        num_blocks: Residual blocks of a stage and of a level.
        view_channels: Channels of a view's features, at every scale, when they are lifted.
        num_modes: Principal components of each model of the linear start; see `LinearStart`.
        num_models: Models of the linear start, such as one of phantoms and one of patients, each with its own initial
            volume: `start_from` and `linear_start.fit` set one of them.
        num_pyramids: 1, or one for each model.
        start_noise: What the components of each model leave unexplained in a line integral.
        start_size: Voxels along each side of the initial volume; the linear start's components have half as many.
            `volume_size` if None; a coarser start keeps a fine network's weights small.
        num_steps: Steps toward agreement.
        step_channels: Channels of a step, which works on every voxel of the volume.
        step_size: Rows and columns of the projections in a step.
        step_share: Share of the batches in training that take the steps, which are most of the work; the others train
            the levels alone (after Huang et al., Deep networks with stochastic depth, ECCV 2016).
        num_rounds: Rounds of SIRT in a step. They are no learning: they bring even an untrained network's volume closer
            to the radiographs.
        max_views: Largest number of views.
        deep_supervision: While training, return the volumes of all scales and steps; see `ReconstructionNetwork`.
        num_bands: Frequencies of the positional encoding.
        image_mean: Line integral that the encoder takes as zero.
        image_scale: Line integral that the encoder takes as one, less `image_mean`.

    Raises:
        ValueError: If the sizes do not fit each other.
    """

    extends_coarser = True  # by steps

    def __init__(
        self,
        volume_size: int = 64,
        *,
        geometry: str = "x2ct",
        extent: float = DEFAULT_EXTENT,
        hu_window: Sequence[float] = HU_WINDOW,
        encoder_channels: Sequence[int] = (64, 128, 256, 384),
        decoder_channels: Sequence[int] = (256, 128, 64),
        num_blocks: int = 2,
        view_channels: int = 64,
        num_modes: int = 64,
        num_models: int = 1,
        num_pyramids: int = 1,
        start_noise: float | Sequence[float] = 0.2,
        start_size: int | None = None,
        num_steps: int = 2,
        step_channels: int = 32,
        step_size: int = 128,
        step_share: float = 1.0,
        num_rounds: int = 4,
        max_views: int = 8,
        deep_supervision: bool = False,
        num_bands: int = 4,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        num_levels = len(decoder_channels)
        if not 1 <= num_levels <= len(encoder_channels) or volume_size % 2**num_levels:
            raise ValueError(
                f"decoder_channels must be at most as many as encoder_channels, and volume_size a multiple of 2 ** "
                f"len(decoder_channels), got {tuple(decoder_channels)}, {tuple(encoder_channels)} and {volume_size}"
            )
        if num_pyramids not in (1, num_models):
            raise ValueError(f"num_pyramids must be 1 or num_models, {num_models}, got {num_pyramids}")
        if not 0 < step_share <= 1:
            raise ValueError(f"step_share must lie in (0, 1], got {step_share}")
        start_size = volume_size if start_size is None else start_size
        super().__init__(
            volume_size,
            geometry=geometry,
            extent=extent,
            downsampling=2 ** len(encoder_channels),
            num_scales=num_levels,
            initial_size=start_size,
            deep_supervision=deep_supervision,
            max_views=max_views,
            image_mean=image_mean,
            image_scale=image_scale,
        )
        self.sizes = (*self.sizes, *(volume_size,) * num_steps)
        self.hu_window, self.step_size, self.step_share = check_hu_window(hu_window), step_size, step_share
        self.linear_start = LinearStart(
            num_modes, num_models=num_models, size=start_size // 2, extent=extent, hu_window=hu_window,
            noise=start_noise,
        )  # fmt: skip
        self.initial_volume = nn.Parameter(torch.zeros(num_models, 1, *(start_size,) * 3))
        self.pyramids = nn.ModuleList(
            ViewPyramid(
                volume_size, extent, encoder_channels, decoder_channels, num_blocks, view_channels, num_steps,
                step_channels, step_size, num_rounds, num_bands,
            )
            for _ in range(num_pyramids)
        )  # fmt: skip

    def forward(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ _ 3 4"] | None = None,
        exposed: Bool[Tensor, "B V"] | None = None,
        projections: Sequence[Projections] | None = None,
    ) -> Float[Tensor, "B 1 X Y Z"] | list[Tensor]:
        """See `ReconstructionNetwork.forward`; a missing view is NaN.

        Args:
            image: Radiographs as line integrals.
            matrices: World-to-detector matrices of each case, or one set for all, in place of the preset's.
            projections: What `project_modes` gives for these matrices, if it is known already.
            exposed: Which views have a known exposure; see `LinearStart.forward`.
        """
        matrices = self.check_views(image, matrices)
        if projections is None:
            projections = self.project_modes(matrices, len(image))
        start = self.linear(image, projections, exposed)
        return self.corrected(start.volume, start.image, matrices, start.model)

    @property
    def leaves_some_unused(self) -> bool:
        """Whether some weights get no gradient in some batches: of other models' pyramids, or of steps left out."""
        return len(self.pyramids) > 1 or self.step_share < 1

    @torch.no_grad()
    def start_from(self, volume: Float[Tensor, "1 1 X Y Z"], model: int = 0) -> None:
        """Set the initial volume of one model; see `ReconstructionNetwork.start_from`.

        Args:
            volume: Values in [0, 1], at least as fine as the initial volume.
            model: Which of the linear start's models.
        """
        self.initial_volume[model] = resize_cube(volume, self.initial_volume.shape[-1])[0]

    def start_from_coarser(self, state: Mapping[str, Tensor]) -> None:
        """See `ReconstructionNetwork.start_from_coarser`.

        Models that the weights lack are left without a fit, and their pyramids are as that of the last one with a fit.
        """
        if isinstance(state, Mapping) and "linear_start.mean" in state:
            state, start = with_names(state), self.linear_start
            number = len(state["linear_start.mean"])
            per_model = len(state["linear_start.modes"]) // number
            same = state["linear_start.mean"].shape[1:] == start.mean.shape[1:]
            if same and number <= start.num_models and per_model <= start.num_modes:
                more = start.num_models - number
                modes = state["linear_start.modes"].view(number, per_model, *start.mean.shape[1:])
                padding = (0, 0) * 4 + (0, start.num_modes - per_model, 0, more)
                state["linear_start.modes"] = F.pad(modes, padding).flatten(0, 1)
                for name in ("linear_start.mean", "initial_volume"):
                    state[name] = F.pad(state[name], (0, 0) * 4 + (0, more))
        super().start_from_coarser(state)
        for pyramid, fitted in zip(self.pyramids, self.linear_start.fitted.tolist()):
            if not fitted:
                pyramid.load_state_dict(self.pyramids[self.linear_start.last].state_dict())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Take weights of 0.1.0, whose only pyramid had no name."""
        renamed = with_names(state_dict, prefix)
        state_dict.clear()
        state_dict.update(renamed)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def project_modes(self, matrices: Float[Tensor, "_ V 3 4"], batch: int) -> list[Projections]:
        """The linear start's mean and components as the cameras of each case of a batch see them."""
        found: dict[tuple[Camera, ...], Projections] = {}
        cases = [tuple(case) for case in self.cameras(matrices, batch)]
        for case in cases:
            if case not in found:
                found[case] = untraced(self.linear_start.project, case)
        return [found[case] for case in cases]

    def linear(
        self,
        image: Float[Tensor, "B V H W"],
        projections: Sequence[Projections],
        exposed: Bool[Tensor, "B V"] | None = None,
    ) -> Linear:
        """The volume that is corrected: the initial volume with what a linear model adds to it; and the radiographs
        without what that model takes for errors of their exposure.

        Args:
            image: Radiographs as line integrals; a missing view is NaN.
            projections: What `project_modes` gives.
            exposed: Which views have a known exposure.
        """
        start = self.linear_start(image.nan_to_num(0.0), projections, are_present(image), exposed)
        initial = torch.tensordot(start.weights, self.initial_volume, dims=1)
        volume = resize_cube(initial, self.volume_size) + resize_cube(start.added, self.volume_size)
        return Linear(volume, image + start.correction, start.weights.argmax(dim=1))

    @torch.no_grad()
    def calibrate(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "B V 3 4"], calibrated: Bool[Tensor, "B V"]
    ) -> tuple[Float[Tensor, "B V H W"], list[Projections]]:
        """Radiographs as line integrals, by gain and offset from the linear start, and what `project_modes` gives.

        Args:
            image: Radiographs on any scale; a missing view is NaN.
            matrices: World-to-detector matrices of each case.
            calibrated: Which of them hold line integrals already.
        """
        projections, calibrated = self.project_modes(matrices, len(image)), calibrated.to(image.device)
        image, present = image.clone(), are_present(image)
        for case, found, own, views in zip(image, projections, calibrated, present):
            if not bool((own | ~views).all()):
                scales = self.linear_start.calibrate(case[views], found.of(views), own[views].tolist())
                gain, offset = case.new_tensor(scales).T[:, :, None, None]
                case[views] = case[views] * gain + offset
        return image, projections

    def correct(
        self,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ V 3 4"],
        start: Float[Tensor, "B 1 X Y Z"],
        model: Int[Tensor, " B"],
    ) -> Iterator[Tensor]:
        """See `ReconstructionNetwork.correct`.

        Args:
            image: Radiographs, scaled to about [-1, 1]; a missing view is NaN.
            matrices: World-to-detector matrices, one set for all cases or one for each.
            start: The volume that is corrected.
            model: The model of each case, through whose pyramid it goes.
        """
        steps = not self.training or self.step_share == 1 or float(torch.rand(())) < self.step_share
        if len(self.pyramids) == 1:
            yield from self._through(self.pyramids[0], image, matrices, start, steps)
        elif is_traced():  # a trace has no branches
            every = [self._through(pyramid, image, matrices, start, steps) for pyramid in self.pyramids]
            for updates in zip(*every):
                yield torch.stack(updates)[model, torch.arange(len(image), device=image.device)]
        else:
            chosen, shared = model.tolist(), len(matrices) == 1
            groups = {number: [case for case, one in enumerate(chosen) if one == number] for number in chosen}
            parts = [
                self._through(
                    self.pyramids[number], image[own], matrices if shared else matrices[own], start[own], steps
                )
                for number, own in groups.items()
            ]
            order = torch.tensor(list(chain(*groups.values()))).argsort().tolist()
            for updates in zip(*parts):
                yield torch.cat(updates)[order]

    def _through(
        self,
        pyramid: nn.Module,
        image: Float[Tensor, "B V H W"],
        matrices: Float[Tensor, "_ V 3 4"],
        start: Float[Tensor, "_ 1 X Y Z"],
        steps: bool,
    ) -> Iterable[Tensor]:
        """The corrections of one pyramid."""
        cameras = self.cameras(matrices, len(image))
        projector = Projector(cameras, (self.volume_size,) * 3, self.extent / self.volume_size)
        physics = partial(self._project, projector=projector), partial(self._integrate, projector=projector)
        present, image = are_present(image), image.nan_to_num(0.0)
        updates: Iterable[Tensor] = pyramid(image, beside(matrices, image), present, start, *physics, steps)
        return updates

    @torch.no_grad()
    def unexplained(
        self, volume: Float[Tensor, "B 1 X Y Z"], image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"]
    ) -> Float[Tensor, " B"]:
        """How little volumes explain radiographs: ``|projections - radiographs| / |radiographs|`` of each case.

        Args:
            volume: Values in [0, 1], as fine as the network's own.
            image: Radiographs as line integrals; a missing view is NaN.
            matrices: World-to-detector matrices of each case, or one set for all.
        """
        with torch.autocast(image.device.type, enabled=False):
            weight = are_present(image)[:, :, None, None]
            cameras = self.cameras(matrices, len(image))
            projector = Projector(cameras, (self.volume_size,) * 3, self.extent / self.volume_size)
            measured = F.interpolate(image.nan_to_num(0.0).float(), size=(self.step_size,) * 2, mode="area") * weight
            integrals = projector(unit_to_attenuation(volume.float(), self.hu_window)) * weight
            error, size = ((difference.flatten(1).norm(dim=1)) for difference in (integrals - measured, measured))
            result: Tensor = error / size.clamp(min=1e-6)
            return result

    def _project(self, unit: Float[Tensor, "B 1 X Y Z"], projector: Projector) -> Float[Tensor, "B V h w"]:
        """Radiographs of volumes in [0, 1], scaled as the encoder takes them."""
        with torch.autocast(unit.device.type, enabled=False):
            integrals: Tensor = projector(unit_to_attenuation(unit.float(), self.hu_window))
            return (integrals - self.image_mean) / self.image_scale

    def _integrate(self, unit: Float[Tensor, "B 1 X Y Z"], projector: Projector) -> Float[Tensor, "B V h w"]:
        """What is added to those radiographs where this is added to such volumes."""
        with torch.autocast(unit.device.type, enabled=False):
            integrals: Tensor = projector(unit.float() * attenuation_per_unit(self.hu_window))
            return integrals / self.image_scale

    def cameras(self, matrices: Tensor, batch: int) -> list[list[Camera]]:
        """The cameras of every case, read out at the steps' resolution."""
        size = (self.step_size, self.step_size)
        cases = [[Camera.from_world_to_detector(m, size) for m in case] for case in matrices.detach().double().cpu()]
        return cases * batch if len(cases) == 1 else cases
