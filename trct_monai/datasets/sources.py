"""What a folder holds: CTs in any format, CTs with radiographs, X2CT files; one `Source` for each case."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from trct_monai.datasets.cases import RECORD
from trct_monai.io.ct import EXTENSIONS, detached_files, extension_of
from trct_monai.io.dicom.header import is_dicom
from trct_monai.io.dicom.series import Series, find_series
from trct_monai.io.files import read_json
from trct_monai.io.picture import ENDINGS
from trct_monai.io.provenance import digest_file
from trct_monai.io.radiograph import side_car_of

PICTURES = (*ENDINGS, ".npy")
"""Radiographs by their endings; .dcm is one if its name is that of a view."""

VIEW_NAMES = {"pa": "pa", "frontal": "pa", "lat": "lat", "lateral": "lat"}
"""What others call our views in file names; ``viewN`` is understood as well."""

LAYOUTS = {1: "CTs", 2: "CTs with radiographs", 3: "X2CT files"}

_PATIENT = re.compile(r"LIDC-IDRI-\d{4}")
_MASK = re.compile(r"(^|[_-])(mask|seg|segmentation)s?([_-]|$)", re.IGNORECASE)
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Source:
    """One case to be prepared.

    Attributes:
        case_id: Name that depends on nothing but this case.
        patient_id: The patient.
        format: DICOM, NIfTI, MetaImage, NRRD or HDF5.
        path: The file, or the folder of a series.
        files: All files of the CT.
        radiographs: Picture of each view that came with the CT.
    """

    case_id: str
    patient_id: str
    format: str
    path: Path
    files: tuple[Path, ...]
    radiographs: dict[str, Path] = field(default_factory=dict)

    @property
    def layout(self) -> int:
        """Number of the layout, see `LAYOUTS`."""
        return 3 if self.format == "HDF5" else 2 if self.radiographs else 1

    def location(self, root: Path) -> str:
        """Where the CT was found, relative to `root`: for information, it decides nothing."""
        return Path(os.path.relpath(self.path, root)).as_posix()

    def digests(self, root: Path) -> dict[str, str]:
        """Digest of each file that goes into the case, by its path relative to `root`."""
        side_cars = [side_car for picture in self.radiographs.values() if (side_car := side_car_of(picture)).is_file()]
        voxels = [file for header in self.files for file in detached_files(header)]
        files = [*self.files, *voxels, *self.radiographs.values(), *side_cars]
        return {Path(os.path.relpath(file, root)).as_posix(): digest_file(file) for file in files}


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        sources: Cases, sorted by name.
        skipped: Path and reason of what is no CT and need not be: localizers, short series, masks.
        refused: Path and reason of what should have been a case.
        other_files: Number of files of other kinds.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)
    other_files: int = 0


def find_sources(folder: str | os.PathLike[str], min_slices: int = 16) -> Found:
    """All cases in a folder and below it, in the order of their names.

    Args:
        folder: Where to look. Hidden folders are left out.
        min_slices: Shorter DICOM series are skipped and listed.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")
    found = Found()
    for place, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        _search_folder(root, Path(place), sorted(name for name in names if not name.startswith(".")), found, min_slices)
    found.sources.sort(key=lambda source: source.case_id)
    _refuse_doubles(found)
    return found


def patient_of(name: str) -> str:
    """The patient of a case by its name: the number of LIDC-IDRI if it has one, else the name itself."""
    match = _PATIENT.search(name)
    return match.group() if match else name


def safe_name(name: str) -> str:
    """A name that can be a folder's on any system."""
    return _UNSAFE.sub("_", name).strip("._") or "case"


def _search_folder(root: Path, place: Path, names: list[str], found: Found, min_slices: int) -> None:
    stems = {place.name, *(name[: -len(extension)] for name in names if (extension := extension_of(name)))}
    pictures = [
        name
        for name in names
        if name.lower().endswith(PICTURES) or (name.lower().endswith(".dcm") and _view_name(name, stems))
    ]
    used: set[str] = set()
    dicom = False
    for name in names:
        path, extension = place / name, extension_of(name)
        if extension:
            source = _file_source(root, path, extension, pictures)
            if _MASK.search(name.removesuffix(extension)):
                found.skipped.append((path, "a mask by its name"))
            elif source is not None:
                found.sources.append(source)
                used.update(picture.name for picture in source.radiographs.values())
        elif name not in pictures and not name.endswith((".json", ".csv", ".txt", ".xml", ".md")):
            if is_dicom(path):
                dicom = True
            elif name.lower().endswith((".dcm", ".ima")):
                found.refused.append((path, "no DICOM file, or a damaged one"))
            else:
                found.other_files += 1
    found.other_files += len(set(pictures) - used)
    if dicom:
        for series in find_series(place, min_slices):
            if series.reason.startswith("damaged"):
                found.refused.append((series.files[0], series.reason))
            elif series.reason:
                found.skipped.append((series.files[0], series.reason))
            else:
                found.sources.append(_series_source(root, place, series))


def _series_source(root: Path, place: Path, series: Series) -> Source:
    relative = place.relative_to(root).parts
    patient = safe_name(series.patient_id or patient_of(relative[0] if relative else root.absolute().name))
    return Source(f"{patient}_{series.digest}", patient, "DICOM", place, series.files)


def _file_source(root: Path, path: Path, extension: str, pictures: list[str]) -> Source | None:
    stem, folder = path.name.removesuffix(path.name[-len(extension) :]), path.parent.name
    nested = path.parent.resolve() != root.resolve()
    parts = path.relative_to(root).parts
    owner = stem if stem == folder or not nested else parts[0]
    if EXTENSIONS[extension] == "HDF5":
        stem = stem.removesuffix("ct_xray_data").rstrip("_") or folder
    elif nested and stem != folder:
        stem = "_".join([*parts[:-1], stem])
    case_id = safe_name(stem)
    # A known name anywhere in the path is the patient's; else NAME/NAME.nii.gz is NAME's, and a folder one person's.
    named = patient_of("/".join(parts))
    patient = safe_name(_recorded_patient(path.parent) or (named if named != "/".join(parts) else owner))
    file_stem = path.name[: -len(extension)]
    radiographs = {}
    for name in pictures:
        view = _view_name(name, {file_stem, folder})
        if view is not None:
            radiographs[view] = path.parent / name
    return Source(case_id, patient, EXTENSIONS[extension], path, (path,), radiographs)


def _recorded_patient(folder: Path) -> str | None:
    """The patient of a case that `prepare` wrote."""
    try:
        return str(read_json(folder / RECORD)["case"]["patient_id"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _view_name(name: str, stems: set[str]) -> str | None:
    """The view of a picture ``STEM_VIEW.png`` or ``STEM_VIEW_drr.png``, or with another ending."""
    rest = name.rsplit(".", 1)[0].removesuffix("_drr")
    for stem in sorted(stems, key=len, reverse=True):
        if rest.startswith(stem + "_"):
            view = rest.removeprefix(stem + "_").lower()
            return VIEW_NAMES.get(view, view if re.fullmatch(r"view\d+", view) else None)
    return None


def _refuse_doubles(found: Found) -> None:
    first: dict[str, Path] = {}
    kept = []
    for source in found.sources:
        if source.case_id in first:
            found.refused.append((source.path, f"the case {source.case_id} again, also in {first[source.case_id]}"))
        else:
            kept.append(source)
            first[source.case_id] = source.path
    found.sources = kept
