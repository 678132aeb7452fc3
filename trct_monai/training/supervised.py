"""MONAI's supervised trainer with lower precision on any device, and a gradient scaler only where one is needed."""

from typing import Any

import monai.engines
import torch
from monai.engines.workflow import Workflow
from monai.inferers import Inferer


class SupervisedTrainer(monai.engines.SupervisedTrainer):
    """Unlike MONAI's class of this name it scales gradients in float16 alone, and autocasts on the CPU, too.

    bfloat16 reaches as far as float32, so its gradients need no scaler, and a scaler makes each step wait for the GPU.
    It copies to the device without waiting and does not decollate, unless it is told.
    """

    def __init__(self, *args: Any, non_blocking: bool = True, decollate: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, non_blocking=non_blocking, decollate=decollate, **kwargs)
        self.amp: bool
        self.inferer: Inferer
        if self.amp and self.state.device.type != "cuda":  # where MONAI would warn, and compute in float32
            self.inferer = AutocastInferer(self.inferer, **self.amp_kwargs)
            self.amp = self._scales

    @property
    def _scales(self) -> bool:
        """Whether gradients in lower precision need a scaler."""
        return bool(self.amp_kwargs.get("dtype", torch.float16) == torch.float16)

    def run(self) -> None:
        """Train from the state that the engine has."""
        self.scaler = torch.amp.GradScaler(self.state.device.type, enabled=self._scales) if self.amp else None
        Workflow.run(self)


class AutocastInferer(Inferer):
    """An inferer that computes in lower precision on the device of its inputs.

    Args:
        inferer: How the network is applied.
        options: Of `torch.autocast`, such as ``dtype``.
    """

    def __init__(self, inferer: Inferer, **options: Any) -> None:
        super().__init__()
        self.inferer, self.options = inferer, options

    def __call__(self, inputs: torch.Tensor, network: Any, *args: Any, **kwargs: Any) -> Any:
        """What the inferer gives."""
        with torch.autocast(inputs.device.type, **self.options):
            return self.inferer(inputs, network, *args, **kwargs)
