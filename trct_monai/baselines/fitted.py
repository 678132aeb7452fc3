"""Buffers with a size that depends on the training data."""

from typing import Any

import torch
from torch import Tensor, nn


def register_fitted_buffers(module: nn.Module, dtype: torch.dtype = torch.float32, **shapes: tuple[int, ...]) -> None:
    """Register buffers that are empty until they are fitted, and into which fitted ones can be loaded.

    Args:
        module: The module that gets the buffers.
        dtype: Type of the numbers.
        **shapes: Shape of each buffer; a 0 is a size that is not known yet and that `load_state_dict` leaves free.
    """
    for name, shape in shapes.items():
        module.register_buffer(name, torch.zeros(shape, dtype=dtype))

    def take_stored_sizes(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
        for name, shape in shapes.items():
            stored, own = state_dict.get(prefix + name), getattr(module, name)
            if isinstance(stored, Tensor) and _fits(tuple(stored.shape), shape):
                setattr(module, name, own.new_zeros(stored.shape))

    module.register_load_state_dict_pre_hook(take_stored_sizes)  # type: ignore[no-untyped-call]  # PyTorch has no types


def require_fitted(buffer: Tensor, method: str) -> None:
    """Refuse to go on with an empty buffer.

    Raises:
        ValueError: If the buffer has no values yet.
    """
    if buffer.numel() == 0:
        raise ValueError(f"{method} is not fitted; call fit with training cases or load a state_dict first")


def _fits(stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return len(stored) == len(shape) and all(known in (0, size) for size, known in zip(stored, shape))
