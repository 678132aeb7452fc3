"""The adversarial trainer: a generator against a discriminator on MONAI's engine."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.nn.functional as F
from ignite.engine import Engine, EventEnum
from monai.engines import Trainer
from monai.engines.utils import IterationEvents, default_metric_cmp_fn, default_prepare_batch
from monai.engines.workflow import Workflow
from monai.inferers import Inferer, SimpleInferer
from monai.utils import CommonKeys
from torch import Tensor, nn

Condition = Callable[..., Tensor]


def middle_slice(image: Tensor) -> Tensor:
    """The middle one of a stack of slices (B, C, H, W), as `condition` of a discriminator: (B, 1, H, W)."""
    middle = image.shape[1] // 2
    return image[:, middle : middle + 1]


class DiscriminatorEvents(EventEnum):
    """Events of the discriminator's step within an iteration; all of `IterationEvents` but the last come before."""

    DISCRIMINATOR_LOSS_COMPLETED = "discriminator_loss_completed"
    DISCRIMINATOR_BACKWARD_COMPLETED = "discriminator_backward_completed"


class AdversarialTrainer(Trainer):
    """Trains a network on a reconstruction loss and on the adversarial term of a discriminator.

    Unlike MONAI's `GanTrainer` it trains on pairs and fires the events of `SupervisedTrainer`, with the same output, so
    that its handlers, metrics and postprocessing work as they do there.

    Each iteration takes the generator's step, with the discriminator frozen, then the discriminator's: the labels are
    real, the predictions of this iteration fake, both in one forward pass. Up to epoch `adversarial_start`, and with a
    weight of 0, the discriminator is inactive: neither evaluated nor trained. Parts of it that are frozen stay frozen.

    Of a network with deep supervision the loss sees all volumes, the discriminator the finest.

    The output of an iteration has `image`, `label`, `pred` and `loss` and, once the discriminator is active,
    ``reconstruction_loss``, ``adversarial_loss``, ``discriminator_loss``, ``accuracy_real``, ``accuracy_fake`` and
    ``discriminator_gradient_norm``.

    Args:
        device: Where to train.
        max_epochs: Number of epochs.
        train_data_loader: Batches with ``image`` and ``label``.
        network: The generator, or its DistributedDataParallel wrapper.
        optimizer: The generator's.
        loss_function: Reconstruction loss of (prediction, label).
        discriminator: Volumes to scores without an activation, or its DistributedDataParallel wrapper.
        discriminator_optimizer: The discriminator's.
        adversarial_loss: Of (scores, target_is_real, for_discriminator), as MONAI's PatchAdversarialLoss; least squares
            need its ``no_activation_leastsq=True``.
        adversarial_weight: Weight of the adversarial term in the generator's loss.
        adversarial_start: Number of epochs in which the discriminator is inactive.
        decision_threshold: Score above which a patch counts as classified real: 0.5 for least squares, 0 for logits.
        condition: Function of all that the network is given that gives channels for the discriminator, put before the
            volume (pix2pix); None for the volume alone.
        epoch_length: Iterations of an epoch; the loader's if None.
        non_blocking: Copy to the device without waiting.
        prepare_batch: Batch to (input, target[, args, kwargs]); args and kwargs go to the generator alone.
        inferer: How the generator is applied.
        postprocessing: Of the output, after MODEL_COMPLETED.
        key_train_metric: As in MONAI's trainers.
        additional_metrics: As in MONAI's trainers.
        metric_cmp_fn: As in MONAI's trainers.
        train_handlers: Handlers, as in MONAI's trainers.
        amp: Compute in lower precision, on any device; a gradient scaler is used for float16 alone.
        event_names: Further events.
        event_to_attr: As in MONAI's trainers.
        decollate: As in MONAI's trainers.
        accumulation_steps: Iterations whose gradients are added before both networks take a step.
        to_kwargs: As in MONAI's trainers.
        amp_kwargs: Of `torch.autocast`, such as ``{"dtype": torch.bfloat16}``.

    Raises:
        ValueError: If a weight or a number of epochs is negative.
    """

    def __init__(
        self,
        device: torch.device | str,
        max_epochs: int,
        train_data_loader: Any,
        network: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss_function: Callable[..., Tensor],
        discriminator: nn.Module,
        discriminator_optimizer: torch.optim.Optimizer,
        adversarial_loss: Callable[..., Any],
        *,
        adversarial_weight: float = 1.0,
        adversarial_start: int = 0,
        decision_threshold: float = 0.5,
        condition: Condition | None = None,
        epoch_length: int | None = None,
        non_blocking: bool = False,
        prepare_batch: Callable[..., Any] = default_prepare_batch,
        inferer: Inferer | None = None,
        postprocessing: Callable[..., Any] | None = None,
        key_train_metric: Mapping[str, Any] | None = None,
        additional_metrics: Mapping[str, Any] | None = None,
        metric_cmp_fn: Callable[..., bool] = default_metric_cmp_fn,
        train_handlers: Sequence[Any] | None = None,
        amp: bool = False,
        event_names: Sequence[Any] | None = None,
        event_to_attr: dict[Any, Any] | None = None,
        decollate: bool = True,
        accumulation_steps: int = 1,
        to_kwargs: dict[str, Any] | None = None,
        amp_kwargs: dict[str, Any] | None = None,
    ) -> None:
        if adversarial_weight < 0 or adversarial_start < 0 or accumulation_steps < 1:
            raise ValueError(
                f"adversarial_weight and adversarial_start must be 0 or above and accumulation_steps 1 or above, got "
                f"{adversarial_weight}, {adversarial_start} and {accumulation_steps}"
            )
        self.network, self.optimizer, self.loss_function = network, optimizer, loss_function
        self.discriminator, self.discriminator_optimizer = discriminator, discriminator_optimizer
        self.adversarial_loss, self.adversarial_weight = adversarial_loss, adversarial_weight
        self.adversarial_start, self.decision_threshold = adversarial_start, decision_threshold
        self.condition, self.accumulation_steps = condition, accumulation_steps
        self.inferer = SimpleInferer() if inferer is None else inferer
        self.scaler: torch.amp.GradScaler | None = None
        super().__init__(
            device=device,
            max_epochs=max_epochs,
            data_loader=train_data_loader,
            epoch_length=epoch_length,
            non_blocking=non_blocking,
            prepare_batch=prepare_batch,
            postprocessing=postprocessing,
            key_metric=None if key_train_metric is None else dict(key_train_metric),
            additional_metrics=None if additional_metrics is None else dict(additional_metrics),
            metric_cmp_fn=metric_cmp_fn,
            handlers=train_handlers,
            amp=amp,
            event_names=[IterationEvents, DiscriminatorEvents, *(event_names or ())],
            event_to_attr=event_to_attr,
            decollate=decollate,
            to_kwargs=to_kwargs,
            amp_kwargs=amp_kwargs,
        )

    def run(self) -> None:
        """Train from the state that the engine has; float16 alone has gradients so small that they need a scaler."""
        half = self.amp and self.amp_kwargs.get("dtype") == torch.float16
        self.scaler = torch.amp.GradScaler(self.state.device.type) if half else None
        Workflow.run(self)

    @property
    def discriminator_is_active(self) -> bool:
        """Whether this epoch has an adversarial term and a step of the discriminator."""
        return self.adversarial_weight > 0 and self.state.epoch > self.adversarial_start

    def _iteration(self, engine: Engine, batchdata: Mapping[str, Tensor]) -> Any:
        """One step of the generator and, if it is active, one of the discriminator."""
        inputs, targets, *rest = self.prepare_batch(batchdata, self.state.device, self.non_blocking, **self.to_kwargs)
        args, kwargs = rest or ((), {})
        volumes = targets[:, :1]  # a second channel says what the loss shall emphasise
        number = (self.state.iteration - 1) % self.state.epoch_length
        first = number % self.accumulation_steps == 0
        last = (number + 1) % self.accumulation_steps == 0 or number + 1 == self.state.epoch_length
        output: dict[str, Any] = {CommonKeys.IMAGE: inputs, CommonKeys.LABEL: volumes}
        condition: Tensor | None = None
        self.state.output = output

        self.network.train()
        if first:
            self.optimizer.zero_grad()
        with self._autocast():
            output[CommonKeys.PRED] = self.inferer(inputs, self.network, *args, **kwargs)
            self.fire_event(IterationEvents.FORWARD_COMPLETED)
            loss = self.loss_function(output[CommonKeys.PRED], targets).mean()
            if self.discriminator_is_active:
                output["reconstruction_loss"] = loss.detach()
                condition = None if self.condition is None else self.condition(inputs, *args, **kwargs)
                adversarial_term = self._generator_term(condition, _finest(output[CommonKeys.PRED]))
                loss = loss + self.adversarial_weight * adversarial_term
                output["adversarial_loss"] = adversarial_term.detach()
        output[CommonKeys.LOSS] = loss
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._scaled(loss / self.accumulation_steps).backward()  # type: ignore[no-untyped-call]
        output[CommonKeys.LOSS] = loss.detach()
        output[CommonKeys.PRED] = _finest(output[CommonKeys.PRED]).detach()
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        if last:
            self._step(self.optimizer)

        if self.discriminator_is_active:
            self._train_discriminator(condition, volumes, output, first, last)
        else:
            self.discriminator_optimizer.step()  # without gradients it does nothing, and its schedule may go on
        if last and self.scaler is not None:
            self.scaler.update()
        self.fire_event(IterationEvents.MODEL_COMPLETED)  # decollates and postprocesses the state's output
        return self.state.output

    def _generator_term(self, condition: Tensor | None, prediction: Tensor) -> Tensor:
        """The generator's adversarial term; the discriminator gets no gradients from it."""
        # Past DistributedDataParallel: this pass has no gradients to share.
        discriminator: nn.Module = getattr(self.discriminator, "module", self.discriminator)
        trainable = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
        for parameter in trainable:
            parameter.requires_grad_(False)
        scores = discriminator(_discriminator_input(condition, prediction))
        for parameter in trainable:
            parameter.requires_grad_(True)
        loss: Tensor = self.adversarial_loss(scores, target_is_real=True, for_discriminator=False)
        return loss

    def _train_discriminator(
        self, condition: Tensor | None, targets: Tensor, output: dict[str, Any], first: bool, last: bool
    ) -> None:
        self.discriminator.train()
        if first:
            self.discriminator_optimizer.zero_grad()
        fake_volume = output[CommonKeys.PRED]
        if fake_volume.shape[2:] != targets.shape[2:]:  # a network that is still trained at a coarser scale
            targets = F.interpolate(targets, size=fake_volume.shape[2:], mode="area")
        with self._autocast():
            both = torch.cat([_discriminator_input(condition, volume) for volume in (targets, fake_volume)])
            real, fake = self.discriminator(both.to(targets.dtype)).chunk(2)
            loss = 0.5 * (
                self.adversarial_loss(real, target_is_real=True, for_discriminator=True)
                + self.adversarial_loss(fake, target_is_real=False, for_discriminator=True)
            )
        output["discriminator_loss"] = loss.detach()
        output["accuracy_real"] = (real.detach() > self.decision_threshold).float().mean()
        output["accuracy_fake"] = (fake.detach() <= self.decision_threshold).float().mean()
        self.fire_event(DiscriminatorEvents.DISCRIMINATOR_LOSS_COMPLETED)
        self._scaled(loss / self.accumulation_steps).backward()  # type: ignore[no-untyped-call]
        if last:
            if self.scaler is not None:
                self.scaler.unscale_(self.discriminator_optimizer)
            gradients = [p.grad for p in self.discriminator.parameters() if p.grad is not None]
            output["discriminator_gradient_norm"] = nn.utils.get_total_norm(gradients).detach()
        self.fire_event(DiscriminatorEvents.DISCRIMINATOR_BACKWARD_COMPLETED)
        if last:
            self._step(self.discriminator_optimizer)

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs)

    def _scaled(self, loss: Tensor) -> Tensor:
        return loss if self.scaler is None else self.scaler.scale(loss)

    def _step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.scaler is None:
            optimizer.step()
        else:
            self.scaler.step(optimizer)


def _finest(prediction: Tensor | Sequence[Tensor]) -> Tensor:
    """The finest volume of a network, with or without deep supervision."""
    return prediction if isinstance(prediction, Tensor) else prediction[0]


def _discriminator_input(condition: Tensor | None, volume: Tensor) -> Tensor:
    """A volume, after the condition if there is one.

    It is clipped to [0, 1]: in training a prediction may leave it a little, by which it could be told from a label.
    """
    volume = volume.clamp(0.0, 1.0)
    return volume if condition is None else torch.cat([condition, volume], dim=1)
