"""CTs of any format as cases for inference, and which of them are done."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trct_monai.datasets.phases import ct_source, find_cts
from trct_monai.datasets.sources import Source
from trct_monai.io.ct import ct_files, detached_files, read_ct
from trct_monai.io.dicom.series import find_series
from trct_monai.io.files import read_json, write_json
from trct_monai.io.provenance import STAMP, digest_file, digest_values, is_made_from, make_stamp


def find_volumes(paths: str | Sequence[str], min_slices: int = 4) -> list[dict[str, str]]:
    """CTs as cases for inference, ``case_id`` and ``image``: files, folders with one series or file, folders of such.

    Each is read to see whether it can be; what cannot be used is named in one line, and the others go on.

    Args:
        paths: One path, or several.
        min_slices: Shorter DICOM series do not count.

    Raises:
        FileNotFoundError: If a path is missing.
        ValueError: If no CT is found, or two have one name.
    """
    sources: dict[str, Source] = {}
    num_refused = 0
    for path in [Path(paths)] if isinstance(paths, str) else [Path(path) for path in paths]:
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such CT or folder of CTs")
        found, refused = _in_path(path, min_slices)
        for name, source in found.items():
            try:
                read_ct(source.path, source.files)
            except (ValueError, OSError) as error:
                refused.append(" ".join(str(error).split()))
                continue
            if name in sources:
                both = f"{sources[name].path} and {source.path}"
                raise ValueError(f"{both} have one name; give each its own --output_dir")
            sources[name] = source
        for line in refused:
            print(f"refused  {line}")
        num_refused += len(refused)
    print(f"{len(sources)} CTs, {num_refused} refused")
    if not sources:
        raise ValueError("found no CT to work on: pass --volumes FILE, or a folder of CTs")
    return [{"case_id": name, "image": str(source.path)} for name, source in sources.items()]


def _in_path(path: Path, min_slices: int) -> tuple[dict[str, Source], list[str]]:
    """The CT that a path is, or those in the folder that it is, and a line for each entry that is none."""
    if path.is_dir() and not find_series(path, min_slices):
        return find_cts(path, min_slices)
    try:
        source = ct_source(path, min_slices)
    except ValueError as error:
        return {}, [str(error)]
    return {source.case_id: source}, []


def without_results(
    cases: Sequence[Mapping[str, str]],
    output_dir: str | os.PathLike[str],
    made_by: Mapping[str, Any],
    *,
    load_pretrain: bool = True,
) -> list[dict[str, str]]:
    """The cases whose result, CASE_ID.nii.gz, is not in a folder yet: the same command goes on where it stopped.

    OUTPUT_DIR/made_by.json has the stamp of the results in it, and the digest of the CT of each.

    Args:
        cases: With ``case_id`` and ``image``.
        output_dir: Folder of the results.
        made_by: The checkpoint's path under ``checkpoint``, and every number that the result depends on.
        load_pretrain: False if the checkpoint is not used.

    Raises:
        ValueError: If the folder has results of another model or of other CTs.
    """
    folder = Path(output_dir)
    options = dict(made_by)
    checkpoint = Path(str(options.pop("checkpoint", "")))
    used = load_pretrain and checkpoint.is_file()
    stamp = make_stamp({"model": digest_file(checkpoint) if used else None}, options)
    record = folder / "made_by.json"
    known = read_json(record).get("cases", {}) if is_made_from(record, stamp) else {}
    digests = {case["case_id"]: _digest_ct(case["image"]) for case in cases}
    done = [case_id for case_id in digests if (folder / f"{case_id}.nii.gz").is_file()]
    if any(known.get(case_id) != digests[case_id] for case_id in done):
        raise ValueError(f"{folder} holds results of another model or of other CTs; use another --output_dir")
    write_json(record, {STAMP: stamp, "cases": known | digests})
    if done:
        print(f"{len(done)} of {len(cases)} are in {folder} already")
    return [dict(case) for case in cases if case["case_id"] not in done]


def _digest_ct(path: str) -> str:
    """Digest of a CT's files, whatever they are called."""
    files = ct_files(path)[1]
    return digest_values(sorted(digest_file(file) for one in files for file in (one, *detached_files(one))))


def volume_cases(paths: Sequence[str | os.PathLike[str]]) -> list[dict[str, str]]:
    """NIfTI files as cases for inference, named by their files.

    Raises:
        FileNotFoundError: If one is missing.
        ValueError: If there is none, one is no NIfTI, or two have one name: one result would overwrite the other.
    """
    cases: dict[str, str] = {}
    for path in map(Path, paths):
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        if name == path.name or not path.is_file():
            raise FileNotFoundError(f"{path}: no such NIfTI file (.nii or .nii.gz)")
        if name in cases:
            raise ValueError(f"{cases[name]} and {path} have one name; give each its own --output_dir")
        cases[name] = str(path)
    if not cases:
        raise ValueError("no volumes given: pass --volumes \"['a.nii.gz','b.nii.gz']\"")
    return [{"case_id": name, "image": path} for name, path in cases.items()]
