"""A running average of a network's weights, which is what is validated and kept."""

from ignite.engine import Engine
from ignite.handlers import EMAHandler
from torch import nn


class WeightAverage:
    """Ignite's EMAHandler, or nothing at a decay of 0.

    Attributes:
        network: What is validated and kept: the averaged network, or the network itself.
        average: The averaged network for a checkpoint; None if there is none.

    Args:
        network: The network that is trained, or its DistributedDataParallel wrapper.
        decay: Share of the average that a step keeps, in [0, 1).
    """

    def __init__(self, network: nn.Module, decay: float = 0.0) -> None:
        self.handler = EMAHandler(network, momentum=1 - decay) if decay else None
        self.average: nn.Module | None = None if self.handler is None else self.handler.ema_model
        self.network: nn.Module = getattr(network, "module", network) if self.average is None else self.average

    def attach(self, engine: Engine) -> None:
        """Average after each iteration of the trainer."""
        if self.handler is not None:
            self.handler.attach(engine)
