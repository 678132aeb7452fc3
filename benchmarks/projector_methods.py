"""Our projector and public ones, driven alike: one cone view (x2ct geometry) of a cube of 320 mm."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor

from trct_monai.geometry import Camera, make_camera, voxel_to_world
from trct_monai.projector import Projector

EXTENT_MM, SOD_MM, SDD_MM, DETECTOR_MM = 320.0, 541.0, 949.075, 500.0


def camera(size: int, azimuth_deg: float = 0.0, elevation_deg: float = 0.0) -> Camera:
    extent = (DETECTOR_MM, DETECTOR_MM)
    return make_camera(
        "view",
        azimuth_deg,
        elevation_deg=elevation_deg,
        sod=SOD_MM,
        sdd=SDD_MM,
        detector_extent=extent,
        size=(size, size),
    )


class Ours:
    def __init__(self, size: int, view: Camera, method: str) -> None:
        self.view, self.projector = view, Projector([view], (size,) * 3, EXTENT_MM / size, method)

    def to(self, device: str) -> "Ours":
        """Itself: the projector's tables are made where the volume is."""
        return self

    def forward(self, volume: Tensor) -> Tensor:
        return self.projector(volume[None, None])[0, 0]

    def adjoint(self, image: Tensor) -> Tensor:
        return self.projector.adjoint(image[None, None])[0, 0]


class ByAutograd(ABC):
    """A renderer whose adjoint is its gradient: the graph of the last forward is kept for it."""

    def forward(self, volume: Tensor) -> Tensor:
        with torch.no_grad():
            return self.render(volume)

    def forward_and_adjoint(self, volume: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        volume = volume.detach().requires_grad_()
        result = self.render(volume)
        return result.detach(), torch.autograd.grad(result, volume, image)[0]

    @abstractmethod
    def render(self, volume: Tensor) -> Tensor:
        """The radiograph of a volume."""

    @abstractmethod
    def to(self, device: str) -> "ByAutograd":
        """With its own tensors on a device."""


class DiffDRR(ByAutograd):
    def __init__(self, size: int, view: Camera, renderer: str) -> None:
        without_torchio()
        from diffdrr.drr import DRR

        subject = SimpleNamespace(
            volume=SimpleNamespace(affine=voxel_to_world((size,) * 3, EXTENT_MM / size)),
            density=SimpleNamespace(data=torch.zeros(1, 1, 1, 1)),
            mask=None,
            reorient=torch.eye(4),
        )
        self.drr = DRR(subject, sdd=SDD_MM, height=view.size[0], delx=view.pixel_spacing[1], renderer=renderer)
        self.source, self.pixels, self.view = *source_and_pixels(view), view

    def render(self, volume: Tensor) -> Tensor:
        return self.drr.render(volume, self.source, self.pixels).reshape(self.view.size)

    def to(self, device: str) -> "DiffDRR":
        self.drr, self.source, self.pixels = self.drr.to(device), self.source.to(device), self.pixels.to(device)
        return self


class NanoDRR(ByAutograd):
    def __init__(self, size: int, view: Camera, backend: str = "torch", num_samples: int = 256) -> None:
        without_torchio()
        from nanodrr.data import Subject
        from nanodrr.drr.renderer import render

        affine = voxel_to_world((size,) * 3, EXTENT_MM / size)
        empty = torch.zeros(1, 1, size, size, size)
        to_grid = Subject._make_voxel_to_grid(empty.shape)
        matrices = (affine.float(), affine.inverse().float(), to_grid, torch.zeros(3))
        self.subject = Subject(empty[..., :1, :1, :1], empty[..., :1, :1, :1], *matrices, convert_to_mu=False)
        self.render_function, self.view, self.num_samples, self.backend = render, view, num_samples, backend
        self.source, self.pixels = source_and_pixels(view)

    def render(self, volume: Tensor) -> Tensor:
        self.subject._image_hu = volume.permute(2, 1, 0)[None, None]
        image = self.render_function(
            self.subject,
            torch.eye(3, device=volume.device)[None],
            torch.eye(4, device=volume.device)[None],
            torch.tensor([SDD_MM], device=volume.device),
            *self.view.size,
            n_samples=self.num_samples,
            src=self.source,
            tgt=self.pixels,
            backend=self.backend,
        )
        return image[0, 0]

    def to(self, device: str) -> "NanoDRR":
        self.subject, self.source, self.pixels = (x.to(device) for x in (self.subject, self.source, self.pixels))
        return self


class ITK:
    """Images in RTK's axes (x, z, -y) of our world: the source of the view at 0 deg stands on its third axis."""

    def __init__(self, size: int, view: Camera) -> None:
        import itk

        self.itk, self.view = itk, view
        self.spacing, self.pixel = EXTENT_MM / size, view.pixel_spacing[0]

    def to_image(self, array: np.ndarray, spacing: list[float], third_origin: float | None = None) -> Any:
        image = self.itk.image_from_array(np.ascontiguousarray(array, dtype=np.float32))
        image.SetSpacing(spacing)
        origin = [-(n - 1) / 2 * s for n, s in zip(array.shape[::-1], spacing)]
        image.SetOrigin([*origin[:2], origin[2] if third_origin is None else third_origin])
        return image

    def volume(self, volume: Tensor) -> Any:
        return self.to_image(volume.permute(1, 2, 0).flip(0).numpy(), [self.spacing] * 3)

    @staticmethod
    def to_tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array[0, ::-1, ::-1].copy())


class RTKJoseph(ITK):
    def __init__(self, size: int, view: Camera) -> None:
        super().__init__(size, view)
        from itk import RTK

        self.rtk, self.kind = RTK, self.itk.Image[self.itk.F, 3]
        self.geometry = RTK.ThreeDCircularProjectionGeometry.New()
        self.geometry.AddProjection(SOD_MM, SDD_MM, 0.0)
        spacing = [self.pixel, self.pixel, 1.0]
        self.stack = self.to_image(np.zeros((1, *view.size)), spacing)

    def run(self, kind: Any, start: Any, data: Any) -> np.ndarray:
        task = kind[self.kind, self.kind].New()
        task.SetInput(0, start)
        task.SetInput(1, data)
        task.SetGeometry(self.geometry)
        task.InPlaceOff()
        task.Update()
        return self.itk.array_view_from_image(task.GetOutput()).copy()

    def forward_prepared(self, volume: Any) -> np.ndarray:
        return self.run(self.rtk.JosephForwardProjectionImageFilter, self.stack, volume)

    def forward(self, volume: Tensor) -> Tensor:
        return self.to_tensor(self.forward_prepared(self.volume(volume)))

    def adjoint_prepared(self, image: Any, start: Any) -> np.ndarray:
        return self.run(self.rtk.JosephBackProjectionImageFilter, start, image)

    def adjoint(self, image: Tensor) -> Tensor:
        stack = self.to_image(image.flip(0, 1).numpy()[None], [self.pixel, self.pixel, 1.0])
        size = round(EXTENT_MM / self.spacing)
        result = self.adjoint_prepared(stack, self.to_image(np.zeros((size,) * 3), [self.spacing] * 3))
        return torch.from_numpy(result).flip(0).permute(2, 0, 1)


class ITKRayCast(ITK):
    def forward_prepared(self, volume: Any) -> np.ndarray:
        itk, kind = self.itk, self.itk.Image[self.itk.F, 3]
        transform = itk.Euler3DTransform[itk.D].New()
        interpolator = itk.RayCastInterpolateImageFunction[kind, itk.D].New()
        interpolator.SetTransform(transform)
        interpolator.SetFocalPoint([0.0, 0.0, SOD_MM])
        interpolator.SetThreshold(0.0)
        task = itk.ResampleImageFilter[kind, kind].New()
        task.SetInput(volume)
        task.SetInterpolator(interpolator)
        task.SetTransform(transform)
        task.SetSize([*self.view.size[::-1], 1])
        task.SetOutputSpacing([self.pixel, self.pixel, 1.0])
        corner = [-(n - 1) / 2 * self.pixel for n in self.view.size[::-1]]
        task.SetOutputOrigin([*corner, SOD_MM - SDD_MM])
        task.Update()
        return itk.array_view_from_image(task.GetOutput()).copy()

    def forward(self, volume: Tensor) -> Tensor:
        return self.to_tensor(self.forward_prepared(self.volume(volume)))


class Plastimatch:
    """The command line program; its own clock, which leaves reading and writing of files out."""

    def __init__(self, size: int, view: Camera) -> None:
        self.size, self.view, self.folder, self.written = size, view, tempfile.TemporaryDirectory(), -1
        self.seconds = 0.0

    def forward(self, volume: Tensor) -> Tensor:
        folder, (height, width) = Path(self.folder.name), self.view.size
        if self.written != volume.data_ptr():
            self.write(folder / "volume.mha", volume)
            self.written = volume.data_ptr()
        options = f"drr -i exact -a 1 --sad {SOD_MM} --sid {SDD_MM} -P none -t pfm -O {folder}/image".split()
        vectors = ["-n", "0 1 0", "--vup", "0 0 1", "-r", f"{height} {width}", "-z", f"{DETECTOR_MM} {DETECTOR_MM}"]
        output = subprocess.run(
            ["plastimatch", *options, *vectors, str(folder / "volume.mha")], capture_output=True, text=True, check=True
        ).stdout
        total, files = (float(re.search(rf"{name} time: *(\S+)", output)[1]) for name in ("Total", "I/O"))
        self.seconds = total - files
        pixels = np.frombuffer((folder / "image0000.pfm").read_bytes()[-4 * height * width :], np.float32)
        return torch.from_numpy(pixels.reshape(height, width)[:, ::-1].copy()) * 10  # cm to mm

    def write(self, path: Path, volume: Tensor) -> None:
        """MetaImage in LPS: x and y turned."""
        spacing, n = EXTENT_MM / self.size, self.size
        header = (
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            f"Offset = {' '.join([str(-(n - 1) / 2 * spacing)] * 3)}\nElementSpacing = {spacing} {spacing} {spacing}\n"
            f"DimSize = {n} {n} {n}\nElementType = MET_FLOAT\nElementDataFile = LOCAL\n"
        )
        path.write_bytes(header.encode() + volume.permute(2, 1, 0).flip(1, 2).contiguous().numpy().tobytes())


def source_and_pixels(view: Camera) -> tuple[Tensor, Tensor]:
    """Source (1, 1, 3) and pixel centres (1, H * W, 3) in world mm."""
    r, c = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in view.size), indexing="ij")
    pixels = torch.stack([c, r, torch.ones_like(c)], dim=-1).reshape(-1, 3) @ view.pixel_to_world().T
    return torch.tensor(view.source)[None, None].float(), pixels[None].float()


Maker = Callable[[int, int], Any]
METHODS: dict[str, tuple[str | None, Maker]] = {
    # name: module that must be installed, maker from the volume's and the detector's size
    "ours separable 0 deg": (None, lambda n, d: Ours(n, camera(d), "separable")),
    "ours separable 90 deg": (None, lambda n, d: Ours(n, camera(d, 90.0), "separable")),
    "ours separable 30 deg": (None, lambda n, d: Ours(n, camera(d, 30.0), "separable")),
    "ours separable 45 deg": (None, lambda n, d: Ours(n, camera(d, 45.0), "separable")),
    "ours slab 0 deg": (None, lambda n, d: Ours(n, camera(d), "slab")),
    "ours slab 30 deg tilted 15 deg": (None, lambda n, d: Ours(n, camera(d, 30.0, 15.0), "slab")),
    "ours reference 0 deg": (None, lambda n, d: Ours(n, camera(d), "reference")),
    "DiffDRR siddon": ("diffdrr", lambda n, d: DiffDRR(n, camera(d), "siddon")),
    "DiffDRR trilinear (500 points)": ("diffdrr", lambda n, d: DiffDRR(n, camera(d), "trilinear")),
    "nanodrr (256 points)": ("nanodrr", lambda n, d: NanoDRR(n, camera(d))),
    "nanodrr fused (256 points)": ("nanodrr", lambda n, d: NanoDRR(n, camera(d), "triton")),
    "RTK Joseph": ("itk.RTK", lambda n, d: RTKJoseph(n, camera(d))),
    "ITK ray cast": ("itk", lambda n, d: ITKRayCast(n, camera(d))),
    "plastimatch exact": ("plastimatch", lambda n, d: Plastimatch(n, camera(d))),
    "LEAP separable footprint": ("leapctype", lambda n, d: None),  # not on PyPI, and not driven from here
}
BASE = "DiffDRR trilinear (500 points)"


GPU_METHODS = r"ours|DiffDRR|nanodrr"
"""Which of them run on a GPU."""
CPU_METHODS = r"^(?!.*fused)"
"""Which of them run on a CPU."""


def without_torchio() -> None:
    """DiffDRR and nanodrr import torchio for files only; where it is missing, with its 50 MB, empty names do."""
    if "torchio" not in sys.modules and importlib.util.find_spec("torchio") is None:
        sys.modules |= {"torchio": MagicMock(), "torchio.transforms": MagicMock()}


def is_installed(module: str | None) -> bool:
    if module == "plastimatch":
        return shutil.which("plastimatch") is not None
    if module == "itk.RTK":
        return importlib.util.find_spec("itk") is not None and has_distribution("itk-rtk")
    if module == "leapctype":
        return False
    return module is None or importlib.util.find_spec(module) is not None


def has_distribution(name: str) -> bool:
    try:
        return bool(version(name))
    except ImportError:
        return False


def prepare(method: Any, volume: Tensor, image: Tensor) -> tuple[Callable[[], Any], Callable[[], Any] | None]:
    """What is timed: a forward, and a forward with the adjoint, from data that lie ready in the method's own form."""
    if isinstance(method, RTKJoseph):
        own_volume, spacing = method.volume(volume), [method.pixel, method.pixel, 1.0]
        own_image, start = (
            method.to_image(image.numpy()[None], spacing),
            method.to_image(volume * 0, [method.spacing] * 3),
        )
        return (
            lambda: method.forward_prepared(own_volume),
            lambda: (method.forward_prepared(own_volume), method.adjoint_prepared(own_image, start)),
        )
    if isinstance(method, ITKRayCast):
        own_volume = method.volume(volume)
        return lambda: method.forward_prepared(own_volume), None
    if isinstance(method, NanoDRR):
        volume = volume.permute(2, 1, 0).contiguous().permute(2, 1, 0)  # its own order in memory
    if isinstance(method, ByAutograd):
        siddon = isinstance(method, DiffDRR) and type(method.drr.renderer).__name__ == "Siddon"
        both = None if siddon else lambda: method.forward_and_adjoint(volume, image)
        return lambda: method.forward(volume), both
    if isinstance(method, Plastimatch):
        return lambda: method.forward(volume), None

    def both() -> Any:
        leaf = volume.detach().requires_grad_()
        result = method.forward(leaf)
        return result.detach(), torch.autograd.grad(result, leaf, image)[0]

    return lambda: method.forward(volume), both


def seconds(task: Callable[[], Any], method: Any) -> float:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    task()
    wait()
    return method.seconds if isinstance(method, Plastimatch) else time.perf_counter() - start
