"""Where a training computes, and in which precision: what a bundle takes unless it is told."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from monai.data import DataLoader, DistributedSampler
from torch.utils.data import Dataset, IterableDataset, Sampler


def default_device() -> torch.device:
    """The first GPU, or the CPU where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def on_gpu(device: str | torch.device) -> bool:
    """Whether a device is a GPU: then autocast and pinned memory pay."""
    return torch.device(device).type == "cuda"


def half_precision(device: str | torch.device) -> torch.dtype:
    """bfloat16, which needs no gradient scaler; float16 on GPUs without it.

    Args:
        device: Where the network is.
    """
    bfloat16 = not on_gpu(device) or torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if bfloat16 else torch.float16


def device_of_loading(device: str | torch.device, num_workers: int) -> torch.device:
    """Where transforms may compute: on the network's device, or on the CPU in worker processes, which have no GPU."""
    return torch.device("cpu") if num_workers else torch.device(device)


def spare_cores() -> int:
    """All cores but two, which the training needs itself; one at least."""
    return max(1, (os.cpu_count() or 1) - 2)


def data_loader(
    dataset: Dataset[Any],
    batch_size: int = 1,
    *,
    seed: int | None = None,
    rank: int = 0,
    world_size: int = 1,
    num_workers: int = 0,
    pin_memory: bool = False,
    sampler: Sampler[int] | None = None,
    **options: Any,
) -> DataLoader:
    """MONAI's DataLoader over this process's share of the cases.

    The order follows from the seed and the epoch, with one process as with several, so that a resumed training sees the
    cases as one that was not stopped. Shuffled shares have the same length, some cases being there twice; those that
    are not shuffled have each case once. An iterable data set is read as it comes.

    Args:
        dataset: The cases.
        batch_size: Cases of a batch, in this process.
        seed: Of the order, which each epoch draws anew; None keeps the cases in theirs.
        rank: Number of this process.
        world_size: Number of processes.
        num_workers: Processes that load.
        pin_memory: Let the batches lie where a GPU copies them from.
        sampler: In place of that order.
        options: Of PyTorch's DataLoader, such as ``persistent_workers``.

    Raises:
        ValueError: If cases of a batch would have different numbers of radiographs.
    """
    if batch_size > 1:
        _check_views(dataset, batch_size)
    if sampler is None and not isinstance(dataset, IterableDataset):
        share = {"num_replicas": world_size, "rank": rank, "seed": seed or 0}
        shuffle = seed is not None
        sampler = DistributedSampler(dataset, shuffle=shuffle, even_divisible=shuffle, **share)
    options |= {"batch_size": batch_size, "sampler": sampler, "pin_memory": pin_memory}
    return DataLoader(dataset, num_workers=num_workers, **options)


def _check_views(dataset: Dataset[Any], batch_size: int) -> None:
    """Refuse a datalist that mixes cases of one and of two radiographs, unless transforms keep as many of each.

    One case of each number is loaded, only if numbers differ.
    """
    first: dict[int, int] = {}
    for index, case in enumerate(getattr(dataset, "data", ())):
        if isinstance(case, Mapping) and isinstance(case.get("image"), list):
            first.setdefault(len(case["image"]), index)
    if len(first) > 1 and len(numbers := {len(dataset[index]["image"]) for index in first.values()}) > 1:
        raise ValueError(
            f"cases with {' and '.join(map(str, sorted(numbers)))} radiographs cannot share a batch of {batch_size}: "
            "give --batch_size 1, or keep the same views of every case, as --views [0]"
        )
