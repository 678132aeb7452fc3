"""Training cases that take longer to make than to train on, each of them used a few times."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from monai.data.utils import set_rnd
from monai.transforms import Randomizable
from torch.utils.data import Dataset, IterableDataset, get_worker_info


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


class RepeatedCases(Randomizable, Dataset[Mapping[str, Any]]):
    """A data set whose random transforms take long: each case that it makes is given a few times.

    It keeps the cases that it made last. One of `repeats` that are asked for is made, and the others are taken from
    those it keeps, by chance; so an epoch shows other cases than it asks for, in the same proportions in the long run.
    Setting the random state, as each epoch does, forgets them: a resumed training sees what an uninterrupted one does.

    Args:
        dataset: Makes the cases.
        repeats: How often a case is given in the mean.
        kept: Cases that are kept, in each worker of a loader: 48 CTs in boxes of 176 x 144 x 160 voxels take 800 MB.
        seed: Of the choice, until a random state is set.

    Raises:
        ValueError: If a number is too small.
    """

    def __init__(self, dataset: Dataset[Mapping[str, Any]], repeats: int = 4, kept: int = 48, seed: int = 0) -> None:
        if repeats < 1 or kept < 1:
            raise ValueError(f"repeats and kept must be at least 1, got {repeats} and {kept}")
        self.dataset, self.repeats, self.kept = dataset, repeats, kept
        self.R = np.random.RandomState(seed)
        self.pool: list[Mapping[str, Any]] = []

    def __len__(self) -> int:
        """Cases of the data set."""
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """The case of that index, or one that was made before.

        Raises:
            IndexError: Beyond the last case.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"there are {len(self)} cases, got index {index}")
        if self.pool and self.R.random() * self.repeats >= 1:
            return dict(self.pool[self.R.randint(len(self.pool))])
        self.pool = [*self.pool, self.dataset[index]][-self.kept :]
        return dict(self.pool[-1])

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "RepeatedCases":
        """Set that of the data set's transforms, too, and forget the cases."""
        super().set_random_state(seed, state)
        self.pool = []
        set_rnd(self.dataset, int(self.R.randint(2**31)))
        return self
