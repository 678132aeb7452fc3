"""One network trained by several processes."""

from torch import nn
from torch.nn.parallel import DistributedDataParallel


def wrap_if_many(network: nn.Module, world_size: int) -> nn.Module:
    """A network in DistributedDataParallel if several processes train it, and the network itself if one does.

    Buffers are not broadcast: with equal weights every process computes the same ones.

    Args:
        network: On its device.
        world_size: Number of processes.
    """
    if world_size == 1:
        return network
    device = next(network.parameters()).device
    return DistributedDataParallel(network, [device] if device.type == "cuda" else None, broadcast_buffers=False)
