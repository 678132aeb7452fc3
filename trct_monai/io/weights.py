"""Weights: read with `weights_only=True`, verified by their checksum."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from trct_monai.io.files import read_text, replacing
from trct_monai.io.provenance import digest_file


def require_checkpoint(path: str | os.PathLike[str]) -> None:
    """Say how to get a model where there is none.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not the file that `CHECKSUMS` beside it lists.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no trained model at {path}: train the bundle first, pass --ckpt_path FILE, or see the bundle's "
            "docs/README.md for the weights that come with it"
        )
    verify_checksum(path)


LFS_POINTER = b"version https://git-lfs"

CHECKSUMS = "SHA256SUMS"
"""Beside weights that ship: their SHA-256, as ``sha256sum`` writes and checks them."""


def verify_checksum(path: str | os.PathLike[str]) -> None:
    """Refuse a damaged or exchanged file, where `CHECKSUMS` beside it lists it.

    Raises:
        ValueError: If the file is another.
    """
    path = Path(path)
    sums = path.with_name(CHECKSUMS)
    lines = read_text(sums).split("\n") if sums.is_file() else []
    listed = {name.lstrip("*"): digest for digest, _, name in (line.partition("  ") for line in lines)}
    if path.name in listed and digest_file(path) != listed[path.name]:
        raise ValueError(
            f"{path} is not the file that {sums} lists: it is damaged, still a Git LFS pointer, or was trained anew; "
            "fetch it again, or remove its line"
        )


def load_frozen(network: nn.Module, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> nn.Module:
    """A network with its weights, in evaluation mode, that no training changes.

    Args:
        network: The network.
        path: Its weights: a flat state dict.
        device: Where it shall be.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the weights belong to another network.
    """
    require_checkpoint(path)
    state = load_state(path)
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of this {type(network).__name__}: {first}") from error
    return network.to(device).eval().requires_grad_(False)


def load_state(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Tensors and numbers of a checkpoint, on the CPU; loaded with `weights_only=True`, so that no code of it runs.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint, or listed in `CHECKSUMS` with another digest.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file of weights")
    verify_checksum(path)
    with open(path, "rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the weights; run git lfs pull")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, TypeError, KeyError, UnpicklingError) as error:
        first = (str(error).splitlines() or ["empty"])[0][:200]
        raise ValueError(f"{path}: not weights that can be read ({first})") from error
    return state


def save_state(path: str | os.PathLike[str], state: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all; folders are made if need be."""
    with replacing(path) as partial:
        torch.save(dict(state), partial)


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
