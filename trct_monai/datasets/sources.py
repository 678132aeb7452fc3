"""What a folder holds: CTs in any format, CTs with radiographs, X2CT files; one `Source` for each case."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from trct_monai.datasets.cases import RECORD
from trct_monai.datasets.patients import AUTO, PatientRule, named_patient, patient_rule, usual_patient
from trct_monai.io.ct import EXTENSIONS, detached_files, extension_of
from trct_monai.io.dicom.radiograph import RADIOGRAPH_MODALITIES
from trct_monai.io.dicom.series import Series, group_series, may_be_dicom
from trct_monai.io.files import read_json
from trct_monai.io.picture import ENDINGS
from trct_monai.io.provenance import digest_file
from trct_monai.io.radiograph import side_car_of

PICTURES = (*ENDINGS, ".npy")
"""Radiographs by their endings; .dcm is one if its name is that of a view."""

VIEW_NAMES = {"pa": "pa", "frontal": "pa", "lat": "lat", "lateral": "lat"}
"""What others call our views in file names; ``viewN`` is understood as well."""

LAYOUTS = {1: "CTs", 2: "CTs with radiographs", 3: "X2CT files", 6: "CTs with CR or DX of the same patients"}

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")

LONGEST = 120
"""Bytes of the longest name of a case: names of its files are longer, and most file systems take 255."""

_MASK = re.compile(r"(^|[_.-])(masks?|segs?|segmentations?|labels?|labelmap|gtv|ptv|lobes?)([_.-]|$)", re.IGNORECASE)
_MASKS = re.compile(r"(segmentations?|masks?|segs?|labels?(T[rs])?|seg[_-].*|structures)", re.IGNORECASE)
_UNSAFE = re.compile(r"[^\w.-]+")


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
        header_patient: PatientID of a DICOM series; empty if it is a placeholder.
        unsorted: DICOM radiographs of the same patient whose views are to be found out.
    """

    case_id: str
    patient_id: str
    format: str
    path: Path
    files: tuple[Path, ...]
    radiographs: dict[str, Path] = field(default_factory=dict)
    header_patient: str = ""
    unsorted: tuple[Path, ...] = ()

    @property
    def layout(self) -> int:
        """Number of the layout, see `LAYOUTS`."""
        return 3 if self.format == "HDF5" else 6 if self.unsorted else 2 if self.radiographs else 1

    def location(self, root: Path) -> str:
        """Where the CT was found, relative to `root`: for information, it decides nothing."""
        return relative_path(self.path, root)

    def digests(self, root: Path) -> dict[str, str]:
        """Digest of each file that goes into the case, by its path relative to `root`."""
        side_cars = [side_car for picture in self.radiographs.values() if (side_car := side_car_of(picture)).is_file()]
        voxels = [file for header in self.files for file in detached_files(header)]
        files = [*self.files, *voxels, *self.radiographs.values(), *self.unsorted, *side_cars]
        return {relative_path(file, root): digest_file(file) for file in files}


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        sources: Cases, sorted by name.
        skipped: Path and reason of what is no CT and need not be: localizers, short series, masks.
        refused: Path and reason of what should have been a case.
        other_files: Number of files of other kinds.
        radiograph_series: DICOM radiographs; they are among what is skipped, too.
    """

    sources: list[Source] = field(default_factory=list)
    skipped: list[tuple[Path, str]] = field(default_factory=list)
    refused: list[tuple[Path, str]] = field(default_factory=list)
    other_files: int = 0
    radiograph_series: list[Series] = field(default_factory=list)


def find_sources(folder: str | os.PathLike[str], min_slices: int = 16, patients: str = AUTO) -> Found:
    """All cases in a folder and below it, in the order of their names.

    Args:
        folder: Where to look. Hidden folders are left out, links are followed.
        min_slices: Shorter DICOM series are skipped and listed.
        patients: The patient of each; see `trct_monai.datasets.patients.patient_rule`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it is no folder, or the table of patients is none.
    """
    root = Path(folder)
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such folder")
    if not root.is_dir():
        raise ValueError(f"{root}: expected a folder, got a file; give the folder with the CTs (an archive unpacked)")
    rule = patient_rule(root, patients)
    found, slices = Found(), []
    for place, names in _folders(root, found):
        slices += _search_folder(root, place, names, found, rule)
    # A bar only where it takes a while.
    for series in group_series(tqdm(slices, desc="headers", unit="file", delay=5), min_slices):
        if series.modality in RADIOGRAPH_MODALITIES:
            found.radiograph_series.append(series)
        if series.is_refused:
            found.refused.append((series.files[0], series.reason))
        elif series.reason:
            found.skipped.append((series.files[0], series.reason))
        else:
            found.sources.append(_series_source(root, series, rule))
    found.sources.sort(key=lambda source: source.case_id)
    _refuse_doubles(found)
    return found


def _folders(root: Path, found: Found) -> Iterator[tuple[Path, list[str]]]:
    """Each folder and the names of its files; through links too, but each folder once."""
    seen: set[str] = set()
    for place, folders, names in os.walk(
        root, followlinks=True, onerror=lambda error: found.refused.append((Path(error.filename), error.strerror or ""))
    ):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        visible = sorted(name for name in names if not name.startswith("."))
        for path in (Path(place, name) for name in visible):
            if not path.is_file():  # a pipe would be waited for
                found.refused.append((path, "a link to nothing" if path.is_symlink() else "no regular file"))
        yield Path(place), [name for name in visible if Path(place, name).is_file()]


def relative_path(path: Path, root: Path) -> str:
    """A path relative to `root`, with slashes on every system."""
    return Path(os.path.relpath(path, root)).as_posix()


def safe_name(name: str) -> str:
    """A name that can be a folder's on any system: letters of any script, digits, dots, hyphens and underscores.

    Names that differ in anything but blanks stay different: a short digest of the name tells what else was replaced,
    or cut from one of more than `LONGEST` bytes.
    """
    plain = unicodedata.normalize("NFC", name)
    safe = _UNSAFE.sub("_", plain).strip("._") or "case"
    changed = _UNSAFE.search(re.sub(r"[\s/]", "", plain)) is not None
    if len(safe.encode()) > LONGEST:
        safe, changed = safe.encode()[:LONGEST].decode(errors="ignore"), True
    return f"{safe}-{hashlib.sha256(plain.encode()).hexdigest()[:6]}" if changed else safe


def _search_folder(root: Path, place: Path, names: list[str], found: Found, rule: PatientRule) -> list[Path]:
    """Sort the files of a folder; those that may be DICOM slices are returned."""
    stems = {place.name, *(name[: -len(extension)] for name in names if (extension := extension_of(name)))}
    pictures = [
        name
        for name in names
        if name.lower().endswith(PICTURES) or (name.lower().endswith(".dcm") and _view_name(name, stems))
    ]
    used = set()
    for name in names:
        try:
            used |= {voxels.name for voxels in detached_files(place / name) if voxels.parent == place}
        except (ValueError, OSError):
            continue  # the header is refused when it is read
    volumes = [name for name in names if extension_of(name) and name not in used]
    are_masks = volumes and place != root and _MASKS.fullmatch(place.name)
    if are_masks:
        found.skipped.append((place, f"{len(volumes)} masks by the folder's name"))
    slices = []
    for name in names:
        path, extension = place / name, extension_of(name)
        if name in volumes and extension:
            if are_masks:
                continue
            if _MASK.search(name.removesuffix(extension)):
                found.skipped.append((path, "a mask by its name"))
                continue
            source = _file_source(root, path, extension, pictures, rule)
            found.sources.append(source)
            used.update(picture.name for picture in source.radiographs.values())
        elif name.lower().endswith(ARCHIVES):
            found.skipped.append((path, "an archive; unpack it"))
        elif name not in used and name not in pictures:
            if may_be_dicom(path):
                slices.append(path)
            elif not name.endswith((".json", ".csv", ".txt", ".xml", ".md")):
                found.other_files += 1
    left = sorted(set(pictures) - used)
    if left and volumes:
        reason = (
            f"{len(left)} pictures without the name of a CT and a view, such as {left[0]}; NAME_pa and NAME_lat have"
        )
        found.skipped.append((place, reason))
    else:
        found.other_files += len(left)
    return slices


def _series_source(root: Path, series: Series, rule: PatientRule) -> Source:
    place = Path(os.path.commonpath([file.parent for file in series.files]))
    case_id = f"{safe_name(usual_patient(root, place, series.patient_id))}_{series.digest}"
    patient = rule(place, series.patient_id)
    return Source(case_id, patient, "DICOM", place, series.files, header_patient=named_patient(series.patient_id))


def _file_source(root: Path, path: Path, extension: str, pictures: list[str], rule: PatientRule) -> Source:
    stem, folder = path.name.removesuffix(path.name[-len(extension) :]), path.parent.name
    nested = path.parent.resolve() != root.resolve()
    if EXTENSIONS[extension] == "HDF5":
        stem = stem.removesuffix("ct_xray_data").rstrip("_") or folder
    elif nested and stem != folder:
        stem = "_".join([*path.relative_to(root).parts[:-1], stem])
    file_stem = path.name[: -len(extension)]
    radiographs = {}
    for name in pictures:
        view = _view_name(name, {file_stem, folder})
        if view is not None:
            radiographs[view] = path.parent / name
    patient = rule(path, _recorded_patient(path.parent) or "")
    return Source(safe_name(stem), patient, EXTENSIONS[extension], path, (path,), radiographs)


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
