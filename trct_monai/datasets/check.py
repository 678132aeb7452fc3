"""`check`: is a datalist's data set what it says it is?"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from trct_monai.datasets.checksum import describe_checksum
from trct_monai.datasets.prepare_phases import MAX_DISTANCE_MM
from trct_monai.datasets.split import find_leaks
from trct_monai.figures import contact_sheet, save_figure
from trct_monai.geometry import DEFAULT_EXTENT, Camera
from trct_monai.io.datalist import PHASES, SECTIONS, read_datalist
from trct_monai.io.nifti import Volume, read_nifti
from trct_monai.io.provenance import digest_file, digest_voxels
from trct_monai.io.radiograph import read_radiograph
from trct_monai.registration.orientation import MIN_CORRELATION, measure
from trct_monai.transforms import LoadRadiographsd

POSSIBLE_HU = (-1100.0, 4100.0)


def check(
    datalist: str, picture: str | None = None, num_pictures: int = 8, min_correlation: float = MIN_CORRELATION
) -> None:
    """Verify a datalist and every file that it names, and draw a picture of the first cases.

    Checked are: files and their digests, shape, affine and HU range of the labels, number and orientation of the
    radiographs against our own projection of the CT, and leaks between the sections. Fails if anything is wrong.

    Args:
        datalist: The datalist.
        picture: PNG to write; beside the datalist, NAME_check.png, if not given.
        num_pictures: Number of cases in the picture.
        min_correlation: Least correlation of a radiograph with our projection.
    """
    path = Path(datalist)
    page = read_datalist(path)
    sections = {name: page.get(name, []) for name in SECTIONS}
    cases = [(name, case) for name in SECTIONS for case in sections[name]]
    if not cases:
        raise ValueError(f"{path}: no case in any section")
    problems = [f"leak: {leak}" for leak in find_leaks(sections)]
    rows: list[tuple[str, Tensor, list[tuple[str, Tensor]]]] = []
    table = []
    for section, case in tqdm(cases, desc="check", unit="case"):
        result = _CaseCheck(path.absolute().parent, page, case, min_correlation)
        problems += [f"{case.get('case_id')}: {problem}" for problem in result.run()]
        table.append(result.line(section))
        if result.cube is not None and len(rows) < num_pictures:
            rows += result.rows(result.cube)
    print(f"{'case':<28} {'section':<10} {'size':>5} {'HU':>14}  views: correlation (runner-up)")
    for line in table if len(table) <= 50 else [*table[:50], f"... and {len(table) - 50} more"]:
        print(line)
    counts = ", ".join(f"{len(sections[name])} {name}" for name in SECTIONS)
    print(f"{len(cases)} cases ({counts}), {len(problems)} problems")
    if rows:
        target = path.with_name(f"{path.stem}_check.png") if picture is None else Path(picture)
        save_figure(contact_sheet(rows), target)
        print(f"wrote {target}")
    for problem in problems:
        print(f"problem  {problem}")
    if problems:
        raise ValueError(f"{path}: {len(problems)} problems, the first: {problems[0]}")
    if all("pixels" in case for _, case in cases):
        print(describe_checksum(page))


class _CaseCheck:
    """One case under examination."""

    def __init__(self, root: Path, page: Mapping[str, Any], case: Mapping[str, Any], min_correlation: float) -> None:
        self.root, self.page, self.case, self.min_correlation = root, page, case, min_correlation
        self.cube: Tensor | None = None
        self.average: Tensor | None = None
        self.pictures: list[tuple[str, Tensor]] = []
        self.correlations: list[str] = []

    def run(self) -> list[str]:
        """One line for each thing that is wrong."""
        try:
            if self.page.get("task") == PHASES:
                return [*self._files(), *self._pair()]
            return [*self._files(), *self._label(), *self._radiographs()]
        except (ValueError, OSError, KeyError) as error:
            return [" ".join(f"{type(error).__name__}: {error}".split())]

    def rows(self, cube: Tensor) -> list[tuple[str, Tensor, list[tuple[str, Tensor]]]]:
        """The case's lines in the picture: its CT with its radiographs, or a pair one below the other."""
        name = str(self.case.get("case_id"))
        if self.average is None:
            return [(name, cube, self.pictures)]
        return [(f"{name}: phase 0", cube, []), ("its time average", self.average, [])]

    def line(self, section: str) -> str:
        """The case's line in the table."""
        size, hu = ("-", "-") if self.cube is None else (
            str(self.cube.shape[-1]), f"{self.cube.min():.0f} to {self.cube.max():.0f}"
        )  # fmt: skip
        views = ", ".join(self.correlations)
        return f"{self.case.get('case_id', '-'):<28} {section:<10} {size:>5} {hu:>14}  {views}"

    def _files(self) -> Iterator[str]:
        folder = (self.root / self.case["label"]).parent
        for name, digest in self.case.get("sha256", {}).items():
            if not (folder / name).is_file():
                yield f"{folder / name} is missing"
            elif digest_file(folder / name) != digest:
                yield f"{folder / name} is not the file that was written (sha256)"

    def _label(self) -> Iterator[str]:
        path = self.root / self.case["label"]
        if not path.is_file():
            return
        image = read_nifti(path)
        numbers = image.values.astype(np.float32)
        size, extent = self.page.get("label_size"), float(self.page.get("extent", DEFAULT_EXTENT))
        if numbers.ndim != 3 or len(set(numbers.shape)) != 1 or (size and numbers.shape[0] != size):
            yield f"{path} has the shape {numbers.shape}, expected a cube of {size or 'equal sides'}"
            return
        spacing = extent / numbers.shape[0]
        if not np.allclose(image.affine[:3, :3], np.eye(3) * spacing, atol=1e-3 * spacing):
            yield f"{path} has an affine that is not RAS with {spacing:g} mm"
        if not np.isfinite(numbers).all():
            yield f"{path} holds values that are not finite"
            return
        low, high = float(numbers.min()), float(numbers.max())
        if low < POSSIBLE_HU[0] or high > POSSIBLE_HU[1] or low > -500 or high < 0:
            yield f"{path} has values from {low:g} to {high:g}, no CT in HU"
        if "voxels" in self.case and digest_voxels(numbers.astype(np.int16)) != self.case["voxels"]:
            yield f"{path} does not hold the voxels that were written"
        self.cube = torch.from_numpy(numbers)[None]

    def _pair(self) -> Iterator[str]:
        """A time average and its phase 0: one grid, and in HU."""
        files = [self.root / path for path in (self.case["label"], self.case["image"][0])]
        phase, average = (read_nifti(file) for file in files)
        if phase.values.shape != average.values.shape or not np.allclose(
            phase.affine, average.affine, atol=MAX_DISTANCE_MM
        ):
            yield f"{self.root / self.case['label']} and its average lie on different grids"
        for file, image, digest in zip(files, (phase, average), (self.case["voxels"], self.case["pixels"][0])):
            numbers = image.values
            if numbers.min() > -500 or numbers.max() < 0:
                yield f"{file} has values from {numbers.min()} to {numbers.max()}, no CT in HU"
            if digest_voxels(numbers) != digest:
                yield f"{file} does not hold the voxels that were written"
        self.cube = _tensor(phase)[None]
        self.average = _tensor(average)[None]

    def _radiographs(self) -> Iterator[str]:
        paths = [self.root / image for image in self.case["image"]]
        cameras = [Camera.from_dict(camera) for camera in self.case["cameras"]]
        if len(paths) != len(cameras) or len(paths) != len(self.case["views"]):
            yield f"{len(paths)} radiographs, {len(cameras)} cameras and {len(self.case['views'])} views"
            return
        extent = float(self.page.get("extent", DEFAULT_EXTENT))
        recorded = self.case.get("orientation") or [None] * len(paths)
        upright = LoadRadiographsd(allow_unquantitative=True)
        for index, (path, camera) in enumerate(zip(paths, cameras)):
            if not path.is_file():
                yield f"{path} is missing"
                continue
            one: dict[Any, Any] = {
                key: self.case[key][index : index + 1] for key in ("orientation", "intensity") if self.case.get(key)
            }
            self.pictures.append((camera.name, upright(one | {"image": [path]})["image"][0]))
            if self.cube is None:
                continue
            now = measure(read_radiograph(path).image, self.cube, extent, camera).orientation
            self.correlations.append(
                f"{camera.name} {now['transform']} {now['correlation']:.3f} ({now['runner_up_correlation']:.3f})"
            )
            expected = recorded[index]["transform"] if recorded[index] else "identity"
            if now["transform"] != expected:
                yield f"{path} fits best as {now['transform']}, the datalist says {expected}"
            elif abs(now["correlation"]) < self.min_correlation:
                yield f"{path} has a correlation of {now['correlation']:.2f} with our projection of the label"


def _tensor(volume: Volume) -> Tensor:
    return torch.from_numpy(volume.values.astype(np.float32))
