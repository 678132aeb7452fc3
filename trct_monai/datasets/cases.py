"""Cases on disk: a folder for each, written whole or not at all, with a page that says how it was made.

    OUT/case_id/case_id.nii.gz           label, HU int16, RAS
    OUT/case_id/case_id_VIEW_drr.png     radiographs, each with its side-car .json
    OUT/case_id/case.json                the `Case`, the options that made it, and the source

A folder appears under its name only when all of it is written, so that what is there is complete.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from trct_monai import __version__
from trct_monai.io.datalist import Case
from trct_monai.io.files import read_json, write_json
from trct_monai.io.nifti import write_hu
from trct_monai.io.provenance import digest_file, digest_voxels
from trct_monai.io.radiograph import digest_radiograph

PAGE = "case.json"


def write_label(path: Path, cube_hu: Float[Tensor, "1 X X X"], affine: Tensor, hu_window: Sequence[float]) -> str:
    """Write a label as int16 HU, clipped to a window.

    Returns:
        The digest of its numbers, `Case.voxels`.
    """
    return digest_voxels(write_hu(path, cube_hu.as_subclass(Tensor)[0].clamp(*hu_window).numpy(), affine.numpy()))


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
    write_json(folder / PAGE, page)


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
        page = read_json(folder / PAGE)
    except (OSError, ValueError):
        return None
    complete = isinstance(page, dict) and isinstance(page.get("case"), dict) and "sha256" in page["case"]
    return page if complete else None


def _as_json(values: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(values))
