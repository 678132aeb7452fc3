"""Cases on disk: written whole or not at all, each with a record of what it was made from.

    OUT/case_id/case_id.nii.gz           label, HU int16, RAS
    OUT/case_id/case_id_VIEW_drr.png     radiographs, each with its side-car .json
    OUT/case_id/case.json                the `Case`, and its stamp (`trct_monai.io.provenance`)

A folder appears under its name only when all of it is written, so that what is there is complete.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.intensity import STORED_HU
from trct_monai.io.case import Case, Intensity, Orientation, with_absolute_paths
from trct_monai.io.files import partial_folder, read_json, replacing_folder, write_json
from trct_monai.io.nifti import write_hu
from trct_monai.io.provenance import STAMP, Stamp, digest_file, digest_voxels, is_made_from
from trct_monai.io.radiograph import digest_radiograph, save_radiograph

RECORD = "case.json"

QUANTITATIVE: Intensity = {"quantitative": True, "gain": None, "offset": None}
"""Of a radiograph that holds line integrals."""


class SeveralReasonsError(ValueError):
    """A source is refused, and each of its files has a reason of its own, which the driver shows on a line of its own.

    Args:
        summary: Why the source is refused.
        reasons: One for each file.
    """

    def __init__(self, summary: str, reasons: Sequence[str]) -> None:
        super().__init__(f"{summary}: {'; '.join(reasons)}")
        self.summary, self.reasons = summary, list(reasons)


Make = Callable[[Path], dict[str, Any]]
"""Writes the files of a case into a folder and gives the fields of `Case`; digests and provenance are completed."""


@dataclass(frozen=True)
class CaseFolder:
    """Where one case is written: a folder with its files and `RECORD`.

    Attributes:
        folder: OUTPUT/case_id.
    """

    folder: Path

    def is_done(self, stamp: Stamp) -> bool:
        """Whether the case was made from this, and its files are as they were written."""
        record = self.folder / RECORD
        return is_made_from(record, stamp) and _are_intact(self.folder, read_json(record).get("case", {}))

    def write(self, stamp: Stamp, make: Make) -> None:
        """Make the case and put it in the place of what was there."""
        with replacing_folder(self.folder) as folder:
            case = make(folder)
            case.setdefault("pixels", [digest_radiograph(folder / name) for name in case["image"]])
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            case["sha256"] = {path.relative_to(folder).as_posix(): digest_file(path) for path in files}
            case["provenance"] |= {"tool": stamp["software"], "options": stamp["options"]}
            write_json(folder / RECORD, {STAMP: stamp, "case": case})


@dataclass(frozen=True)
class FilePair:
    """Where two files of one name are written, in folders that they share with others; their record is hidden.

    Attributes:
        root: The folder above.
        name: What both are called.
        files: Each file's path below `root`, by its name in the folder where it is made.
    """

    root: Path
    name: str
    files: Mapping[str, str]

    @property
    def record(self) -> Path:
        """The JSON file with the stamp and the files' digests."""
        return self.root / f".{self.name}.json"

    def is_done(self, stamp: Stamp) -> bool:
        """Whether the files were made from this, and are as they were written."""
        return is_made_from(self.record, stamp) and _are_intact(self.root, read_json(self.record))

    def write(self, stamp: Stamp, make: Make) -> None:
        """Make the files and put each in its place. The record comes last, and goes first."""
        with partial_folder(self.root / self.name) as folder:
            make(folder)
            self.record.unlink(missing_ok=True)
            digests = {path: digest_file(folder / name) for name, path in self.files.items()}
            for name, path in self.files.items():
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).replace(self.root / path)
        write_json(self.record, {STAMP: stamp, "sha256": digests})


Place = CaseFolder | FilePair


def write_ct(
    folder: Path, case_id: str, cube: Float[Tensor, "1 X X X"], affine: Tensor, hu_window: Sequence[float] = STORED_HU
) -> dict[str, Any]:
    """Write a label as int16 HU, clipped to a window.

    Args:
        folder: The case's folder.
        case_id: The case.
        cube: Its CT in HU.
        affine: From voxel index to world mm.
        hu_window: Lowest and highest HU.

    Returns:
        The fields ``label`` and ``voxels``.
    """
    name = f"{case_id}.nii.gz"
    hu = cube.as_subclass(Tensor)[0].clamp(*hu_window)
    return {"label": name, "voxels": digest_voxels(write_hu(folder / name, hu.numpy(), affine.numpy()))}


def write_radiographs(
    folder: Path,
    case_id: str,
    images: Float[Tensor, "V H W"],
    cameras: Sequence[Camera],
    orientation: Sequence[Orientation],
    exposed: bool = True,
) -> dict[str, Any]:
    """Write radiographs of our own with their side-cars. They are in our convention: none is to be flipped or turned.

    Args:
        folder: The case's folder.
        case_id: The case.
        images: Line integrals.
        cameras: One for each.
        orientation: How well each fits a projection of the label.
        exposed: As in `save_radiograph`.

    Returns:
        The fields of `view_fields`.
    """
    names = [f"{case_id}_{camera.name}_drr.png" for camera in cameras]
    for name, image, camera in zip(names, images, cameras):
        save_radiograph(folder / name, image, camera, exposed=exposed)
    upright: list[Orientation] = [{**one, "transform": "identity"} for one in orientation]
    return view_fields(names, cameras, upright, [QUANTITATIVE] * len(names))


def view_fields(
    names: Sequence[str],
    cameras: Sequence[Camera],
    orientation: Sequence[Orientation],
    intensity: Sequence[Intensity],
) -> dict[str, Any]:
    """The fields of `Case` with one entry for each radiograph: image, views, cameras, orientation and intensity."""
    return {
        "image": list(names),
        "views": [camera.name for camera in cameras],
        "cameras": [camera.to_dict() for camera in cameras],
        "orientation": list(orientation),
        "intensity": list(intensity),
    }


def load_cases(output: Path) -> list[Case]:
    """All complete cases of a folder, sorted by name, with absolute paths.

    Raises:
        ValueError: If a record is damaged.
    """
    cases = []
    for path in sorted(output.glob(f"*/{RECORD}")):
        try:
            case = with_absolute_paths(read_json(path)["case"], path.parent.absolute())
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: damaged; remove its folder and run the command again") from error
        cases.append(cast(Case, case))
    return cases


def _are_intact(root: Path, described: Mapping[str, Any]) -> bool:
    """Whether files are as they were written: those of ``sha256``, by their paths below a folder."""
    digests = described.get("sha256", {})
    return bool(digests) and all(
        (root / name).is_file() and digest_file(root / name) == value for name, value in digests.items()
    )
