"""Tensors of weights in eight bits, beside the largest number of each entry along the first axis."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

LARGEST = "_largest"
"""Goes after the name of a tensor in eight bits for that of its entries' largest numbers."""

STEPS = 127


def to_eight_bits(name: str, value: Tensor) -> dict[str, Tensor]:
    """A tensor (K, ...) as int8, and the largest number of each entry (K,) in half precision, by their names.

    An entry is rounded by at most 1 / 254 of its largest number. Rounding again changes nothing.
    """
    largest = value.flatten(1).abs().amax(dim=1).half()
    step = (largest.float() / STEPS).where(largest > 0, 1.0)
    whole = (value / _beside(step, value)).round().clamp(-STEPS, STEPS).to(torch.int8)
    return {name: whole, name + LARGEST: largest}


def from_eight_bits(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict whose tensors in eight bits are float32, and nothing is beside them."""
    short = [name for name, value in state.items() if _is_short(value) and name + LARGEST in state]
    beside = {name + LARGEST for name in short}
    result = {name: value for name, value in state.items() if name not in beside}
    for name in short:
        value, largest = state[name].float(), state[name + LARGEST].float()
        result[name] = value * _beside(largest / STEPS, value)
    return result


class TakesEightBits(nn.Module):
    """A network whose `load_state_dict` takes tensors in eight bits as well, as weights that ship may have them."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        decoded = from_eight_bits(state_dict)
        state_dict.clear()
        state_dict.update(decoded)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _is_short(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.int8


def _beside(factor: Tensor, value: Tensor) -> Tensor:
    """A factor (K,) for each entry of a tensor (K, ...)."""
    return factor.view(-1, *(1,) * (value.ndim - 1))
