"""Cases on disk: a folder for each, written whole or not at all, with a page that says how it was made.

    OUT/case_id/case_id.nii.gz           label, HU int16, RAS
    OUT/case_id/case_id_VIEW_drr.png     radiographs, each with its side-car .json
    OUT/case_id/case.json                the `Case`, the options that made it, and the source

A folder appears under its name only when all of it is written, so that what is there is complete.
"""

import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from jaxtyping import Float
from torch import Tensor

from trct_monai import __version__
from trct_monai.data.datalist import Case
from trct_monai.transforms import digest_radiograph

PAGE = "case.json"


@contextmanager
def case_folder(output: Path, case_id: str) -> Iterator[Path]:
    """A folder to write a case into, which gets its name at the end; nothing stays of it after an error."""
    output.mkdir(parents=True, exist_ok=True)
    temporary = output / f".{case_id}.{os.getpid()}.partial"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        final = output / case_id
        if final.exists():
            stale = output / f".{case_id}.{os.getpid()}.stale.partial"
            final.rename(stale)
            temporary.rename(final)
            shutil.rmtree(stale)
        else:
            temporary.rename(final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_partial(output: Path, case_ids: Sequence[str]) -> None:
    """Remove what killed runs left of these cases."""
    wanted = set(case_ids)
    for path in output.glob(".*.partial"):
        case_id = path.name.removeprefix(".").removesuffix(".partial").removesuffix(".stale").rsplit(".", 1)[0]
        if case_id in wanted:
            shutil.rmtree(path, ignore_errors=True)


def write_nifti(path: Path, volume: np.ndarray, affine: np.ndarray) -> None:
    """Write a NIfTI in RAS mm that has the same bytes whenever it is written; compressed if its name ends in .gz."""
    image = nibabel.Nifti1Image(volume, affine)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    if path.suffix != ".gz":
        path.write_bytes(image.to_bytes())
        return
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, compresslevel=4, mtime=0) as file:
        file.write(image.to_bytes())
    path.write_bytes(buffer.getvalue())


def write_label(path: Path, cube_hu: Float[Tensor, "1 X X X"], affine: Tensor, hu_window: Sequence[float]) -> str:
    """Write a label as int16 HU, clipped to a window.

    Returns:
        The digest of its numbers, `Case.voxels`.
    """
    numbers = cube_hu.as_subclass(Tensor)[0].clamp(*hu_window).round().numpy().astype(np.int16)
    write_nifti(path, numbers, affine.numpy())
    return digest_voxels(numbers)


def digest_voxels(numbers: np.ndarray) -> str:
    """Digest of a volume's numbers and shape, whatever the file around them."""
    digest = hashlib.sha256(str(numbers.shape).encode())
    digest.update(np.ascontiguousarray(numbers.astype("<i2")).tobytes())
    return digest.hexdigest()


def digest_file(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def write_page(folder: Path, case: Mapping[str, Any], options: Mapping[str, Any], source: Mapping[str, Any]) -> None:
    """Write the page of a case, the digests of the folder's files with it; paths in it are file names.

    Args:
        folder: The case's folder, all other files in it.
        case: Fields of `Case` but `sha256`; `pixels` are those of radiographs unless they are given.
        options: What made the case: another value makes another case.
        source: What identifies the source.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digests = {path.relative_to(folder).as_posix(): digest_file(path) for path in files}
    pixels = case.get("pixels") or [digest_radiograph(folder / name) for name in case["image"]]
    provenance = {**case["provenance"], "tool": f"trct_monai {__version__}", "options": options}
    case = {**case, "pixels": pixels, "sha256": digests, "provenance": provenance}
    page = {"options": options, "source": source, "case": case}
    (folder / PAGE).write_text(json.dumps(page, indent=1) + "\n", encoding="utf-8")


def is_finished(folder: Path, options: Mapping[str, Any], source: Mapping[str, Any]) -> bool:
    """Whether the case of this source was made with these options, and its files are as they were written."""
    page = _read_page(folder)
    if page is None or page.get("options") != _as_json(options) or page.get("source") != _as_json(source):
        return False
    digests = page["case"]["sha256"]
    return all((folder / name).is_file() and digest_file(folder / name) == value for name, value in digests.items())


def load_cases(output: Path) -> list[Case]:
    """All complete cases of a folder, sorted by name, with absolute paths."""
    cases = []
    for page_path in sorted(output.glob(f"*/{PAGE}")):
        page = _read_page(page_path.parent)
        if page is None:
            raise ValueError(f"{page_path}: damaged; remove its folder and run the command again")
        case, folder = page["case"], page_path.parent.absolute()
        case["label"] = str(folder / case["label"])
        case["image"] = [str(folder / image) for image in case["image"]]
        if "masks" in case:
            case["masks"] = {name: str(folder / mask) for name, mask in case["masks"].items()}
        cases.append(case)
    return cases


def _read_page(folder: Path) -> dict[str, Any] | None:
    try:
        page = json.loads((folder / PAGE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(page, dict) and isinstance(page.get("case"), dict) and "sha256" in page["case"]
    return page if complete else None


def _as_json(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(values))
