"""MONAI's supervised trainer without a gradient scaler where none is needed."""

from typing import Any

import monai.engines
import torch
from monai.engines.workflow import Workflow


class SupervisedTrainer(monai.engines.SupervisedTrainer):
    """Unlike MONAI's class of this name it scales gradients in float16 alone.

    bfloat16 reaches as far as float32, so its gradients need no scaler, and a scaler makes each step wait for the GPU.
    It copies to the device without waiting and does not decollate, unless it is told.
    """

    def __init__(self, *args: Any, non_blocking: bool = True, decollate: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, non_blocking=non_blocking, decollate=decollate, **kwargs)

    def run(self) -> None:
        """Train from the state that the engine has."""
        half = self.amp_kwargs.get("dtype", torch.float16) == torch.float16
        self.scaler = torch.amp.GradScaler(self.state.device.type, enabled=half) if self.amp else None
        Workflow.run(self)
