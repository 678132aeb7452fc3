"""Where the running bundle lies, so that its commands work from any folder."""

import difflib
import hashlib
import inspect
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import monai.bundle
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from torch import nn


def find_bundle(name: str) -> str:
    """The folder of the bundle whose configuration is being evaluated.

    That is the folder above the `configs` that MONAI's workflow was started with; without a workflow (`ckpt_export`
    and its kin) the working directory if it is that bundle, else `bundles/NAME` of the source checkout or of the
    installed package.

    Every configuration asks for it early, so a mistyped flag is refused here too: `monai.bundle run` takes any name,
    and what it was meant to change stays as it was.

    Args:
        name: Name of the bundle's folder.

    Raises:
        ValueError: If no bundle is found there, or `monai.bundle run` was given a flag that no configuration has.
    """
    here = Path(__file__).resolve()
    # Beside the library lies the bundle that it was exported with, a source checkout's bundles, or a wheel's.
    own = [folder for folder in (Path.cwd(), here.parents[1]) if _is_bundle(folder, name)]
    candidates = [*own, here.parents[1] / "bundles" / name, here.parent / "bundles" / name]
    frame, workflow = inspect.currentframe(), None
    while frame is not None:
        if workflow is None and isinstance(frame.f_locals.get("self"), ConfigWorkflow):
            workflow = frame.f_locals["self"]
            candidates.insert(0, Path(workflow.config_root_path).resolve().parent)
        if frame.f_code is monai.bundle.run.__code__:
            _refuse_unknown(frame.f_locals["override"], frame.f_locals["config_file"])
        frame = frame.f_back
    for candidate in candidates:
        if (candidate / "configs" / "metadata.json").is_file():
            return str(candidate)
    raise ValueError(f"found no bundle {name!r} at {', '.join(map(str, candidates))}; pass --bundle_root FOLDER")


def _is_bundle(folder: Path, name: str) -> bool:
    """Whether a folder is the bundle of this name, whatever the folder is called."""
    config = folder / "configs" / "inference.json"
    return config.is_file() and f"find_bundle('{name}')" in config.read_text(encoding="utf-8")


def _refuse_unknown(flags: Iterable[str], config_files: str | Sequence[str] | None) -> None:
    if config_files is None:
        return
    known = {*ConfigParser.load_config_files(config_files), *inspect.signature(ConfigWorkflow).parameters}
    for flag in flags:
        key = re.split("::|#", flag)[0]
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean --{close[0]}?" if close else "its top-level keys are the flags"
            raise ValueError(f"the configuration has no --{key}; {meant}")


def require_checkpoint(path: str) -> None:
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


CHECKSUMS = "SHA256SUMS"
"""Beside weights that ship: their SHA-256, as ``sha256sum`` writes and checks them."""


def verify_checksum(path: str | os.PathLike[str]) -> None:
    """Refuse a damaged or exchanged file, where `CHECKSUMS` beside it lists it.

    Raises:
        ValueError: If the file is another.
    """
    path = Path(path)
    sums = path.with_name(CHECKSUMS)
    lines = sums.read_text(encoding="utf-8").split("\n") if sums.is_file() else []
    listed = {name.lstrip("*"): digest for digest, _, name in (line.partition("  ") for line in lines)}
    if path.name in listed and hashlib.sha256(path.read_bytes()).hexdigest() != listed[path.name]:
        raise ValueError(
            f"{path} is not the file that {sums} lists: it is damaged, still a Git LFS pointer, or was trained anew; "
            "fetch it again, or remove its line"
        )


def bundle_files(spec: str, checkpoint: str | None = None) -> tuple[str, tuple[list[Path], Path]]:
    """Name, inference configuration files and weights of BUNDLE[+OVERLAY...], such as any_view+small.

    Weights of an overlay lie in models/OVERLAY/, if there is such a folder; else in models/.

    Args:
        spec: The bundle by its name or folder, and overlays in its configs.
        checkpoint: Weights in place of those that come with it.

    Raises:
        ValueError: If a file is missing.
    """
    bundle, *overlays = spec.split("+")
    while overlays and Path(f"{bundle}+{overlays[0]}", "configs").is_dir():  # a folder may have a plus in its name
        bundle = f"{bundle}+{overlays.pop(0)}"
    root = Path(bundle) if Path(bundle, "configs").is_dir() else Path(find_bundle(bundle))
    config = [root / "configs" / f"{part}.json" for part in ("inference", *overlays)]
    place = root / "models"
    for overlay in overlays:  # one that changes the network has weights of its own, another has not
        place = place / overlay if (place / overlay).is_dir() else place
    weights = Path(checkpoint) if checkpoint else place / "model.pt"
    for path in (*config, weights):
        if not path.is_file():
            raise ValueError(f"bundle {spec!r} has no {path}; train it, or give another bundle or overlay")
    return "+".join([root.resolve().name, *overlays]), (config, weights)


def load_frozen(network: nn.Module, path: str, device: str | torch.device = "cpu") -> nn.Module:
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
    try:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, EOFError, TypeError, UnpicklingError) as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of this {type(network).__name__}: {first}") from error
    return network.to(device).eval().requires_grad_(False)
