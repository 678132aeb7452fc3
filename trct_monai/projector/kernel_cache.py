"""Kernels by what they are made from, the last used of them kept."""

from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

import torch

from trct_monai.geometry import Camera
from trct_monai.projector.kernels import CameraKernel, ReferenceKernel, SeparableKernel, SlabKernel
from trct_monai.projector.rays import Rays, Shape

Affine = tuple[tuple[float, ...], ...]

KERNELS: dict[str, type[CameraKernel]] = {
    "separable": SeparableKernel,
    "slab": SlabKernel,
    "reference": ReferenceKernel,
}

KEPT_BYTES = 2**27
"""Bytes of the kernels that a process keeps, on all devices together. Eight untilted views of 256^3 voxels and 512^2
pixels take 125 MB, 32 tilted ones of 128^2 pixels 10 MB."""


class KernelKey(NamedTuple):
    """What a kernel is made from: `method` is ``auto`` or one of `KERNELS`, `affine` from voxel index to mm."""

    camera: Camera
    shape: Shape
    affine: Affine
    method: str
    dtype: torch.dtype
    device: torch.device


class KernelCache:
    """The kernels that were used last, no more of them than fit a number of bytes.

    Args:
        max_bytes: Bytes of all tables together; a larger kernel is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.nbytes = max_bytes, 0
        self._kernels: OrderedDict[KernelKey, CameraKernel] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kernels)

    def get(self, key: KernelKey) -> CameraKernel:
        """The kernel, made if it is not kept."""
        with self._lock:
            if key in self._kernels:
                self._kernels.move_to_end(key)
                return self._kernels[key]
        kernel = make_kernel(key)
        with self._lock:
            if kernel.nbytes <= self.max_bytes and key not in self._kernels:  # another thread may have been faster
                self._kernels[key] = kernel
                self.nbytes += kernel.nbytes
            while self.nbytes > self.max_bytes:
                self.nbytes -= self._kernels.popitem(last=False)[1].nbytes
        return kernel


kept = KernelCache(KEPT_BYTES)
"""The process's own. A forked worker inherits its content."""


def make_kernel(key: KernelKey) -> CameraKernel:
    """One camera's kernel. Its tables take the time of one to three projections to make.

    Raises:
        ValueError: If the camera's source is not outside the volume, or the method does not fit the camera.
    """
    rays = Rays.of(key.camera, torch.tensor(key.affine, dtype=torch.float64))
    rays.check_source(key.shape)
    if key.method == "separable" and not rays.is_separable:
        raise ValueError(
            f"camera {key.camera.name!r} is tilted against the volume's z axis; use method='slab' or 'auto'"
        )
    name = ("separable" if rays.is_separable else "slab") if key.method == "auto" else key.method
    return KERNELS[name](rays, key.shape, key.dtype, key.device)
