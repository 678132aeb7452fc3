"""The tables behind the projector: made once, kept within a limit, and the same in every process."""

import multiprocessing
import pickle
import weakref
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.projector.setups import SHAPE, SIZE, SPACING, random, view
from trct_monai.geometry import Camera, preset, voxel_to_world
from trct_monai.projector import Projector, backproject, kernel_cache, project
from trct_monai.projector.kernel_cache import KernelCache, KernelKey, make_kernel
from trct_monai.projector.operators import _alike


def key(camera: Camera, method: str = "auto") -> KernelKey:
    affine = tuple(tuple(row) for row in voxel_to_world(SHAPE, SPACING).tolist())
    return KernelKey(camera, SHAPE, affine, method, torch.float64, torch.device("cpu"))


def tensors(part: object) -> Iterator[Tensor]:
    """All tensors within an object of the projector."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for item in part:
            yield from tensors(item)
    elif type(part).__module__.startswith("trct_monai.projector"):
        yield from tensors(list(vars(part).values()))


def test_blocks_of_planes_do_not_show(monkeypatch):
    x, y, cameras = random(1, 1, *SHAPE), random(1, 2, *SIZE), (view(30.0), view(30.0, 10.0))
    ax, aty = project(x, cameras, SPACING), backproject(y, cameras, SHAPE, SPACING)
    monkeypatch.setattr("trct_monai.projector.kernels.CPU_BLOCK", 3 * SIZE[1] * SHAPE[2])
    moved = SPACING[0] + 1e-9, *SPACING[1:]  # made from another key
    torch.testing.assert_close(project(x, cameras, moved), ax)
    torch.testing.assert_close(backproject(y, cameras, SHAPE, moved), aty)


class Drawn(torch.utils.data.Dataset):
    """Projections made inside a worker."""

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return project(random(1, 1, *SHAPE, seed=index), preset("x2ct", SIZE), SPACING)[0]


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
def test_projection_works_in_forked_workers_after_use_in_the_parent():
    expected = torch.stack([Drawn()[i] for i in range(2)])  # fills the kept tables before the fork
    loader = torch.utils.data.DataLoader(Drawn(), batch_size=2, num_workers=1, multiprocessing_context="fork")
    assert torch.equal(next(iter(loader)), expected)


@pytest.mark.parametrize("camera", [view(30.0), view(30.0, 10.0)], ids=["separable", "slab"])
def test_a_kernel_states_the_bytes_of_its_tables(camera):
    kernel = make_kernel(key(camera))
    kernel.add_adjoint(random(1, *SIZE), random(1, *SHAPE))
    assert kernel.nbytes == pytest.approx(sum(tensor.nbytes for tensor in tensors(kernel)), rel=0.2)


def test_no_more_kernels_are_kept_than_fit_the_limit_and_the_last_used_stay():
    one = make_kernel(key(view(0.0, 10.0))).nbytes
    cache, cameras = KernelCache(3 * one), [view(float(azimuth), 10.0) for azimuth in range(5)]
    first = cache.get(key(cameras[0]))
    for camera in cameras:
        cache.get(key(camera))
        assert cache.get(key(cameras[0])) is first
        assert cache.nbytes == len(cache) * one <= cache.max_bytes
    assert len(cache) == 3
    small = KernelCache(one - 1)
    small.get(key(cameras[0]))
    assert len(small) == small.nbytes == 0


def test_a_projector_makes_each_kernel_once_however_few_are_kept(monkeypatch):
    made = []
    monkeypatch.setattr(kernel_cache, "make_kernel", lambda key: made.append(key) or make_kernel(key))
    monkeypatch.setattr("trct_monai.projector.operators.kept", KernelCache(1))
    cameras = [[view(10.0 * case + offset, 5.0) for offset in (0.0, 90.0)] for case in range(3)]
    projector, x = Projector(cameras, SHAPE, SPACING), random(3, 1, *SHAPE).requires_grad_()
    for _ in range(2):
        projector(x).sum().backward()
        projector.adjoint(random(3, 2, *SIZE))
    assert len(made) == 6
    assert torch.equal(projector(x), project(x, cameras, SPACING))


def test_the_kernels_of_a_projector_go_with_it(monkeypatch):
    monkeypatch.setattr("trct_monai.projector.operators.kept", KernelCache(1))
    projector = Projector([view(0.0)], SHAPE, SPACING)
    projector(random(1, 1, *SHAPE))
    (kernel,) = (weakref.ref(kernel) for kernel in projector._own.values())
    assert kernel() is not None
    assert b"Kernel" not in pickle.dumps(projector)
    del projector
    assert kernel() is None


def test_cameras_are_hashable_and_compare_by_value():
    assert hash(view(0.0)) == hash(view(0.0))
    assert Camera.from_dict(view(0.0).to_dict()) == view(0.0)


@pytest.mark.parametrize("method", ["separable", "slab", "reference"])
def test_volumes_side_by_side_are_projected_as_alone(method, monkeypatch):
    """As on a GPU, where those that share their cameras are projected together."""
    kernel = make_kernel(key(view(30.0), method))
    volumes, images = random(5, *SHAPE), random(5, *SIZE)
    alone = kernel.project(volumes)
    alone_back = torch.zeros_like(volumes)
    kernel.add_adjoint(images, alone_back)
    monkeypatch.setattr(type(kernel), "_volumes_at_once", lambda self, values: 3)
    together_back = torch.zeros_like(volumes)
    kernel.add_adjoint(images, together_back)
    torch.testing.assert_close(kernel.project(volumes), alone)
    torch.testing.assert_close(together_back, alone_back)


def test_cases_that_share_their_cameras_stand_in_runs():
    cameras = [[view(30.0)], [view(30.0)], [view(40.0)], [view(30.0)]]
    kernels = [
        [Projector([camera], SHAPE, SPACING)._kernels(random(1, 1, *SHAPE))[0][0] for camera in c] for c in cameras
    ]
    assert _alike(kernels) == [slice(0, 2), slice(2, 3), slice(3, 4)]
    x = random(4, 1, *SHAPE)
    expected = torch.cat([project(x[i : i + 1], cameras[i], SPACING) for i in range(4)])
    assert torch.equal(project(x, cameras, SPACING), expected)
