"""Speed, memory and accuracy of `trct_monai.projector` beside public projectors, all in one run.

    python benchmarks/projector.py --size 256 --rounds 5

One cone view (x2ct geometry) of a cube of 320 mm. Every method runs once in each round, so that all meet the same load
of the machine; medians are reported, and ratios to DiffDRR's trilinear renderer in the same run. "forward + adjoint" is
a projection and the gradient of the volume from a given image. Memory is what the process's peak grows by, in a fresh
process for each method, past the input volume and image; tables and result are included. The error is the relative L2
distance to closed-form integrals of ellipsoids and of Gaussian blobs. Peers that are not installed are listed as such:
`pip install -e .[benchmark]` gets those that pip has.
"""

import argparse
import csv
import importlib.util
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from trct_monai.geometry import Camera, make_camera, voxel_to_world
from trct_monai.projector import backproject, project

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
        self.size, self.view, self.method = size, view, method

    def forward(self, volume: Tensor) -> Tensor:
        return project(volume[None, None], [self.view], EXTENT_MM / self.size, method=self.method)[0, 0]

    def adjoint(self, image: Tensor) -> Tensor:
        shape = (self.size,) * 3
        return backproject(image[None, None], [self.view], shape, EXTENT_MM / self.size, method=self.method)[0, 0]


class ByAutograd:
    """A renderer whose adjoint is its gradient: the graph of the last forward is kept for it."""

    def forward(self, volume: Tensor) -> Tensor:
        with torch.no_grad():
            return self.render(volume)

    def forward_and_adjoint(self, volume: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        volume = volume.detach().requires_grad_()
        result = self.render(volume)
        return result.detach(), torch.autograd.grad(result, volume, image)[0]

    def render(self, volume: Tensor) -> Tensor:
        raise NotImplementedError


class DiffDRR(ByAutograd):
    def __init__(self, size: int, view: Camera, renderer: str) -> None:
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


class NanoDRR(ByAutograd):
    def __init__(self, size: int, view: Camera, num_samples: int = 256) -> None:
        from nanodrr.data import Subject
        from nanodrr.drr.renderer import render

        affine = voxel_to_world((size,) * 3, EXTENT_MM / size)
        empty = torch.zeros(1, 1, size, size, size)
        to_grid = Subject._make_voxel_to_grid(empty.shape)
        matrices = (affine.float(), affine.inverse().float(), to_grid, torch.zeros(3))
        self.subject = Subject(empty[..., :1, :1, :1], empty[..., :1, :1, :1], *matrices, convert_to_mu=False)
        self.render_function, self.view, self.num_samples = render, view, num_samples
        self.source, self.pixels = source_and_pixels(view)

    def render(self, volume: Tensor) -> Tensor:
        self.subject._image_hu = volume.permute(2, 1, 0)[None, None]
        image = self.render_function(
            self.subject,
            torch.eye(3)[None],
            torch.eye(4)[None],
            torch.tensor([SDD_MM]),
            *self.view.size,
            n_samples=self.num_samples,
            src=self.source,
            tgt=self.pixels,
            backend="torch",
        )
        return image[0, 0]


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
    "RTK Joseph": ("itk.RTK", lambda n, d: RTKJoseph(n, camera(d))),
    "ITK ray cast": ("itk", lambda n, d: ITKRayCast(n, camera(d))),
    "plastimatch exact": ("plastimatch", lambda n, d: Plastimatch(n, camera(d))),
    "LEAP separable footprint": ("leapctype", lambda n, d: None),  # not on PyPI, and not driven from here
}
BASE = "DiffDRR trilinear (500 points)"


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
    start = time.perf_counter()
    task()
    return method.seconds if isinstance(method, Plastimatch) else time.perf_counter() - start


def shapes(profile: str) -> list[tuple[float, Tensor, Tensor, Tensor]]:
    """Attenuation (1/mm), centre, radii (mm) and precision matrix of eight ellipsoids or Gaussian blobs."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(8):
        axes = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
        radii = 15 + 35 * torch.rand(3, dtype=torch.float64, generator=generator)
        radii = radii if profile == "ellipsoids" else radii / 2  # of a blob: its standard deviations
        center = 100 * torch.rand(3, dtype=torch.float64, generator=generator) - 50
        weight = 0.01 + 0.02 * float(torch.rand(1, generator=generator))
        result.append((weight, center, radii, axes @ torch.diag(radii**-2) @ axes.T))
    return result


def phantom(size: int, profile: str) -> Tensor:
    """The volume of `shapes`; the edges of ellipsoids are averaged over 3^3 points a voxel."""
    volume = torch.zeros(size, size, size, dtype=torch.float64)
    spacing, fine = EXTENT_MM / size, 3 if profile == "ellipsoids" else 1
    for weight, center, radii, precision in shapes(profile):
        reach = float(radii.max()) * (1 if fine > 1 else 8) + spacing
        low = ((center - reach) / spacing + size / 2).floor().clamp(min=0).int().tolist()
        high = ((center + reach) / spacing + size / 2).ceil().clamp(max=size).int().tolist()
        box = tuple(slice(i, j) for i, j in zip(low, high))
        axes = [
            (torch.arange(i * fine, j * fine, dtype=torch.float64) - (size * fine - 1) / 2) * spacing / fine - c
            for i, j, c in zip(low, high, center)
        ]
        for i in range(low[0], high[0]):  # slice by slice: the fine grid is large
            x = axes[0][(i - low[0]) * fine : (i - low[0] + 1) * fine]
            offset = torch.stack(torch.meshgrid(x, axes[1], axes[2], indexing="ij"), dim=-1)
            form = ((offset @ precision) * offset).sum(-1)
            values = (form < 1).double() if fine > 1 else torch.exp(-form / 2)
            volume[i][box[1:]] += weight * torch.nn.functional.avg_pool3d(values[None], fine)[0, 0]
    return volume.float()


def closed_form(view: Camera, profile: str) -> Tensor:
    """The line integrals of `shapes`."""
    source, pixels = (x[0].double() for x in source_and_pixels(view))
    direction = torch.nn.functional.normalize(pixels - source, dim=-1)
    image = torch.zeros(len(direction), dtype=torch.float64)
    for weight, center, _, precision in shapes(profile):
        offset = source[0] - center
        a = torch.einsum("ni,ij,nj->n", direction, precision, direction)
        b = direction @ precision @ offset
        nearest = offset @ precision @ offset - b**2 / a  # the quadratic form's least value on the ray
        if profile == "ellipsoids":
            image += weight * 2 * ((1 - nearest).clamp(min=0) / a).sqrt()
        else:
            image += weight * torch.exp(-nearest / 2) * (2 * torch.pi / a).sqrt()
    return image.reshape(view.size)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def adjoint_mismatch(method: Any, volume: Tensor, image: Tensor) -> float | None:
    """|<Ax, y> - <x, A'y>| / (|Ax| |y|), sums in float64."""
    if isinstance(method, ByAutograd):
        projected, spread = method.forward_and_adjoint(volume, image)
    elif hasattr(method, "adjoint"):
        projected, spread = method.forward(volume), method.adjoint(image)
    else:
        return None
    projected, image, volume, spread = (x.double() for x in (projected, image, volume, spread))
    return float(abs((projected * image).sum() - (volume * spread).sum()) / projected.norm() / image.norm())


def peak_memory(name: str, size: int, detector: int, with_adjoint: bool) -> float:
    """Peak memory in MB past the input, in a process of its own; of plastimatch, of its whole process."""
    arguments = ["--size", str(size), "--detector", str(detector), "--measure", name]
    arguments += ["--with-adjoint"] if with_adjoint else []
    result = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1]))


def measure_memory(name: str, size: int, detector: int, with_adjoint: bool) -> float:
    volume, image = torch.rand(size, size, size), torch.rand(detector, detector)
    small = METHODS[name][1](32, 32)  # libraries load and warm up on something small
    for task in prepare(small, torch.rand(32, 32, 32), torch.rand(32, 32)):
        if task is not None:
            task()
    method = METHODS[name][1](size, detector)
    if isinstance(method, Plastimatch):
        method.forward(volume)
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    task = prepare(method, volume, image)[with_adjoint]
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # Linux: the peak starts anew
    except OSError:
        pass
    baseline = status_mb("VmHWM")
    result = task()
    del result
    return status_mb("VmHWM") - baseline


def status_mb(field: str) -> float:
    match = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    return float(match[1]) / 1024 if match else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(arguments: argparse.Namespace) -> None:
    size, detector = arguments.size, arguments.detector or arguments.size
    chosen = [name for name in METHODS if re.search(arguments.methods, name)]
    available = [name for name in chosen if is_installed(METHODS[name][0])]
    generator = torch.Generator().manual_seed(0)
    volume, image = (
        torch.rand(size, size, size, generator=generator),
        torch.rand(detector, detector, generator=generator),
    )
    methods = {name: METHODS[name][1](size, detector) for name in available}
    tasks = {name: prepare(method, volume, image) for name, method in methods.items()}

    times: dict[tuple[str, int], list[float]] = {}
    progress = tqdm(total=(arguments.rounds + 1) * sum(task is not None for pair in tasks.values() for task in pair))
    for round_number in range(arguments.rounds + 1):  # the first one warms up
        for name, pair in tasks.items():
            for which, task in enumerate(pair):
                if task is not None:
                    progress.set_description(name)
                    taken = seconds(task, methods[name])
                    if round_number:
                        times.setdefault((name, which), []).append(taken)
                    progress.update()
    progress.close()

    ours = Ours(size, camera(detector), "separable")
    phantoms = {profile: phantom(size, profile) for profile in ("ellipsoids", "smooth")}
    rows = []
    for name in tqdm(chosen, desc="accuracy and memory"):
        row: dict[str, Any] = {"method": name, "status": "measured" if name in methods else "not installed"}
        if name in methods:
            method, pair = methods[name], tasks[name]
            for which, kind in enumerate(("forward", "forward_adjoint")):
                if pair[which] is not None:
                    row[f"{kind}_ms"] = round(1000 * statistics.median(times[name, which]), 2)
                    if (BASE, which) in times:
                        base = statistics.median(times[BASE, which])
                        row[f"{kind}_ratio"] = round(base / statistics.median(times[name, which]), 2)
                    if not arguments.skip_memory:
                        row[f"{kind}_memory_mb"] = round(peak_memory(name, size, detector, bool(which)), 1)
            for profile, truth in phantoms.items():
                found = method.forward(truth)
                row[f"error_{profile}"] = round(relative(found, closed_form(method.view, profile)), 6)
                if profile == "smooth" and method.view == ours.view:
                    row["difference_to_ours"] = f"{relative(found, ours.forward(truth)):.1e}"
            mismatch = adjoint_mismatch(method, volume, image)
            row["adjoint_mismatch"] = "" if mismatch is None else f"{mismatch:.1e}"
        row |= {"size": size, "detector": detector, "rounds": arguments.rounds, "threads": torch.get_num_threads()}
        rows.append(row | {"torch": torch.__version__})

    fields = list(dict.fromkeys(key for row in rows for key in row))
    temporary = Path(f"{arguments.output}.tmp")
    with temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, arguments.output)
    for row in rows:
        print(", ".join(f"{key} {row[key]}" for key in fields[:12] if row.get(key) not in (None, "")))
    print(f"wrote {arguments.output}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="voxels along each side of the volume")
    parser.add_argument("--detector", type=int, default=0, help="pixels along each side of the detector; 0: as --size")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds, after one that warms up")
    parser.add_argument("--threads", type=int, default=0, help="threads of every method; 0: what each takes by itself")
    parser.add_argument("--methods", default="", help="only methods whose name this regular expression matches")
    parser.add_argument("--output", default=str(Path(__file__).with_suffix(".csv")), help="csv file to write")
    parser.add_argument("--skip-memory", action="store_true", help="leave the memory columns out")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--with-adjoint", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
        for library in ("OMP_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"):  # read when loaded, and by children
            os.environ[library] = str(arguments.threads)
    if arguments.measure:
        detector = arguments.detector or arguments.size
        print(json.dumps(measure_memory(arguments.measure, arguments.size, detector, arguments.with_adjoint)))
    else:
        run(arguments)


if __name__ == "__main__":
    main()
