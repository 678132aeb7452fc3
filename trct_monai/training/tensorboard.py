"""TensorBoard's records of a training."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils import tensorboard

from trct_monai.io.files import naming_the_disk


class SummaryWriter(tensorboard.SummaryWriter):
    """PyTorch's, whose error on a full disk names the disk.

    TensorBoard writes in a thread of its own: the training ends at the next record after the one that did not fit, and
    the thread's own error is printed before.

    Args:
        log_dir: Folder of the records.
    """

    def __init__(self, log_dir: str) -> None:
        self._named(super().__init__, log_dir, folder=log_dir)

    def add_scalar(self, *args: Any, **kwargs: Any) -> None:
        """As PyTorch's."""
        self._named(super().add_scalar, *args, **kwargs)

    def add_figure(self, *args: Any, **kwargs: Any) -> None:
        """As PyTorch's."""
        self._named(super().add_figure, *args, **kwargs)

    def close(self) -> None:
        """As PyTorch's."""
        self._named(super().close)

    def _named(self, call: Callable[..., Any], *args: Any, folder: str | None = None, **kwargs: Any) -> None:
        with naming_the_disk(Path(folder or self.log_dir)):
            call(*args, **kwargs)
