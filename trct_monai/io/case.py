"""One case of a data set: its fields, and what becomes of its paths."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from typing_extensions import NotRequired

PER_VIEW = ("views", "cameras", "orientation", "intensity")
"""Fields with one entry for each radiograph."""


class Orientation(TypedDict):
    """What to do to a stored picture to bring it to our convention, and how sure that is.

    `error_mm` is there for a camera that was measured: its estimated error, see `trct_monai.registration`.
    """

    transform: str
    correlation: float
    runner_up: str
    runner_up_correlation: float
    error_mm: NotRequired[float]


class Intensity(TypedDict):
    """Whether a stored picture holds line integrals; if not: line integral = picture * gain + offset."""

    quantitative: bool
    gain: float | None
    offset: float | None


class Case(TypedDict):
    """One case of a datalist.

    Attributes:
        case_id: Unique name; also the folder's.
        patient_id: Cases of one patient are never in two sections.
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


def with_absolute_paths(case: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A case with its label, radiographs and masks as absolute paths.

    Args:
        case: Fields of `Case`, paths relative to `folder`.
        folder: An absolute path.
    """
    return with_paths(case, lambda file: str(folder / file))


def with_paths(case: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """A copy of a case with every path in it changed: those of its label, radiographs and masks.

    Args:
        case: Fields of `Case`.
        change: From a path to what takes its place.
    """
    result = dict(case)
    if case.get("label") is not None:
        result["label"] = change(case["label"])
    if "image" in case:
        images = [case["image"]] if isinstance(case["image"], str) else case["image"]
        result["image"] = [change(image) for image in images]
    if "masks" in case:
        result["masks"] = {name: change(mask) for name, mask in case["masks"].items()}
    return result


def check_file_name(name: str, what: str) -> None:
    """Refuse a name that would leave its folder if it became a file's or a folder's, or that a terminal would obey.

    Args:
        name: The name.
        what: What it is, in the message.

    Raises:
        ValueError: If it is empty, has a separator of folders or a control character, or is a folder above.
    """
    if not name.isprintable() or set(name) & {"/", "\\"} or name.strip(". ") == "":
        raise ValueError(f"{what} must be a name for files, without / and \\ and control characters, got {name!r}")


def check_case(case: Any, fields: Sequence[str], where: str) -> None:
    """Refuse a case that does not keep the contract of `Case`.

    Args:
        case: An entry of a section.
        fields: Fields that it must have.
        where: What it is called in the message.

    Raises:
        ValueError: If a field is missing or does not fit the number of radiographs, or the case's or a view's name
            cannot be that of a file.
    """
    if not isinstance(case, dict) or not isinstance(case.get("case_id"), str):
        raise ValueError(f"{where} has no 'case_id'; prepare writes datalists that have all fields")
    check_file_name(case["case_id"], f"{where}: 'case_id'")
    where = f"{where} ({case['case_id']})"
    lacking = [repr(field) for field in fields if case.get(field) is None]
    if lacking:
        raise ValueError(f"{where} has no {', '.join(lacking)}; prepare writes datalists that have all fields")
    if "label" in case and case["label"] is None:
        raise ValueError(f"{where} has the label null; leave the field out, or name a file")
    images = case.get("image") or []
    files = [case.get("label") or "", *([images] if isinstance(images, str) else images)]
    if not all(isinstance(file, str) for file in files):
        raise ValueError(f"{where}: 'label' must be the name of a file, and 'image' a list of names, got {files}")
    for field in PER_VIEW:
        if case.get(field) is not None and len(case[field]) != len(files) - 1:
            raise ValueError(f"{where} has {len(case[field])} {field} for {len(files) - 1} radiographs")
