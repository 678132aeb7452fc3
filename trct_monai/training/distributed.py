"""One network trained by several processes under torchrun."""

import os
import sys

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel


def process_number(name: str) -> int:
    """A number that torchrun tells its processes, such as RANK or WORLD_SIZE.

    Args:
        name: Name of the environment variable.

    Raises:
        ValueError: If it is not set: the process was not started by torchrun.
    """
    if name not in os.environ:
        raise ValueError(f"multi_gpu.json needs torchrun, which sets {name}: torchrun --nproc_per_node 2 -m ...")
    return int(os.environ[name])


def shared_device(local_rank: int) -> torch.device:
    """The GPU of a process of this machine; several share one where there are fewer; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank % torch.cuda.device_count())


def shared_backend(device: str | torch.device) -> str:
    """nccl if each process of this machine has a GPU of its own, else gloo."""
    alone = torch.device(device).type == "cuda" and torch.cuda.device_count() >= process_number("LOCAL_WORLD_SIZE")
    return "nccl" if alone else "gloo"


def device_ids(device: str | torch.device) -> list[torch.device] | None:
    """What DistributedDataParallel is told of a network's device: the GPU, or None for the CPU."""
    return [torch.device(device)] if torch.device(device).type == "cuda" else None


def join_group(device: str | torch.device, backend: str) -> None:
    """Begin to work with the other processes of torchrun.

    Args:
        device: Where this process computes.
        backend: nccl or gloo, see `shared_backend`.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group(backend)


def leave_group(device: str | torch.device) -> None:
    """Wait for the other processes and leave their group. On a CPU this ends the process, whose work is done.

    Processes of gloo on a CPU abort now and then as Python ends ("terminate called without an active exception").
    """
    distributed.barrier()
    distributed.destroy_process_group()
    if torch.device(device).type == "cpu":
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(0)


def wrap_if_many(network: nn.Module, world_size: int, device: str | torch.device | None = None) -> nn.Module:
    """A network in DistributedDataParallel if several processes train it, and the network itself if one does.

    Buffers are not broadcast: with equal weights every process computes the same ones.

    Args:
        network: The network.
        world_size: Number of processes.
        device: Where it shall be; None leaves it where it is.
    """
    network = network if device is None else network.to(device)
    if world_size == 1:
        return network
    place = next(network.parameters()).device
    return DistributedDataParallel(network, device_ids(place), broadcast_buffers=False)
