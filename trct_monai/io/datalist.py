"""The datalist: one JSON file that names every case of a data set, and everything known about it.

It is a Decathlon datalist (sections ``training``, ``validation`` and ``test``, paths relative to the file), so MONAI's
own `load_decathlon_datalist` reads it too. Each case has the fields of `Case`; the header says which geometry, cube and
sizes the data set has, and how it was split.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import follows_preset
from trct_monai.io.files import read_json, write_json

SECTIONS = ("training", "validation", "test")


FORMAT_VERSION = 1


FORMAT = "trct-datalist"


RADIOGRAPHS, PHASES = "radiographs", "phases"
"""The ``task`` of a datalist: CTs with radiographs, which is that of a header without one; or pairs of a time average
and phase 0."""

CONTENTS = {RADIOGRAPHS: "CTs with radiographs", PHASES: "pairs of phases"}
"""What a datalist of each task holds, in messages."""

USES = {
    RADIOGRAPHS: "for pairs run prepare on a folder with trainA and trainB",
    PHASES: "pairs are for evaluate and the bundle ct_phase_pix2pix",
}
"""What to do with a datalist of the other task."""

PER_VIEW = ("views", "cameras", "orientation", "intensity")
"""Fields with one entry for each radiograph."""


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


def read_datalist(path: str | os.PathLike[str], task: str | None = None) -> dict[str, Any]:
    """Header and sections of a datalist as they are written, paths relative.

    Args:
        path: The datalist.
        task: `RADIOGRAPHS` or `PHASES`, if only a datalist of one of them will do.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a datalist, or is one of another task.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such datalist")
    content = read_json(path)
    if not isinstance(content, dict) or not any(section in content for section in SECTIONS):
        raise ValueError(f"{path}: a datalist has the sections {', '.join(SECTIONS)}")
    if content.get("format", FORMAT) != FORMAT or content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(
            f"{path}: {content.get('format')} version {content.get('format_version')} cannot be read; "
            f"this is {FORMAT} version {FORMAT_VERSION}"
        )
    own = content.get("task", RADIOGRAPHS)
    if task is not None and own != task:
        raise ValueError(
            f"{path}: holds {CONTENTS.get(own, own)}, expected {CONTENTS[task]}; {USES.get(own, 'run prepare')}"
        )
    return content


def load_datalist(
    path: str | os.PathLike[str],
    section: str,
    geometry: str | None = None,
    extent: float | None = None,
    *,
    task: str | None = None,
    fields: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """The cases of one section with absolute paths, ready for MONAI's data sets and `LoadRadiographsd`.

    A DataLoader cannot collate all the fields of `Case`: keep what the network needs with MONAI's
    ``SelectItemsd(keys=["image", "label", "case_id"])`` after loading.

    Args:
        path: The datalist.
        section: ``training``, ``validation`` or ``test``.
        geometry: Preset that the cameras of every case must follow: that of the network which reads them. There must be
            a case then, and the task is `RADIOGRAPHS`.
        extent: Side in mm that the data's cubes must have, if the datalist states one: that of the network too.
        task: `RADIOGRAPHS` or `PHASES`, if only a datalist of one of them will do.
        fields: Fields of `Case` that every case must have; ``case_id`` is always one of them.

    Raises:
        FileNotFoundError: If the datalist or a file that it names is missing.
        ValueError: If it is not a datalist or one of another task, has no such section, a case lacks a field or has one
            that does not fit its radiographs, or the cameras or cubes are not those asked for.
    """
    path = Path(path)
    if geometry is not None:
        task, fields = RADIOGRAPHS, ("image", "cameras", *fields)
    content = read_datalist(path, task)
    if section not in content:
        present = ", ".join(name for name in SECTIONS if name in content)
        raise ValueError(f"{path}: no section {section!r}; it has {present}")
    if extent is not None and abs(float(content.get("extent", extent)) - extent) > 1e-3 * extent:
        raise ValueError(
            f"{path}: its cubes are {content['extent']} mm wide and were projected so, {extent} mm are asked for; "
            f"prepare the data with --extent {extent}, or train with --extent {content['extent']}"
        )
    if geometry is not None and not content[section]:
        raise ValueError(
            f"{path}: section {section!r} has no case; split the data so that it has, or use another section"
        )
    for number, case in enumerate(content[section], 1):
        _check_case(case, f"{path}: case {number} of {section}", fields)
    cases = [with_absolute_paths(case, path.absolute().parent) for case in content[section]]
    for case in cases:
        for file in (case.get("label"), *case.get("image", [])):
            if file is not None and not Path(file).is_file():
                raise FileNotFoundError(f"{file}: missing file of case {case['case_id']} in {path}")
        if geometry is not None:
            _check_geometry(case, geometry, path)
    return cases


def save_datalist(
    path: str | os.PathLike[str], sections: Mapping[str, Sequence[Mapping[str, Any]]], header: Mapping[str, Any]
) -> None:
    """Write a datalist, to a temporary name first.

    Args:
        path: Where to write.
        sections: Cases by section; paths become relative to the datalist's folder.
        header: What holds for all cases: name, description, geometry, extent, label_size and others.

    Raises:
        ValueError: If a section has another name.
    """
    path = Path(path)
    unknown = [name for name in sections if name not in SECTIONS]
    if unknown:
        raise ValueError(f"a datalist has the sections {', '.join(SECTIONS)}, got {', '.join(unknown)}")
    root = path.absolute().parent

    def relative(file: str) -> str:
        return Path(os.path.relpath(file, root) if os.path.isabs(file) else file).as_posix()

    content: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION, **header}
    content["num_cases"] = {name: len(sections.get(name, [])) for name in SECTIONS}
    for name in SECTIONS:
        content[name] = [_with_paths(case, relative) for case in sections.get(name, [])]
    write_json(path, content)


def with_absolute_paths(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A case with its label, radiographs and masks as absolute paths.

    Args:
        case: Fields of `Case`, paths relative to `folder`.
        folder: An absolute path.
    """
    return _with_paths(case, lambda file: str(folder / file))


def _with_paths(case: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A copy of a case with every path in it changed."""
    result = dict(case)
    if "label" in case:
        result["label"] = change(case["label"])
    if "image" in case:
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        result["image"] = [change(image) for image in images]
    if "masks" in case:
        result["masks"] = {name: change(mask) for name, mask in case["masks"].items()}
    return result


def _check_case(case: Any, where: str, fields: Sequence[str]) -> None:
    """Refuse a case that does not keep the contract of `Case`, before somebody looks for what is not there."""
    if not isinstance(case, dict) or not isinstance(case.get("case_id"), str):
        raise ValueError(f"{where} has no 'case_id'; prepare writes datalists that have all fields")
    where = f"{where} ({case['case_id']})"
    lacking = [repr(field) for field in fields if case.get(field) is None]
    if lacking:
        raise ValueError(f"{where} has no {', '.join(lacking)}; prepare writes datalists that have all fields")
    images = case.get("image", [])
    files = [case.get("label", ""), *([images] if isinstance(images, str) else images)]
    if not all(isinstance(file, str) for file in files):
        raise ValueError(f"{where}: 'label' must be the name of a file, and 'image' a list of names, got {files}")
    for field in PER_VIEW:
        if field in case and len(case[field]) != len(files) - 1:
            raise ValueError(f"{where} has {len(case[field])} {field} for {len(files) - 1} radiographs")


def _check_geometry(case: Mapping[str, Any], geometry: str, path: Path) -> None:
    """Refuse a case whose radiographs were taken otherwise than a network with a fixed geometry assumes."""
    cameras = [Camera.from_dict(camera) for camera in case["cameras"]]
    if not follows_preset(cameras, geometry):
        raise ValueError(
            f"{path}: case {case['case_id']} has {len(cameras)} views that are not those of geometry {geometry!r}; "
            "prepare the data with that --geometry, or train with the geometry of the data"
        )
