"""Where the running bundle lies, so that its commands work from any folder."""

import inspect
from pathlib import Path

import torch
from monai.bundle import ConfigWorkflow
from torch import nn


def find_bundle(name: str) -> str:
    """The folder of the bundle whose configuration is being evaluated.

    That is the folder above the `configs` that MONAI's workflow was started with; without a workflow (`ckpt_export`
    and its kin) the working directory if it is a bundle, else `bundles/NAME` of the source checkout.

    Args:
        name: Name of the bundle's folder.

    Raises:
        ValueError: If no bundle is found there.
    """
    candidates = [Path.cwd(), Path(__file__).resolve().parents[1] / "bundles" / name]
    frame = inspect.currentframe()
    while frame is not None:
        workflow = frame.f_locals.get("self")
        if isinstance(workflow, ConfigWorkflow):
            candidates.insert(0, Path(workflow.config_root_path).resolve().parent)
            break
        frame = frame.f_back
    for candidate in candidates:
        if (candidate / "configs" / "metadata.json").is_file():
            return str(candidate)
    raise ValueError(f"found no bundle {name!r} at {', '.join(map(str, candidates))}; pass --bundle_root FOLDER")


def require_checkpoint(path: str) -> None:
    """Say how to get a model where there is none.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"no trained model at {path}: train the bundle first, pass --ckpt_path FILE, or see the bundle's "
            "docs/README.md for the weights that come with it"
        )


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
    except RuntimeError as error:
        first = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of this {type(network).__name__}: {first}") from error
    return network.to(device).eval().requires_grad_(False)
