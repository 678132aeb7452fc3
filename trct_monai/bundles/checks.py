"""What a configuration checks before it runs: paths that arrive as they were given, a device, folders to write to."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from trct_monai.bundles.errors import runs_in_shell, typed_value
from trct_monai.io.datalist import read_datalist
from trct_monai.io.weights import load_state

PATHS = ("_path", "_dir", "datalist")
"""How the names of top-level keys that hold a path end."""

MANY = ("radiographs", "volumes")
"""Top-level keys that hold a list of paths."""

IN_USE = re.compile("out of memory|busy or unavailable")
"""What CUDA says of a device that other processes have filled, or have for themselves."""


def check_run(
    bundle_root: str,
    device: str | torch.device,
    datalist: str | None = None,
    *,
    refused: None = None,
    weights: Mapping[str, str | os.PathLike[str] | None] | None = None,
    written: Mapping[str, str | os.PathLike[str]] | None = None,
) -> None:
    """Refuse with one line what could not be read or written later, before anything runs.

    Args:
        bundle_root: The bundle's folder.
        device: Where the networks shall be.
        datalist: The data, if they are given.
        refused: What an overlay refuses (`trct_monai.training.refuse_flags`), which is evaluated before the call.
        weights: Files of weights that the run begins with, by the names of their flags; None for those that it leaves.
        written: Folders and files that it writes, by the names of their flags.

    Raises:
        ValueError: If there is no such device or it is in use, weights or the datalist are damaged, or a folder cannot
            be written to.
        FileNotFoundError: If weights, the datalist or the bundle's folder are missing.
    """
    if not Path(bundle_root).is_dir():
        raise FileNotFoundError(f"--bundle_root: no folder {bundle_root}{_hint(bundle_root)}")
    check_device(device)
    if datalist:
        if not Path(datalist).is_file():
            raise FileNotFoundError(f"{datalist}: no such datalist{_hint(datalist)}; give --datalist FILE")
        read_datalist(datalist)
    for flag, path in (weights or {}).items():
        if path:
            if not Path(path).is_file():
                raise FileNotFoundError(f"--{flag}: no weights at {path}{_hint(str(path))}")
            load_state(path)
    for flag, path in (written or {}).items():
        _check_writable(flag, Path(path))


def check_device(device: str | torch.device) -> None:
    """Refuse a device that is not here, or that somebody else uses.

    Raises:
        ValueError: With one line that says which of the two.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        first = str(error).splitlines()[0].split(". ")[0]
        if isinstance(error, torch.OutOfMemoryError) or IN_USE.search(first):
            raise ValueError(
                f"device {str(device)!r} is in use ({first}); wait until it is free, or try another --device"
            ) from error
        raise ValueError(f"no device {str(device)!r} here ({first}); try --device cpu") from error


def _check_writable(flag: str, path: Path) -> None:
    """Refuse a folder that cannot be made, or a file that cannot be written, without making it."""
    if path.is_file() and flag.endswith("_path"):  # a run that only reads it writes nowhere
        return
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ValueError(f"--{flag}: {path} cannot be written, since {place} is a file; give another place")
    if hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY:
        raise ValueError(f"--{flag}: {path} cannot be written: Read-only file system at {place}; give another place")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ValueError(f"--{flag}: {path} cannot be written: no permission to write to {place}; give another place")


def _hint(path: str) -> str:
    return " (MONAI reads # in a configuration's text as ::)" if "::" in path else ""


def keep_paths(parser: ConfigParser, given: Mapping[str, Any]) -> None:
    """Let paths arrive as they were given: MONAI reads # in them as ::, and the command line reads 123 as a number.

    Args:
        parser: The configuration that is being evaluated.
        given: Its top-level keys, as files and flags have them.

    Raises:
        ValueError: If what is given for a path is no text.
    """
    for key, value in given.items():
        if key in MANY and isinstance(value, list | tuple):
            if (kept := [_with_hash(one) for one in value]) != list(value):
                parser.ref_resolver.resolved_content[key] = kept
        if not key.endswith(PATHS) or value is None:
            continue
        if not isinstance(value, str | os.PathLike):
            raise ValueError(
                f"--{key}: expected a path, got {value!r} ({type(value).__name__}); write ./NAME for a name that looks "
                "like a number, a list or a word of Python"
            )
        typed = typed_value(key) if runs_in_shell() else None
        if typed is not None and "#" in typed and "#" not in str(value):  # what follows is a comment in Python
            raise ValueError(f"--{key}: {typed!r} arrived as {value!r}; write ./{typed}")
        if "#" in str(value) and not str(value).startswith(("$", "@", "%")):
            parser.ref_resolver.resolved_content[key] = str(value)


def _with_hash(one: Any) -> Any:
    """A path of a list, whose texts MONAI has changed in place, as it was if there is such a file."""
    if not isinstance(one, str) or Path(one).exists():
        return one
    meant = one.replace("::", "#")
    return meant if Path(meant).exists() else one
