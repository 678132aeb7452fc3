"""DICOM series: those of a folder or of many, and one series as a volume.

What a series is, its headers say, all of them (`trct_monai.io.dicom.slices`); ITK and GDCM decode the pixels.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trct_monai.intensity import HU_INT16, PADDING_HU
from trct_monai.io.dicom.header import is_dicom, last_line
from trct_monai.io.dicom.slices import Slice, identity_of, read_slices_of
from trct_monai.io.dicom.volume import check_scales, check_volume, in_order, makes_volume
from trct_monai.io.limits import check_ct_size
from trct_monai.io.provenance import digest_file

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

FEW = 4
"""So many slices that lie in another way are no localizers, but a stack of their own."""

ENDINGS = (".dcm", ".ima", ".dicom")
"""Names that end so are of DICOM files."""


@dataclass(frozen=True)
class Series:
    """One DICOM series, or files that are none.

    Attributes:
        files: Its files, sorted along the slice normal.
        uid: SeriesInstanceUID; without one the folder.
        patient_id: PatientID; empty if it was removed.
        reason: Why the series is no CT volume; empty if it is one.
        is_refused: Whether it should have been one, as a damaged file should.
        modality: Modality of its files; empty of what is no DICOM.
    """

    files: tuple[Path, ...]
    uid: str
    patient_id: str
    reason: str = ""
    is_refused: bool = False
    modality: str = ""

    @property
    def digest(self) -> str:
        """Short name of the series, the same in every folder."""
        return hashlib.sha256(self.uid.encode()).hexdigest()[:6]


def may_be_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does, or its name says that it is one."""
    return path.name.lower().endswith(ENDINGS) or is_dicom(path)


def find_series(folder: Path, min_slices: int) -> list[Series]:
    """The series of one folder, not of its subfolders; see `group_series`."""
    return group_series(
        [path for path in sorted(folder.iterdir()) if path.is_file() and may_be_dicom(path)], min_slices
    )


def group_series(files: Iterable[Path], min_slices: int) -> list[Series]:
    """The series among some files, wherever they lie.

    Slices belong together if they share PatientID, StudyInstanceUID and SeriesInstanceUID, over folders too if no two
    of them have one place. Localizers, also unmarked ones, colour images and exact copies leave their series and are
    listed beside it. A damaged file refuses its series; one that does not even say which it belongs to refuses those
    beside it whose files differ from it in the digits of their names alone.

    Args:
        files: DICOM files, or what may be some.
        min_slices: A series of fewer slices is no volume.
    """
    groups: dict[tuple[str, ...], list[Slice]] = defaultdict(list)
    damaged: list[tuple[Path, str]] = []
    for path in files:
        try:
            for one in read_slices_of(path):
                groups[(*one.series, "" if one.series[-1] else str(path.parent))].append(one)
        except ValueError as error:
            damaged.append((path, str(error)))
    found: list[Series] = []
    for slices in groups.values():
        kept, copies = _without_copies(slices)
        found += [_series(copies, "copies of other slices of its series")] if copies else []
        found += [series for part in _connected(kept) for series in _parts(part, min_slices)]
    return _refuse_damaged(_refuse_divided(found, groups), damaged)


def _refuse_divided(found: list[Series], groups: Mapping[tuple[str, ...], list[Slice]]) -> list[Series]:
    """The series with those refused whose slices name two patients, and whose parts complement each other."""
    patients: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for key in groups:
        if key[2]:
            patients[key[2]].append(key)
    divided: dict[str, str] = {}
    for uid, keys in patients.items():
        slices = [one for key in keys for one in groups[key]]
        if len(keys) > 1 and len({one.path.parent for one in slices}) == 1 and makes_volume(slices):
            names = " and ".join(repr(key[0]) for key in keys)
            divided[uid] = f"slices of one SeriesInstanceUID have the PatientID or StudyInstanceUID of {names}"
    return [
        replace(one, reason=divided[one.uid], is_refused=True) if one.uid in divided and not one.reason else one
        for one in found
    ]


def _refuse_damaged(found: list[Series], damaged: list[tuple[Path, str]]) -> list[Series]:
    """The series, those refused to which damaged files belong, or may belong; and damaged files that belong to none."""
    of_identity: dict[tuple[str, str], list[int]] = defaultdict(list)
    of_pattern: dict[tuple[Path, str], list[int]] = defaultdict(list)
    for place, series in enumerate(found):
        if not series.reason:
            of_identity[series.patient_id, series.uid].append(place)
            for pattern in set(map(_pattern, series.files)):
                of_pattern[pattern].append(place)
    of_series: dict[int, list[tuple[Path, str]]] = defaultdict(list)
    of_none: dict[tuple[Path, str], list[tuple[Path, str]]] = defaultdict(list)
    for path, reason in damaged:
        identity = identity_of(path)
        places = of_identity[identity[0], identity[2]] if identity else of_pattern[_pattern(path)]
        for place in places:
            of_series[place].append((path, reason))
        if not places:
            of_none[_pattern(path)].append((path, reason))
    result = list(found)
    for place, files in of_series.items():
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        reason = f"{files[0][0].name}{more} of its slices, or beside them, cannot be read: {files[0][1]}"
        result[place] = replace(found[place], reason=reason, is_refused=True)
    for files in of_none.values():
        more = f" and {len(files) - 1} more like it" if len(files) > 1 else ""
        result.append(Series((files[0][0],), str(files[0][0]), "", f"{files[0][1]}{more}", is_refused=True))
    return result


def read_series(files: Sequence[Path]) -> tuple[Tensor, np.ndarray, dict[str, Any]]:
    """A series as a volume.

    Args:
        files: Its files, in any order; one file is an enhanced CT.

    Returns:
        HU (X, Y, Z), int16 where all are whole numbers that fit and float32 otherwise; the affine from voxel index to
        world mm in RAS (gantry tilt included); and the SeriesInstanceUID as ``series_uid``.

    Raises:
        ValueError: If a file is damaged, or the slices do not make one volume; see `check_volume`.
    """
    slices = []
    for path in files:
        try:
            slices += read_slices_of(path)
        except ValueError as error:
            raise ValueError(f"{path.parent}: damaged DICOM series ({path.name}: {error})") from error
    check_volume(slices)
    check_ct_size(len(slices) * slices[0].size[0] * slices[0].size[1], files[0].parent)
    order = in_order(slices)
    sorted_slices = [slices[index] for index in order]
    volume = _read_pixels(files, slices)
    volume = volume if order == sorted(order) else volume[torch.as_tensor(order)]
    check_scales(volume, sorted_slices)
    first, last = (np.array(one.position) for one in (sorted_slices[0], sorted_slices[-1]))
    row, column = np.reshape(np.array(sorted_slices[0].orientation), (2, 3))
    height, width = sorted_slices[0].spacing or (0.0, 0.0)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * width, column * height
    affine[:3, 2] = (last - first) / (len(slices) - 1)
    affine[:3, 3] = first
    return volume.permute(2, 1, 0), LPS_TO_RAS @ affine, {"series_uid": slices[0].series[-1]}


def _series(slices: Sequence[Slice], reason: str = "") -> Series:
    files = tuple(dict.fromkeys(one.path for one in slices))
    uid, patient = slices[0].series[-1] or str(files[0].parent), slices[0].series[0]
    return Series(files, uid, patient, reason, modality=slices[0].modality)


def _pattern(path: Path) -> tuple[Path, str]:
    return path.parent, re.sub(r"\d+", "#", path.name)


def _without_copies(slices: list[Slice]) -> tuple[list[Slice], list[Slice]]:
    """The slices, and those of files that have the UID and the bytes of another one."""
    files: dict[str, dict[Path, None]] = defaultdict(dict)
    for one in slices:
        files[one.sop_uid][one.path] = None
    copies: set[Path] = set()
    for uid, paths in files.items():
        if uid and len(paths) > 1:
            first: dict[str, Path] = {}
            copies |= {path for path in paths if first.setdefault(digest_file(path), path) != path}
    return [one for one in slices if one.path not in copies], [one for one in slices if one.path in copies]


def _connected(slices: list[Slice]) -> list[list[Slice]]:
    """Slices in many folders as one series, if each has a place of its own; else those of each folder."""
    folders: dict[Path, list[Slice]] = defaultdict(list)
    for one in slices:
        folders[one.path.parent].append(one)
    places = {one.position and tuple(np.round(one.position, 2)) for one in slices}
    if len(folders) == 1:
        return [slices]
    if len(places) < len(slices) or None in places:
        return list(folders.values())
    # Anonymisers give one UID to many series: each is a volume, and all of them are none.
    apart = not makes_volume(slices) and all(map(makes_volume, folders.values()))
    return list(folders.values()) if apart else [slices]


def _parts(slices: list[Slice], min_slices: int) -> list[Series]:
    """A series without what is no slice of it, such as localizers, and each kind of those."""
    kinds: dict[str, list[Slice]] = defaultdict(list)
    is_ct = any(one.modality == "CT" and one.size[0] for one in slices)
    for one in slices:
        kinds[_kind_of(one, is_ct)].append(one)
    rest = kinds.pop("", [])
    lies = [(*np.round(np.abs(one.normal), 1), one.size if one.position is None else None) for one in rest]
    usual = Counter(lies).most_common(1)[0][0] if lies else ()
    across = [one for one, how in zip(rest, lies) if how != usual]
    if 0 < len(across) < max(FEW, len(rest) / 5) and len(across) < len(rest) / 2 and _are_strays(across, rest):
        rest = [one for one, how in zip(rest, lies) if how == usual]
    else:
        across = []
    found = [_series(some, kind) for kind, some in kinds.items()]
    if across:
        found.append(_series(across, "localizer, unmarked: it does not lie as the other slices of its series do"))
    if not rest:
        return found
    modality = rest[0].modality
    reason = ""
    if not rest[0].size[0]:
        reason = f"no images ({modality or 'no modality'})"
    elif modality != "CT":
        reason = f"modality {modality or 'unknown'}, not CT"
    elif len(rest) < min_slices:
        reason = f"short series, {len(rest)} slices of at least {min_slices}"
    if all(one.position and one.orientation for one in rest):
        rest = [rest[index] for index in in_order(rest)]
    else:
        rest = sorted(rest, key=lambda one: (one.number, one.path))
    return [*found, _series(rest, reason)]


def _kind_of(one: Slice, among_cts: bool) -> str:
    """What a slice is instead of one of a stack; empty if it is one."""
    if one.is_localizer:
        return "localizer"
    if one.is_coloured:
        return "colour images, no slices"
    if among_cts and (one.modality != "CT" or not one.size[0]):
        return f"no slices of a CT ({one.modality or 'no modality'})"
    projections = {"MIP", "MINIP", "MPR_MIP", "PROJECTION IMAGE", "AVERAGE_IP"} & set(one.image_type.split("\\"))
    return f"projections of a volume ({projections.pop()})" if projections else ""


def _are_strays(some: Sequence[Slice], slices: Sequence[Slice]) -> bool:
    """Whether slices are none of a series: each lies across the others, or has another size and no place."""
    size = Counter(one.size for one in slices).most_common(1)[0][0]
    return all(one.position is not None or one.size != size for one in some)


def _read_pixels(files: Sequence[Path], slices: Sequence[Slice]) -> Tensor:
    """HU (slices, rows, columns) as the files have them."""
    import itk

    volume = torch.from_numpy(_decode(files, itk.SS))
    if not _is_exact(volume, slices):
        volume = torch.from_numpy(_decode(files, itk.F))
        whole = volume.clamp(*HU_INT16).short()
        volume = whole if bool((whole == volume).all()) else volume
    if volume.shape != (len(slices), *slices[0].size):
        raise ValueError(f"{files[0]}: {len(slices)} slices of {slices[0].size} pixels, got {tuple(volume.shape)}")
    if slices[0].is_inverted:  # GDCM has inverted the stored numbers, as for a screen; HU are HU
        turned = [one.rescale[0] * sum(one.stored) + 2 * one.rescale[1] for one in slices]
        volume = (torch.tensor(turned)[:, None, None] - volume).to(volume.dtype)
    for number, one in enumerate(slices):
        if one.padding:  # often below the scale already
            low, high = sorted(one.rescale[0] * value + one.rescale[1] for value in one.padding)
            if high >= PADDING_HU:
                is_padding = (volume[number] >= low) & (volume[number] <= high)
                volume[number].masked_fill_(is_padding, 2 * PADDING_HU)
    return volume


def _decode(files: Sequence[Path], pixel_type: Any) -> np.ndarray:
    """The rescaled values, converted to a type as C does it."""
    import itk

    reader = itk.ImageSeriesReader[itk.Image[pixel_type, 3]].New(
        FileNames=[str(file) for file in files], ImageIO=itk.GDCMImageIO.New(), ForceOrthogonalDirection=False
    )
    try:
        reader.Update()
    except RuntimeError as error:
        raise ValueError(
            f"{files[0].parent}: damaged DICOM series ({_first_damaged(files)}{last_line(error)})"
        ) from error
    values: np.ndarray = itk.array_from_image(reader.GetOutput())
    return values


def _first_damaged(files: Sequence[Path]) -> str:
    """The first file that GDCM cannot read, for a message; empty if it reads each of them."""
    import itk

    for file in files if len(files) > 1 else ():
        reader = itk.ImageFileReader[itk.Image[itk.F, 2]].New(FileName=str(file), ImageIO=itk.GDCMImageIO.New())
        try:
            reader.Update()
        except RuntimeError:
            return f"{file.name}: "
    return ""


def _is_exact(volume: Tensor, slices: Sequence[Slice]) -> bool:
    """Whether conversion to int16 has changed no value: none had a fraction to lose, and none was beyond the range.

    Values that the pixels could hold beyond the range would have come out at its other end, 65536 away.
    """
    low, high = (int(value) for value in volume.aminmax())
    for slope, intercept, stored in {(*one.rescale, one.stored) for one in slices}:
        ends = sorted(slope * pixel + intercept for pixel in stored)
        is_whole = slope.is_integer() and intercept.is_integer()
        beyond = (ends[0] < HU_INT16[0] and high >= ends[0] + 65536) or (
            ends[1] > HU_INT16[1] and low <= ends[1] - 65536
        )
        if not is_whole or beyond:
            return False
    return True
