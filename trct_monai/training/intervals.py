"""Intervals of a trained network on disk: they belong to its weights, and to no others."""

import os
from pathlib import Path

import torch

from trct_monai.io.weights import digest_state, load_frozen, load_state, save_state
from trct_monai.networks import AnyView, IntervalNetwork

FITTED_TO = "fitted_to"
"""Key of the digest of the trained network's weights, as the bytes of a tensor."""


def intervals_beside(path: str | os.PathLike[str]) -> str:
    """Where the weights of intervals lie: intervals.pt beside those of the network."""
    return str(Path(path).parent / "intervals.pt")


def save_intervals(intervals: IntervalNetwork, path: str | os.PathLike[str]) -> None:
    """Write the weights of intervals, with the digest of those of the network that they were fitted to."""
    digest = torch.tensor(list(bytes.fromhex(digest_state(intervals.network.state_dict()))), dtype=torch.uint8)
    save_state(path, {**{name: value.cpu() for name, value in intervals.own_state().items()}, FITTED_TO: digest})


def load_intervals(
    network: AnyView,
    checkpoint: str | os.PathLike[str],
    intervals: str | os.PathLike[str],
    channels: int = 24,
    device: str | torch.device = "cpu",
    *,
    load_pretrain: bool = True,
) -> IntervalNetwork:
    """A network and its intervals, both with their weights, in evaluation mode.

    Args:
        network: The network.
        checkpoint: Its weights.
        intervals: Those of the intervals, as `save_intervals` wrote them.
        channels: Channels of the intervals' network.
        device: Where they shall be.
        load_pretrain: False leaves the weights that they have.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If weights are damaged, belong to another network, or were fitted to other weights of it.
    """
    if not load_pretrain:
        return IntervalNetwork(network, channels).to(device)
    if not os.path.isfile(intervals):
        raise FileNotFoundError(f"no intervals at {intervals}: fit them by configs/train_intervals.json")
    load_frozen(network, checkpoint, device)
    state = load_state(intervals)
    digest = bytes(state.pop(FITTED_TO, torch.zeros(())).flatten().to(torch.uint8).tolist()).hex()
    if digest != digest_state(network.state_dict()):
        raise ValueError(
            f"{intervals} was fitted to other weights than {checkpoint}; fit it again by configs/train_intervals.json"
        )
    result = IntervalNetwork(network, channels)
    try:
        result.load_own_state(state)
    except ValueError as error:
        raise ValueError(f"{intervals}: {error}") from error
    return result.to(device).eval()
