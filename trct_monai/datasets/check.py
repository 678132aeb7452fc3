"""`check`: compares a data set with its datalist."""

from collections.abc import Iterator, Mapping
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from trct_monai.datasets.checksum import describe_checksum
from trct_monai.datasets.prepare_phases import MAX_DISTANCE_MM
from trct_monai.datasets.real_radiographs import REAL, measured_pixels
from trct_monai.datasets.split import find_leaks
from trct_monai.datasets.spread import describe_spread
from trct_monai.figures import contact_sheet, save_figure
from trct_monai.geometry import DEFAULT_EXTENT, Camera
from trct_monai.intensity import LUNG_HU
from trct_monai.io.case import PER_VIEW, check_case, with_absolute_paths
from trct_monai.io.datalist import FIELDS, PHASES, RADIOGRAPHS, SECTIONS, find_twice, read_datalist
from trct_monai.io.nifti import Volume, read_nifti
from trct_monai.io.provenance import digest_file, digest_voxels
from trct_monai.io.radiograph import digest_radiograph, read_radiograph
from trct_monai.registration.camera import verify
from trct_monai.registration.orientation import MIN_CORRELATION, measure
from trct_monai.transforms import LoadRadiographsd

POSSIBLE_HU = (-1100.0, 4100.0)
"""Beyond this there is no CT number of 12 bits: labels are clipped to them."""


def check(
    datalist: str, picture: str | None = None, num_pictures: int = 8, min_correlation: float = MIN_CORRELATION
) -> None:
    """Verify a datalist and every file that it names, and draw a picture of the first cases.

    Checked are: files and their digests, shape, affine and HU range of the labels, number and orientation of the
    radiographs against our own projection of the CT, and leaks between the sections. Fails if anything is wrong. The
    picture has each radiograph that came with its CT beside our projection by its camera; where cameras were measured,
    their spread over the data set is printed.

    Args:
        datalist: The datalist.
        picture: PNG to write; beside the datalist, NAME_check.png, if not given.
        num_pictures: Number of cases in the picture.
        min_correlation: Least correlation of a radiograph with our projection.
    """
    path = Path(datalist)
    content = read_datalist(path)
    sections = {name: content.get(name, []) for name in SECTIONS}
    cases = [(name, case) for name in SECTIONS for case in sections[name]]
    if not cases:
        raise ValueError(f"{path}: no case in any section")
    problems = [*(f"leak: {leak}" for leak in find_leaks(sections)), *find_twice(content)]
    rows: list[tuple[str, Tensor, list[tuple[str, Tensor]]]] = []
    table = []
    for section, case in tqdm(cases, desc="check", unit="case"):
        result = _CaseCheck(path.absolute().parent, content, case, min_correlation)
        problems += [f"{case.get('case_id')}: {problem}" for problem in result.run()]
        table.append(result.line(section))
        if result.cube is not None and len(rows) < num_pictures:
            rows += result.rows(result.cube)
    print(f"{'case':<28} {'section':<10} {'size':>5} {'HU':>14}  views: correlation (runner-up)")
    for line in table if len(table) <= 50 else [*table[:50], f"... and {len(table) - 50} more"]:
        print(line)
    for line in describe_spread([case for _, case in cases]):
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
        print(describe_checksum(content))


class _CaseCheck:
    """One case under examination.

    Args:
        folder: That of the datalist.
        header: That of the datalist.
        case: An entry of a section.
        min_correlation: Least correlation of a radiograph with our projection.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], case: dict[str, Any], min_correlation: float) -> None:
        self.folder, self.header, self.case, self.min_correlation = folder, header, case, min_correlation
        self.extent = float(header.get("extent", DEFAULT_EXTENT))
        self.cube: Tensor | None = None
        self.average: Tensor | None = None
        self.pictures: list[tuple[str, Tensor]] = []
        self.correlations: list[str] = []

    def run(self) -> list[str]:
        """One line for each thing that is wrong."""
        task = self.header.get("task", RADIOGRAPHS)
        try:
            check_case(self.case, FIELDS[task], "the datalist's entry")
            self.case = with_absolute_paths(self.case, self.folder)
            return [*self._files(), *(self._pair() if task == PHASES else (*self._label(), *self._radiographs()))]
        except (ValueError, OSError) as error:
            return [" ".join(str(error).split())]

    @property
    def is_given(self) -> bool:
        """Whether its radiographs came with the CT."""
        return self.case.get("provenance", {}).get("radiographs") in ("given", REAL)

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
        folder = Path(self.case["label"]).parent
        for name, digest in self.case.get("sha256", {}).items():
            if not (folder / name).is_file():
                yield f"{folder / name} is missing"
            elif digest_file(folder / name) != digest:
                yield f"{folder / name} is not the file that was written (sha256)"

    def _label(self) -> Iterator[str]:
        path = Path(self.case["label"])
        if not path.is_file():
            return
        label = read_nifti(path)
        shape, size = label.values.shape, self.header.get("label_size")
        if len(shape) != 3 or len(set(shape)) != 1 or (size and shape[0] != size):
            yield f"{path} has the shape {shape}, expected a cube of {size or 'equal sides'}"
            return
        spacing = self.extent / shape[0]
        if not np.allclose(label.affine[:3, :3], np.eye(3) * spacing, atol=1e-3 * spacing):
            yield f"{path} has an affine that is not RAS with {spacing:g} mm"
        if not np.isfinite(label.values).all():
            yield f"{path} holds values that are not finite"
            return
        yield from _check_hu(path, label, *POSSIBLE_HU)
        yield from _check_voxels(path, label, self.case.get("voxels"))
        self.cube = _tensor(label)

    def _pair(self) -> Iterator[str]:
        """A time average and its phase 0: one grid, and in HU."""
        files = [Path(file) for file in (self.case["label"], self.case["image"][0])]
        phase, average = (read_nifti(file) for file in files)
        if phase.values.shape != average.values.shape or not np.allclose(
            phase.affine, average.affine, atol=MAX_DISTANCE_MM
        ):
            yield f"{files[0]} and its average have different grids"
        digests = (self.case.get("voxels"), *self.case.get("pixels", [None]))
        for file, volume, digest in zip(files, (phase, average), digests):
            yield from _check_hu(file, volume)
            yield from _check_voxels(file, volume, digest)
        self.cube, self.average = _tensor(phase), _tensor(average)

    def _radiographs(self) -> Iterator[str]:
        upright = LoadRadiographsd(allow_unquantitative=True)
        for index, file in enumerate(self.case["image"]):
            if not Path(file).is_file():
                yield f"{file} is missing"
                continue
            digests = self.case.get("pixels") or []
            is_elsewhere = Path(file).parent != Path(self.case["label"]).parent
            if is_elsewhere and index < len(digests) and digest_radiograph(file) != digests[index]:
                yield f"{file} does not hold the pixels that were written for this case"
            camera, expected = (
                Camera.from_dict(self.case["cameras"][index]),
                self.case["orientation"][index]["transform"],
            )
            one: dict[Any, Any] = {key: self.case[key][index : index + 1] for key in ("image", *PER_VIEW)}
            self.pictures.append((camera.name, upright(one)["image"][0]))
            if self.cube is None:
                continue
            error, radiograph = self.case["orientation"][index].get("error_mm"), read_radiograph(file)
            if error is None:
                match = measure(radiograph.image, self.cube, self.extent, camera)
            else:
                is_real = self.case.get("provenance", {}).get("radiographs") == REAL
                mask = measured_pixels(radiograph.image, radiograph.valid) if is_real else None
                match = verify(radiograph.image, self.cube, [self.extent / self.cube.shape[-1]] * 3, camera, mask=mask)
            if self.is_given:
                self.pictures.append((f"{camera.name}, projected", match.expected))
            now = match.orientation
            self.correlations.append(
                f"{camera.name} {now['transform']} {now['correlation']:.3f} ({now['runner_up_correlation']:.3f})"
                + ("" if error is None else f" +- {error:.1f} mm")
            )
            if now["transform"] != expected:
                yield f"{file} fits best as {now['transform']}, the datalist says {expected}"
            elif abs(now["correlation"]) < self.min_correlation:
                yield f"{file} has a correlation of {now['correlation']:.2f} with our projection of the label"


def _check_hu(path: Path, volume: Volume, lowest: float = -inf, highest: float = inf) -> Iterator[str]:
    low, high = float(volume.values.min()), float(volume.values.max())
    if low < lowest or high > highest or low > LUNG_HU or high < 0:
        yield f"{path} has values from {low:g} to {high:g}, no CT in HU"


def _check_voxels(path: Path, volume: Volume, digest: str | None) -> Iterator[str]:
    if digest is not None and digest_voxels(volume.values) != digest:
        yield f"{path} does not hold the voxels that were written"


def _tensor(volume: Volume) -> Tensor:
    return torch.from_numpy(volume.values.astype(np.float32))[None]
