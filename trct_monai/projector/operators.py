"""Line integrals of a volume along the rays of any cameras, and the exact adjoint.

Every ray is sampled where it crosses a stack of planes; in a plane the volume is interpolated linearly (Joseph, IEEE
Trans. Med. Imaging 1(3), 1982), and the sum is multiplied by the length of the ray between two planes:

    p(r, c) = length(r, c) * sum_d volume(x_d(r, c))

A ray is the whole line from the source through the pixel: it does not end at the detector.

Three ways compute that sum; `method` chooses one by name, ``"auto"`` the fast one that fits the camera.

``separable``
    For a detector whose rows run along the volume's z axis (every untilted view, cone or parallel). The planes are
    parallel to the detector, and so the sum separates: in each plane a fan resampling in (x, y) that is the same for
    all z, then a scaling along z that is the same for all columns. Both are weighted sums of rows of memory
    (`embedding_bag`), in blocks of planes small enough to stay in the cache, and the adjoint is their transpose.
``slab``
    For any camera. The planes are the volume's own slices across the main direction of the beam; each takes one 2-D
    `grid_sample`, the adjoint its own scatter.
``reference``
    The same sample points as the fast path, gathered by one 3-D `grid_sample`. Plain, slow and large: for tests.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.grids import voxel_to_world
from trct_monai.intensity import hu_to_attenuation
from trct_monai.projector.kernel_cache import KERNELS, Affine, KernelKey, kept
from trct_monai.projector.kernels import CameraKernel

KernelName = Literal["auto", "separable", "slab", "reference"]
Cameras = Sequence[Camera] | Sequence[Sequence[Camera]]
Kernels = list[list[CameraKernel]]
"""A kernel for each view of each volume of a batch."""

T = TypeVar("T")


def project(
    volume: Float[Tensor, "B 1 X Y Z"],
    cameras: Cameras,
    voxel_spacing: float | Sequence[float] | None = None,
    *,
    affine: Tensor | None = None,
    method: KernelName = "auto",
) -> Float[Tensor, "B V H W"]:
    """Line integrals of a volume, one radiograph for each camera.

    Computed in float32 (float64 for a float64 volume), whatever autocast says; differentiable in the volume. Use a
    `Projector` to project many times by the same cameras.

    Args:
        volume: Linear attenuation in 1/mm. Outside of it there is nothing.
        cameras: One sequence of views for the whole batch, or one sequence for each volume of the batch.
        voxel_spacing: Voxel side in mm (one or three numbers) of a volume centred on the isocentre.
        affine: In place of `voxel_spacing`: matrix (4, 4) from voxel index to mm from the isocentre.
        method: ``auto``, ``separable``, ``slab`` or ``reference``; see the module's docstring.

    Returns:
        Line integrals without unit, (B, V, H, W).

    Raises:
        ValueError: If the shapes, the cameras' sizes or the method do not fit.
    """
    volume = _checked_volume(volume)
    return _apply(_Project, volume, _kernels(cameras, volume.shape[2:], voxel_spacing, affine, method, volume))


def project_hu(
    volume_hu: Float[Tensor, "1 X Y Z"], cameras: Sequence[Camera], voxel_spacing: float
) -> Float[Tensor, "V H W"]:
    """Line integrals of a CT, one radiograph for each camera; see `project`.

    Args:
        volume_hu: CT numbers in HU, axes in RAS order, centred on the isocentre.
        cameras: The views, of one size.
        voxel_spacing: Voxel side in mm.
    """
    attenuation = hu_to_attenuation(volume_hu.as_subclass(Tensor).float())
    return project(attenuation[None], cameras, voxel_spacing)[0]


def backproject(
    radiographs: Float[Tensor, "B V H W"],
    cameras: Cameras,
    shape: Sequence[int],
    voxel_spacing: float | Sequence[float] | None = None,
    *,
    affine: Tensor | None = None,
    method: KernelName = "auto",
) -> Float[Tensor, "B 1 X Y Z"]:
    """The adjoint of `project`: spread each pixel's value along its ray. Adjoint, not inverse.

    Args:
        radiographs: One value for each pixel, (B, V, H, W).
        cameras: As in `project`.
        shape: Number of voxels (X, Y, Z) of the result.
        voxel_spacing: As in `project`.
        affine: As in `project`.
        method: As in `project`.

    Raises:
        ValueError: If the shapes, the cameras' sizes or the method do not fit.
    """
    radiographs = _checked_radiographs(radiographs)
    return _apply(_Backproject, radiographs, _kernels(cameras, shape, voxel_spacing, affine, method, radiographs))


class Projector(nn.Module):
    """`project` and `backproject` for cameras and a kind of volume that stay the same.

    It keeps the cameras' tables for as long as it lives: make one for all that is projected by the same cameras.

    Args:
        cameras: As in `project`.
        shape: Number of voxels (X, Y, Z).
        voxel_spacing: Voxel side in mm (one or three numbers) of a volume centred on the isocentre.
        method: As in `project`.
    """

    def __init__(
        self,
        cameras: Cameras,
        shape: Sequence[int],
        voxel_spacing: float | Sequence[float],
        method: KernelName = "auto",
    ) -> None:
        super().__init__()
        self.cameras, self.shape = cast(Cameras, tuple(cameras)), tuple(shape)
        self.voxel_spacing, self.method = voxel_spacing, method
        self._own: dict[KernelKey, CameraKernel] = {}

    def forward(self, volume: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, "B V H W"]:
        """Line integrals of attenuation in 1/mm."""
        if tuple(volume.shape[2:]) != self.shape:
            raise ValueError(f"volume must have {self.shape} voxels, got {tuple(volume.shape[2:])}")
        volume = _checked_volume(volume)
        return _apply(_Project, volume, self._kernels(volume))

    def adjoint(self, radiographs: Float[Tensor, "B V H W"]) -> Float[Tensor, "B 1 X Y Z"]:
        """Back-projection, the transpose of `forward`."""
        radiographs = _checked_radiographs(radiographs)
        return _apply(_Backproject, radiographs, self._kernels(radiographs))

    def _kernels(self, like: Tensor) -> Kernels:
        return _kernels(self.cameras, self.shape, self.voxel_spacing, None, self.method, like, self._find)

    def _find(self, key: KernelKey) -> CameraKernel:
        if key not in self._own:
            self._own[key] = kept.get(key)
        return self._own[key]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_own": {}}


def is_traced() -> bool:
    """Whether TorchScript or ONNX is being made of what runs."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]  # PyTorch has no types here


def untraced(function: Callable[..., T], *arguments: Any) -> T:
    """A function's result; while a network is traced it is a constant, for a trace sees its own thread only."""
    if not is_traced():
        return function(*arguments)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *arguments).result()


def _checked_volume(volume: Tensor) -> Tensor:
    if volume.ndim != 5 or volume.shape[1] != 1:
        raise ValueError(f"volume must be (B, 1, X, Y, Z), got shape {tuple(volume.shape)}")
    return _at_least_float32(volume)


def _checked_radiographs(radiographs: Tensor) -> Tensor:
    if radiographs.ndim != 4:
        raise ValueError(f"radiographs must be (B, V, H, W), got shape {tuple(radiographs.shape)}")
    return _at_least_float32(radiographs)


def _at_least_float32(tensor: Tensor) -> Tensor:
    plain = tensor.as_subclass(Tensor)
    return plain if plain.dtype == torch.float64 else plain.float()


def _project(volume: Tensor, kernels: Kernels) -> Tensor:
    parts = [
        torch.stack([kernel.project(volume[cases, 0]) for kernel in kernels[cases.start]], dim=1)
        for cases in _alike(kernels)
    ]
    return torch.cat(parts)


def _alike(kernels: Kernels) -> list[slice]:
    """Runs of cases that have the same kernels."""
    starts = [case for case in range(len(kernels)) if case == 0 or not _are_same(kernels[case], kernels[case - 1])]
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], len(kernels)])]


def _are_same(one: Sequence[CameraKernel], other: Sequence[CameraKernel]) -> bool:
    return one is other or all(a is b for a, b in zip(one, other))


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, volume: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        return _project(volume, kernels)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _apply(_Backproject, grad, ctx.kernels), None


class _Backproject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, radiographs: Tensor, kernels: Kernels) -> Tensor:
        ctx.kernels = kernels
        expected = (len(kernels), len(kernels[0]), *kernels[0][0].size)
        if radiographs.shape != expected:
            raise ValueError(f"radiographs must be (B, V, H, W) = {expected} here, got {tuple(radiographs.shape)}")
        volume = radiographs.new_zeros(len(kernels), 1, *kernels[0][0].shape)
        for cases in _alike(kernels):
            for view, kernel in enumerate(kernels[cases.start]):
                kernel.add_adjoint(radiographs[cases, view], volume[cases, 0])
        return volume

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _apply(_Project, grad, ctx.kernels), None


def _apply(function: type[torch.autograd.Function], tensor: Tensor, kernels: Kernels) -> Tensor:
    """`function.apply`, whatever autocast says."""
    with torch.autocast(tensor.device.type, enabled=False):
        if is_traced() and function is _Project:  # a trace cannot hold what autograd does not see into
            return _project(tensor, kernels)
        result: Tensor = function.apply(tensor, kernels)  # type: ignore[no-untyped-call]  # PyTorch has no types here
    return result


def _kernels(
    cameras: Cameras,
    shape: Sequence[int],
    voxel_spacing: float | Sequence[float] | None,
    affine: Tensor | None,
    method: str,
    like: Tensor,
    find: Callable[[KernelKey], CameraKernel] = kept.get,
) -> Kernels:
    """The kernels for each volume of a batch, their tables in the type and on the device of `like`."""
    if method not in ("auto", *KERNELS):
        raise ValueError(f"method must be auto, {', '.join(KERNELS)}, got {method!r}")
    batch = len(like)
    if len(shape) != 3 or min(shape) < 1 or batch < 1:
        raise ValueError(f"the volumes must be at least one, of (X, Y, Z) voxels, got {batch} of {tuple(shape)}")
    cases = _cases(cameras, batch)
    matrix = _affine(shape, voxel_spacing, affine)
    num_x, num_y, num_z = (int(n) for n in shape)
    if method == "auto" and is_traced():
        method = "slab"  # of operations that TorchScript and ONNX have

    def kernels(case: Sequence[Camera]) -> list[CameraKernel]:
        keys = [KernelKey(camera, (num_x, num_y, num_z), matrix, method, like.dtype, like.device) for camera in case]
        return [untraced(find, key) for key in keys]

    return [kernels(case) for case in cases] if len(cases) == batch else [kernels(cases[0])] * batch


def _cases(cameras: Cameras, batch: int) -> list[list[Camera]]:
    """The cameras of each volume of a batch, or those of all its volumes alone."""
    shared = [camera for camera in cameras if isinstance(camera, Camera)]
    own = [list(case) for case in cameras if not isinstance(case, Camera)]
    cases = own or [shared]
    if (shared and own) or (own and len(own) != batch) or len({len(case) for case in cases}) != 1 or not cases[0]:
        raise ValueError(
            f"cameras must be one list of at least one view for the batch, or {batch} lists of equal length, "
            f"got {len(shared)} cameras and {len(own)} lists of {', '.join(str(len(case)) for case in own) or 'none'}"
        )
    sizes = {camera.size for case in cases for camera in case}
    if len(sizes) != 1:
        raise ValueError(f"all cameras must have one size (H, W) to share a tensor, got {sorted(sizes)}")
    return cases


def _affine(shape: Sequence[int], voxel_spacing: float | Sequence[float] | None, affine: Tensor | None) -> Affine:
    """Matrix from voxel index to mm from the isocentre, hashable."""
    if voxel_spacing is not None and affine is None:
        matrix = voxel_to_world(shape, voxel_spacing)
    elif affine is not None and voxel_spacing is None:
        matrix = torch.as_tensor(affine).as_subclass(Tensor).detach().double().cpu()
    else:
        raise ValueError("give either voxel_spacing in mm or an affine from voxel index to mm")
    if matrix.shape != (4, 4):
        raise ValueError(f"affine must be a (4, 4) matrix, one for the whole batch, got shape {tuple(matrix.shape)}")
    if not matrix.isfinite().all() or matrix[:3, :3].det().abs() < 1e-12 or matrix[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(f"affine must be finite, invertible and end in (0, 0, 0, 1), got {matrix.tolist()}")
    return tuple(tuple(row) for row in matrix.tolist())
