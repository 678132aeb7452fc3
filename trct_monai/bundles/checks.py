"""What a configuration checks before it runs: a device, data and weights to read, folders to write to."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from trct_monai.bundles.keys import check_keys, check_overlay_keys, merged_config
from trct_monai.bundles.overlays import check_overlays
from trct_monai.bundles.paths import check_path, check_typed_paths
from trct_monai.bundles.shell import typed_command, typed_config, typed_flags
from trct_monai.io.datalist import read_datalist
from trct_monai.io.weights import load_state

Given = Any
"""What was given for a path, whatever it is: it is refused here if it is none."""

IN_USE = re.compile("out of memory|busy or unavailable")
"""What CUDA says of a device that other processes have filled, or have for themselves."""


def check_training(
    bundle_root: Given,
    device: str | torch.device,
    datalist: Given = None,
    *,
    output_dir: Given,
    ckpt_path: Given,
    resume_path: Given,
    resume: bool = False,
    start_path: Given = None,
    rank: int = 0,
    refused: None = None,
) -> None:
    """Refuse with one line, before a training runs, what it could not read or write; see `check_run`.

    Args:
        bundle_root: The bundle's folder.
        device: Where the networks shall be.
        datalist: The data, if they are given.
        output_dir: Folder that it writes.
        ckpt_path: File of the best weights.
        resume_path: File of the checkpoint.
        resume: Whether it goes on from that.
        start_path: Weights that a new training begins with.
        rank: Number of this process; the first alone reads the weights.
        refused: See `check_run`.
    """
    begins = {} if rank else {"resume_path": resume_path} if resume else {"start_path": start_path}
    written = {"output_dir": output_dir, "ckpt_path": ckpt_path, "resume_path": resume_path}
    check_run(bundle_root, device, datalist, refused=refused, weights=begins, written=written)


def check_inference(
    bundle_root: Given,
    device: str | torch.device,
    datalist: Given = None,
    *,
    output_dir: Given,
    ckpt_path: Given = None,
) -> None:
    """Refuse with one line, before an inference runs, what it could not read or write; see `check_run`.

    Args:
        bundle_root: The bundle's folder.
        device: Where the network shall be.
        datalist: The data, if they are given.
        output_dir: Folder that it writes.
        ckpt_path: File of the weights; `trct_monai.io.require_checkpoint` looks into it.

    Raises:
        ValueError: As `check_run`.
        FileNotFoundError: As `check_run`.
    """
    check_path("ckpt_path", ckpt_path)
    check_run(bundle_root, device, datalist, written={"output_dir": output_dir})


def check_run(
    bundle_root: Given,
    device: str | torch.device,
    datalist: Given = None,
    *,
    refused: None = None,
    weights: Mapping[str, Given] | None = None,
    written: Mapping[str, Given] | None = None,
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
        ValueError: If there is no such device or it is in use, weights or the datalist are damaged, what is given for
            a path is none, or a folder cannot be written to.
        FileNotFoundError: If weights, the datalist or the bundle's folder are missing.
    """
    check_typed()
    check_path("bundle_root", bundle_root)
    if not Path(bundle_root).is_dir():
        raise FileNotFoundError(f"--bundle_root: no folder {bundle_root}")
    for flag, place in {"datalist": datalist, **(weights or {}), **(written or {})}.items():
        check_path(flag, place)
    for flag, place in (written or {}).items():
        if place is None:
            raise ValueError(f"--{flag}: expected a path, got None")
    check_device(device)
    if datalist:
        if not Path(datalist).is_file():
            raise FileNotFoundError(f"{datalist}: no such datalist; give --datalist FILE")
        read_datalist(datalist)
    for flag, path in (weights or {}).items():
        if path:
            if not Path(path).is_file():
                raise FileNotFoundError(f"--{flag}: no weights at {path}")
            load_state(path)
    for flag, path in (written or {}).items():
        _check_writable(flag, Path(path))


def check_typed() -> None:
    """Refuse what `python -m monai.bundle run` was given and would take in silence.

    Flags that the configuration has not, keys of overlays that change nothing, overlays in a wrong order, paths that
    MONAI changes. From Python MONAI's functions take what they are given.

    Raises:
        ValueError: With one line that says what is wrong, and what was meant.
    """
    files = typed_config()
    if typed_command() != "run" or not files or not all(file.is_file() for file in files):
        return
    check_overlays(files)
    check_overlay_keys(files)
    check_keys(typed_flags(), merged_config(map(str, files)))
    check_typed_paths(typed_flags())


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
    if path.is_dir() and flag.endswith("_path"):
        raise ValueError(f"--{flag}: {path} is a folder; give a file")
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
