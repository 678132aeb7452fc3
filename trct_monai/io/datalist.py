"""The datalist: one JSON file that names every case of a data set, and everything known about it.

It is a Decathlon datalist (sections ``training``, ``validation`` and ``test``, paths relative to the file), so MONAI's
own `load_decathlon_datalist` reads it too. Each case has the fields of `Case`; the page's head says which geometry,
cube and sizes the data set has, and how it was split.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import follows_preset
from trct_monai.io.files import read_json, write_json

SECTIONS = ("training", "validation", "test")


FORMAT_VERSION = 1


FORMAT = "trct-datalist"


PHASES = "phases"
"""The ``task`` in the head of a datalist of time averages and phases; one of radiographs has none."""


BENCHMARKS = {
    "PhantomThorax-64": "4d5642f6f50e918cdbd76440256c4d99a6f666867f0f9781530332af33078b85",
}
"""Checksums of the data sets on which methods are compared; `phantoms --output FOLDER` makes PhantomThorax-64."""


class Orientation(TypedDict):
    """What to do to a stored picture to bring it to our convention, and how sure that is."""

    transform: str
    correlation: float
    runner_up: str
    runner_up_correlation: float


class Intensity(TypedDict):
    """Whether a stored picture holds line integrals; if not: line integral = picture * gain + offset."""

    quantitative: bool
    gain: float | None
    offset: float | None


class Case(TypedDict):
    """One case of a datalist.

    Attributes:
        case_id: Unique name; also the folder's.
        patient_id: Cases of one patient never stand on two sides of a split.
        label: The CT in HU, a NIfTI cube.
        image: The radiographs, one file for each view.
        views: Names of the views.
        cameras: `Camera.to_dict()` of each view, in mm relative to the centre of the label's cube.
        orientation: One `Orientation` for each view.
        intensity: One `Intensity` for each view.
        sha256: Digest of each file by its path relative to the case's folder.
        voxels: Digest of the label's numbers, whatever the file's compression.
        pixels: The same of each radiograph's stored numbers.
        provenance: Where the case comes from and how it was made.
        masks: Segmentation of each finding, where there is one.
        planted: The sphere that `plant` added, and to which case: base, center_mm, diameter_mm, contrast_hu.
    """

    case_id: str
    patient_id: str
    label: str
    image: list[str]
    views: list[str]
    cameras: list[dict[str, Any]]
    orientation: list[Orientation]
    intensity: list[Intensity]
    sha256: dict[str, str]
    voxels: str
    pixels: NotRequired[list[str]]
    provenance: dict[str, Any]
    masks: NotRequired[dict[str, str]]
    planted: NotRequired[dict[str, Any]]


def read_datalist(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The whole page of a datalist as it is written, paths relative.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a datalist.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such datalist")
    page = read_json(path)
    if not isinstance(page, dict) or not any(section in page for section in SECTIONS):
        raise ValueError(f"{path}: a datalist has the sections {', '.join(SECTIONS)}")
    if page.get("format", FORMAT) != FORMAT or page.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(
            f"{path}: {page.get('format')} version {page.get('format_version')} cannot be read; "
            f"this is {FORMAT} version {FORMAT_VERSION}"
        )
    return page


def load_datalist(
    path: str | os.PathLike[str], section: str, geometry: str | None = None, extent: float | None = None
) -> list[dict[str, Any]]:
    """The cases of one section with absolute paths, ready for MONAI's data sets and `LoadRadiographsd`.

    A DataLoader cannot collate all the fields of `Case`: keep what the network needs with MONAI's
    ``SelectItemsd(keys=["image", "label", "case_id"])`` after loading.

    Args:
        path: The datalist.
        section: ``training``, ``validation`` or ``test``.
        geometry: Preset that the cameras of every case must follow: that of the network which reads them. There must be
            a case then.
        extent: Side in mm that the data's cubes must have, if the datalist states one: that of the network too.

    Raises:
        FileNotFoundError: If the datalist or a file that it names is missing.
        ValueError: If it is not a datalist, has no such section, or its cameras or cubes are not those asked for.
    """
    path = Path(path)
    page = read_datalist(path)
    if section not in page:
        present = ", ".join(name for name in SECTIONS if name in page)
        raise ValueError(f"{path}: no section {section!r}; it has {present}")
    if extent is not None and abs(float(page.get("extent", extent)) - extent) > 1e-3 * extent:
        raise ValueError(
            f"{path}: its cubes are {page['extent']} mm wide and were projected so, {extent} mm are asked for; "
            f"prepare the data with --extent {extent}, or train with --extent {page['extent']}"
        )
    if geometry is not None and page.get("task") == PHASES:
        raise ValueError(f"{path}: holds pairs of phases, for the bundle ct_phase_pix2pix; this one wants radiographs")
    cases = [_with_absolute_paths(case, path.absolute().parent) for case in page[section]]
    if geometry is not None and not cases:
        raise ValueError(
            f"{path}: section {section!r} has no case; split the data so that it has, or use another section"
        )
    for case in cases:
        for file in (case.get("label"), *case.get("image", [])):
            if file is not None and not Path(file).is_file():
                raise FileNotFoundError(f"{file}: missing file of case {case.get('case_id')} in {path}")
        if geometry is not None:
            _check_geometry(case, geometry, path)
    return cases


def checksum(page: Mapping[str, Any]) -> str:
    """Digest of a data set: its sections, cases, CTs, radiographs and views, whatever the files around the numbers.

    Args:
        page: What `read_datalist` gives, from this version's `phantoms` or `prepare`.

    Raises:
        ValueError: If a case has no digests.
    """
    digest = hashlib.sha256()
    for section in SECTIONS:
        for case in page.get(section, []):
            if "voxels" not in case or "pixels" not in case:
                raise ValueError(f"case {case.get('case_id')} has no digests of voxels and pixels; prepare it again")
            cameras = [[_rounded(value) for value in camera.values()] for camera in case.get("cameras", [])]
            line = [section, case["case_id"], case["voxels"], case["pixels"], cameras]
            digest.update(json.dumps(line).encode())
    return digest.hexdigest()


def describe_checksum(page: Mapping[str, Any]) -> str:
    """One line with the checksum of a data set, and the benchmark that it is, if it is one."""
    digest = checksum(page)
    name = next((name for name, known in BENCHMARKS.items() if known == digest), None)
    return f"checksum {digest}" + (f": the benchmark {name}" if name else "")


def _rounded(value: Any) -> Any:
    """Numbers to 1e-6, in any nesting: the last bits of a cosine differ between machines."""
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return round(value, 6) + 0.0 if isinstance(value, float) else value


def _check_geometry(case: Mapping[str, Any], geometry: str, path: Path) -> None:
    """Refuse a case whose radiographs were taken otherwise than a network with a fixed geometry assumes."""
    cameras = [Camera.from_dict(camera) for camera in case.get("cameras", [])]
    if not follows_preset(cameras, geometry):
        raise ValueError(
            f"{path}: case {case.get('case_id')} has {len(cameras)} views that are not those of geometry {geometry!r}; "
            "prepare the data with that --geometry, or train with the geometry of the data"
        )


def save_datalist(
    path: str | os.PathLike[str], sections: Mapping[str, Sequence[Mapping[str, Any]]], header: Mapping[str, Any]
) -> None:
    """Write a datalist, to a temporary name first.

    Args:
        path: Where to write.
        sections: Cases by section; paths inside the datalist's folder become relative to it.
        header: Further fields of the page: name, description, geometry, extent, label_size and others.

    Raises:
        ValueError: If a section has another name.
    """
    path = Path(path)
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise ValueError(f"a datalist has the sections {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    root = path.absolute().parent
    page: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, **header}
    page["num_cases"] = {name: len(sections.get(name, [])) for name in SECTIONS}
    for name in SECTIONS:
        page[name] = [_with_relative_paths(case, root) for case in sections.get(name, [])]
    root.mkdir(parents=True, exist_ok=True)
    write_json(path, page)


def _with_absolute_paths(case: Mapping[str, Any], root: Path) -> dict[str, Any]:
    result = dict(case)
    if "label" in case:
        result["label"] = str(root / case["label"])
    if "image" in case:
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        result["image"] = [str(root / image) for image in images]
    if "masks" in case:
        result["masks"] = {name: str(root / mask) for name, mask in case["masks"].items()}
    return result


def _with_relative_paths(case: Mapping[str, Any], root: Path) -> dict[str, Any]:
    result = dict(case)
    if "label" in case:
        result["label"] = _relative(case["label"], root)
    if "image" in case:
        result["image"] = [_relative(image, root) for image in case["image"]]
    if "masks" in case:
        result["masks"] = {name: _relative(mask, root) for name, mask in case["masks"].items()}
    return result


def _relative(path: str, root: Path) -> str:
    return Path(os.path.relpath(path, root)).as_posix() if os.path.isabs(path) else Path(path).as_posix()
