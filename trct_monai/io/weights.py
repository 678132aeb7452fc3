"""Weights: read with `weights_only=True`, verified by their checksum, and shipped in half precision."""

import fnmatch
import hashlib
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from struct import error as StructError
from typing import Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile, ZipInfo

import torch
from torch import Tensor, nn

from trct_monai.io.eight_bits import from_eight_bits, to_eight_bits
from trct_monai.io.files import read_text, replacing, write_bytes, write_text
from trct_monai.io.limits import check_bytes
from trct_monai.io.provenance import digest_file


def require_checkpoint(
    path: str | os.PathLike[str], network: nn.Module | None = None, *, load_pretrain: bool = True
) -> None:
    """Say how to get a model where there is none, and what is wrong with one that is damaged or another network's.

    Args:
        path: Its weights: a flat state dict.
        network: The network that they must belong to; they are loaded into it.
        load_pretrain: False if no weights are wanted: then nothing is required.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not the file that `CHECKSUMS` beside it lists; with a network also if it is damaged, or
            belongs to another network.
    """
    if not load_pretrain:
        return
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no trained model at {path}: train the bundle first, pass --ckpt_path FILE (of a refiner --refiner_path), "
            "or see the bundle's docs/README.md for the weights that come with it"
        )
    verify_checksum(path)
    if network is not None:
        _fill(network, path)


LFS_POINTER = b"version https://git-lfs"

WRAPPED = "module."
"""What the names of a wrapped network's tensors begin with."""

CHECKSUMS = "SHA256SUMS"
"""Beside weights that ship: their SHA-256, as ``sha256sum`` writes and checks them."""


def verify_checksum(path: str | os.PathLike[str]) -> None:
    """Refuse a damaged or exchanged file, where `CHECKSUMS` beside it lists it.

    Raises:
        ValueError: If the file is another.
    """
    path = Path(path)
    sums = path.with_name(CHECKSUMS)
    listed = _listed(sums)
    if path.name in listed and digest_file(path) != listed[path.name]:
        raise ValueError(
            f"{path} is not the file that {sums} lists: it is damaged, still a Git LFS pointer, or was trained anew; "
            "fetch it again, or remove its line"
        )


def load_frozen(
    network: nn.Module,
    path: str | os.PathLike[str],
    device: str | torch.device = "cpu",
    *,
    load_pretrain: bool = True,
) -> nn.Module:
    """A network with its weights, in evaluation mode, that no training changes.

    Args:
        network: The network.
        path: Its weights: a flat state dict.
        device: Where it shall be.
        load_pretrain: False leaves the weights that it has.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the weights belong to another network.
    """
    require_checkpoint(path, network, load_pretrain=load_pretrain)
    return network.to(device).eval().requires_grad_(False)


def refiner_beside(path: str | os.PathLike[str]) -> str:
    """Where the weights of a refiner lie: in the folder refiner beside those of the network."""
    return str(Path(path).parent / "refiner" / "model.pt")


def _fill(network: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load weights into a network.

    Raises:
        ValueError: If they are damaged, or belong to another network.
    """
    state = load_state(path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        own = set(network.state_dict())
        lacking, others = sorted(own - set(state)), sorted(set(state) - own)
        reason = " ".join(str(error).split())[:200]
        if lacking or others:
            reason = f"it lacks {_counted(lacking)} of {len(own)} tensors and has {_counted(others)} others"
        raise ValueError(
            f"{path} does not hold the weights of this {type(network).__name__}: {reason}; give those of this bundle, "
            "with the overlays and sizes that they were trained with"
        ) from error


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)} (such as {names[0]})" if names else "none"


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Tensors and numbers of a checkpoint, on the CPU; loaded with `weights_only=True`, so that no code of it runs.

    Tensors in half precision or in eight bits, as `ship_weights` writes them, come back as float32; those within the
    parts of a checkpoint to resume from stay as they are.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint, holds objects other than tensors and numbers, unpacks to more than
            the memory takes, was saved from a DataParallel wrapper, or is listed in `CHECKSUMS` with another digest.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    verify_checksum(path)
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the weights; run git lfs pull")
    try:
        with ZipFile(path) as archive:
            check_bytes(sum(record.file_size for record in archive.infolist()), f"{path}: its tensors")
    except (BadZipFile, OSError, RuntimeError, NotImplementedError, UnicodeDecodeError, StructError):
        pass  # an older kind of checkpoint, or a damaged one, which PyTorch tells apart
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of storages of an older kind
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged file PyTorch raises any
        if found := re.search(r"(?:GLOBAL|class|function) ([a-zA-Z_]\w*(?:\.\w+)+)", str(error)):
            raise ValueError(
                f"{path}: expected tensors by their names, got the Python object {found[1]}, which may run code and is "
                "not loaded; ask for the network's state dict"
            ) from error
        first = (str(error).splitlines() or [""])[0].split(". ")[0][:200]
        reason = first if isinstance(error, OSError | RuntimeError) else ""
        raise ValueError(
            f"{path}: not weights that can be read ({reason or 'no file of PyTorch'}); fetch or write the file again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"{path}: not weights by their names, but {type(state).__name__}")
    if state and all(name.startswith(WRAPPED) for name in state):
        raise ValueError(
            f"{path}: every name begins with {WRAPPED!r}, as those of a DataParallel or DistributedDataParallel "
            "wrapper do; save the network inside: torch.save(wrapper.module.state_dict(), FILE)"
        )
    state = from_eight_bits(state)
    return {name: value.float() if _is_half(value) else value for name, value in state.items()}


def _is_half(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; folders are made if need be.

    Raises:
        WriteError: If the disk takes no more.
    """
    with replacing(path) as partial, open(partial, "wb") as file:  # given a name, PyTorch would write it into the file
        torch.save(dict(state), file)


def ship_weights(
    source: str | os.PathLike[str], target: str | os.PathLike[str], eight_bits: Sequence[str] = ()
) -> None:
    """Write weights as they come with a bundle: in half precision, compressed, and listed in `CHECKSUMS` beside them.

    Floating-point numbers are rounded to float16: by 0.05 % at most, below 6e-5 by 3e-8 at most. Integers and flags
    stay as they are. `torch.load` reads the file (not with `mmap=True`); `load_state` and networks have float32 again.
    The same weights give the same bytes. Intervals know their network by its digest, so fit them to the rounded
    weights: first ship those, then fit, then ship the intervals.

    Args:
        source: The weights: a flat state dict.
        target: The file to write; it may be the same.
        eight_bits: Names of tensors that are written in eight bits, with a scale for each entry of their first axis;
            ``*`` stands for any part of a name, and those with one axis alone are left as they are. Networks from
            radiographs to CTs and `SliceUNet` take both forms. Measure what it costs.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If no tensor has such a name.
        ValueError: If a number is too large for float16 (65504), or not finite; or if the file is a checkpoint to
            resume from, with an optimiser.
    """
    source, target = Path(source), Path(target)
    state = {name: _to_half(value, f"{source}: {name}") for name, value in load_state(source).items()}
    for pattern in eight_bits:
        if not (names := fnmatch.filter(state, pattern)):
            raise KeyError(f"{source}: no tensor {pattern!r}")
        for name in names:
            if state[name].ndim > 1 and state[name].is_floating_point():
                state |= to_eight_bits(name, state[name].float())
    write_bytes(target, _compressed(state))
    sums = target.with_name(CHECKSUMS)
    listed = _listed(sums) | {target.name: digest_file(target)}
    write_text(sums, "".join(f"{digest}  {name}\n" for name, digest in listed.items()))


def _listed(sums: Path) -> dict[str, str]:
    """The digests that a file of checksums lists, by the names of the files, as text or as binary ones."""
    lines = [line.split(maxsplit=1) for line in (read_text(sums).splitlines() if sums.is_file() else [])]
    return {name.lstrip("*"): digest for digest, name in (line for line in lines if len(line) == 2)}


def _to_half(value: Any, name: str) -> Any:
    if isinstance(value, Mapping):
        raise ValueError(f"{name} is a part of a checkpoint to resume from, not weights; give the model's file")
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    half = value.half()
    if not half.isfinite().all():
        raise ValueError(f"{name} has numbers that are not finite in float16, whose largest is 65504")
    return half


def _compressed(state: Mapping[str, Any]) -> bytes:
    """What `torch.save` writes, a ZIP archive, with its records deflated and without dates."""
    stored, deflated = BytesIO(), BytesIO()
    torch.save(state, stored)
    with ZipFile(stored) as source, ZipFile(deflated, "w") as target:
        for record in source.infolist():
            target.writestr(ZipInfo(record.filename), source.read(record), ZIP_DEFLATED, compresslevel=9)
    return deflated.getvalue()


def digest_state(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, shapes and numbers of a state dict, whatever the device: one network, one digest."""
    digest = hashlib.sha256()
    for name in sorted(state):
        numbers = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(numbers.shape)} {numbers.dtype}".encode())
        digest.update(
            numbers.view(torch.uint8).numpy().tobytes() if numbers.ndim else bytes(str(numbers.item()), "ascii")
        )
    return digest.hexdigest()
