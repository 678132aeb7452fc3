"""What a second stage is trained on: the first stage's results, and patches at two resolutions."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import nn
from torch.utils.data import get_worker_info


class ApplyNetworkd(MapTransform):
    """Replace items by what a trained network makes of them; deterministic, so that a CacheDataset keeps it.

    Args:
        keys: Keys of the network's inputs, without batch dimension.
        network: A network in evaluation mode.
        device: Device of the network.
        matrices_key: Key of cameras' matrices (V, 3, 4) that go along; None for a network that takes none.
        allow_missing_keys: Ignore a missing key.
    """

    def __init__(
        self,
        keys: KeysCollection,
        network: nn.Module,
        device: str | torch.device = "cpu",
        matrices_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if network.training:
            raise ValueError("the network must be in evaluation mode: its results are kept")
        self.network, self.device, self.matrices_key = network, torch.device(device), matrices_key

    @torch.no_grad()
    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """The items, each run through the network; results on the CPU in float32.

        Raises:
            RuntimeError: If this is a worker process and the network is on a GPU, which workers cannot use.
        """
        if self.device.type == "cuda" and get_worker_info() is not None:
            raise RuntimeError(
                "results of a network on a GPU are not kept for every case: cache_rate 1 or num_workers 0"
            )
        result = dict(data)
        for key in self.key_iterator(result):
            batch = torch.as_tensor(result[key]).as_subclass(torch.Tensor)[None].to(self.device)
            cameras = {} if self.matrices_key is None else {"matrices": data[self.matrices_key][None]}
            result[key] = self.network(batch, **cameras)[0].float().cpu()
        return result


class RandTwoScaleCropd(Randomizable, MapTransform):
    """Patches of a coarse volume, and of a finer one at the same places.

    Args:
        coarse_key: Key of the coarse volume (1, X, Y, Z).
        fine_key: Key of the finer volume: a whole multiple of the coarse one's size along each axis.
        roi_size: Voxels along each side of a coarse patch.
        num_samples: Patches for each case.
    """

    def __init__(self, coarse_key: str, fine_key: str, roi_size: int, num_samples: int = 1) -> None:
        MapTransform.__init__(self, [coarse_key, fine_key])
        self.coarse_key, self.fine_key = coarse_key, fine_key
        self.roi_size, self.num_samples = roi_size, num_samples

    def randomize(self, shape: torch.Size) -> tuple[int, ...]:
        """Corner of a patch in a coarse volume of this shape."""
        return tuple(int(self.R.randint(0, n - self.roi_size + 1)) for n in shape)

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        """`num_samples` dictionaries with patches in place of the volumes.

        Raises:
            ValueError: If the volumes do not fit each other, or are smaller than a patch.
        """
        coarse, fine = data[self.coarse_key], data[self.fine_key]
        scale = fine.shape[-1] // coarse.shape[-1]
        if (
            any(f != scale * c for f, c in zip(fine.shape[1:], coarse.shape[1:]))
            or min(coarse.shape[1:]) < self.roi_size
        ):
            raise ValueError(
                f"{self.fine_key!r} must be a whole multiple of {self.coarse_key!r}, and that at least {self.roi_size} "
                f"along each axis, got shapes {tuple(fine.shape)} and {tuple(coarse.shape)}"
            )
        samples = []
        for _ in range(self.num_samples):
            corner = self.randomize(coarse.shape[1:])
            sample = dict(data)
            for key, volume, factor in ((self.coarse_key, coarse, 1), (self.fine_key, fine, scale)):
                region = tuple(slice(factor * n, factor * (n + self.roi_size)) for n in corner)
                sample[key] = volume[(..., *region)].clone()
            samples.append(sample)
        return samples
