"""Training cases without end, each of them used a few times."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import IterableDataset, get_worker_info


class EndlessPhantoms(IterableDataset[Mapping[str, Any]]):
    """Phantoms of ever new seeds, drawn by the workers of the loader while the network trains.

    A worker keeps the phantoms that it drew last. Whenever it has drawn one it gives `repeats` of those it keeps, by
    chance: drawing takes longer than training on what was drawn. Worker w of n takes the seeds first_seed + w,
    first_seed + w + n, ... An epoch is as long as the trainer's `epoch_length` says.

    Args:
        transform: Makes a case of ``{"label": seed}``, such as `trct_monai.transforms.DrawPhantomd`.
        first_seed: Seed of the first phantom.
        repeats: Cases that are given for each phantom drawn.
        kept: Phantoms that a worker keeps: 24 of 128^3 voxels take 200 MB.

    Raises:
        ValueError: If a number is too small.
    """

    def __init__(
        self,
        transform: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        first_seed: int = 1_000_000,
        repeats: int = 3,
        kept: int = 24,
    ) -> None:
        if repeats < 1 or kept < 1 or first_seed < 0:
            raise ValueError(
                f"repeats and kept must be at least 1 and first_seed at least 0, got {repeats}, {kept} and {first_seed}"
            )
        self.transform, self.first_seed, self.repeats, self.kept = transform, first_seed, repeats, kept

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        worker = get_worker_info()
        number, count = (0, 1) if worker is None else (worker.id, worker.num_workers)
        random = np.random.default_rng([self.first_seed, number])
        seed, pool = self.first_seed + number, list[Mapping[str, Any]]()
        while True:
            pool = [*pool, self.transform({"label": seed})][-self.kept :]
            seed += count
            yield pool[-1]
            for _ in range(self.repeats - 1):
                yield pool[int(random.integers(len(pool)))]
