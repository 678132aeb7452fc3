"""The datalist: one JSON file that names every case of a data set, and everything known about it.

It is a Decathlon datalist (sections ``training``, ``validation`` and ``test``, paths relative to the file), so MONAI's
own `load_decathlon_datalist` reads it too. Each case has the fields of `trct_monai.io.case.Case`; the header says which
geometry, cube and sizes the data set has, and how it was split.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import follows_preset, is_near_preset, preset
from trct_monai.io.case import PER_VIEW, check_case, with_absolute_paths, with_paths
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

OWN_CAMERAS = "any_view, dif_net, hybrid_cnn_vit, direct_regression, trct_gan, two_stage, x2ct_gan"
"""The bundles that train and infer on each case's own cameras, for messages of those that do not."""

ANY_CAMERAS = "any_view, dif_net or hybrid_cnn_vit"
"""Those of them that take any views, however many."""

FIELDS = {
    RADIOGRAPHS: ("patient_id", "label", "image", "views", "cameras", "orientation", "intensity"),
    PHASES: ("patient_id", "label", "image"),
}
"""Fields of `Case` that say what a case of each task is; the others say how it came about."""


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
    for section in SECTIONS:
        cases = content.get(section, [])
        if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
            raise ValueError(f"{path}: the section {section} must be a list of cases, each with its fields")
    if content.get("format", FORMAT) != FORMAT or content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(
            f"{path}: {content.get('format')} version {content.get('format_version')} cannot be read; "
            f"this is {FORMAT} version {FORMAT_VERSION}"
        )
    own = content.get("task", RADIOGRAPHS)
    if own not in CONTENTS:
        raise ValueError(f"{path}: the task must be {' or '.join(CONTENTS)}, got {own!r}")
    if task is not None and own != task:
        raise ValueError(f"{path}: holds {CONTENTS[own]}, expected {CONTENTS[task]}; {USES[own]}")
    return content


def load_datalist(
    path: str | os.PathLike[str],
    section: str,
    geometry: str | None = None,
    extent: float | None = None,
    *,
    near: str | None = None,
    with_cameras: bool = False,
    task: str | None = None,
    fields: Sequence[str] = (),
    views: Sequence[int] | None = None,
) -> list[dict[str, Any]]:
    """The cases of one section with absolute paths, ready for MONAI's data sets and `LoadRadiographsd`.

    A DataLoader cannot collate all the fields of `Case`: keep what the network needs with MONAI's
    ``SelectItemsd(keys=["image", "label", "case_id"])`` after loading.

    Args:
        path: The datalist.
        section: ``training``, ``validation`` or ``test``.
        geometry: Preset that the cameras of every case must follow, for a method that knows no others. There must be a
            case then, and the task is `RADIOGRAPHS`.
        extent: Side in mm that the data's cubes must have, if the datalist states one: that of the network too.
        near: Preset that the cameras of every case must be near to (see `is_near_preset`), for a network that takes
            those of each case, but one for each of its views. There must be a case, as for `geometry`.
        with_cameras: Every case must have cameras, whichever, for a network that takes any. There must be a case.
        task: `RADIOGRAPHS` or `PHASES`, if only a datalist of one of them will do.
        fields: Fields of `Case` that every case must have, such as all `FIELDS` of the task; ``case_id`` is always one.
        views: Indices of the views that are kept of every case, before its cameras are looked at; all if None.

    Raises:
        FileNotFoundError: If the datalist or a file that it names is missing.
        ValueError: If it is not a datalist or one of another task, has no such section, a case lacks a field or has one
            that does not fit its radiographs, or the cameras or cubes are not those asked for.
    """
    path = Path(path)
    with_cameras = with_cameras or geometry is not None or near is not None
    if with_cameras:
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
    if with_cameras and not content[section]:
        raise ValueError(
            f"{path}: section {section!r} has no case; split the data so that it has, or use another section"
        )
    for number, case in enumerate(content[section], 1):
        check_case(case, fields, f"{path}: case {number} of {section}")
    twice = find_twice(content)
    if twice:
        raise ValueError(f"{path}: {twice[0]}; a case may be there once")
    chosen = content[section] if views is None else [_with_views(case, views, path) for case in content[section]]
    cases = [with_absolute_paths(case, path.absolute().parent) for case in chosen]
    for case in cases:
        for file in (case.get("label"), *case.get("image", [])):
            if file is not None and not Path(file).is_file():
                raise FileNotFoundError(f"{file}: missing file of case {case['case_id']} in {path}")
        if with_cameras:
            _check_cameras(case, geometry, near, path)
    return cases


def find_twice(content: Mapping[str, Any]) -> list[str]:
    """One line for each name that several cases of a datalist have."""
    places: dict[str, list[str]] = {}
    for section in SECTIONS:
        for case in content.get(section, []):
            places.setdefault(str(case.get("case_id")), []).append(section)
    return [
        f"case {name} is there {len(found)} times ({', '.join(found)})" for name, found in places.items() if found[1:]
    ]


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
        content[name] = [with_paths(case, relative) for case in sections.get(name, [])]
    write_json(path, content)


def _with_views(case: Mapping[str, Any], views: Sequence[int], path: Path) -> dict[str, Any]:
    """A case with these of its views alone."""
    number = len(case.get("image", []))
    if not views or not all(0 <= view < number for view in views):
        raise ValueError(
            f"{path}: case {case['case_id']} has {number} views, which are counted from 0; {list(views)} are asked for"
        )
    fields = [name for name in ("image", *PER_VIEW, "pixels") if case.get(name) is not None]
    return {**case, **{name: [case[name][view] for view in views] for name in fields}}


def _check_cameras(case: Mapping[str, Any], geometry: str | None, near: str | None, path: Path) -> None:
    """Refuse a case with other views than those that the method takes."""
    cameras = [Camera.from_dict(camera) for camera in case["cameras"]]
    if geometry is not None and not follows_preset(cameras, geometry):
        raise ValueError(
            f"{path}: case {case['case_id']} has {len(cameras)} views that are not those of geometry {geometry!r}; "
            f"prepare the data with that --geometry, train with the geometry of the data, or use a method that "
            f"takes each case's own cameras: {OWN_CAMERAS}"
        )
    if near is not None and not is_near_preset(cameras, near):
        raise ValueError(
            f"{path}: case {case['case_id']} has {len(cameras)} views that are not taken from the {len(preset(near))} "
            f"sides of geometry {near!r}, in this order; for any views use {ANY_CAMERAS}"
        )
