"""Where a bundle is, and which of its files make a method."""

import difflib
import inspect
import re
from collections.abc import Iterable
from pathlib import Path

import monai.bundle
from monai.bundle import ConfigParser, ConfigWorkflow

from trct_monai.bundles.checks import keep_paths
from trct_monai.bundles.errors import show_one_line
from trct_monai.io.files import read_text

show_one_line()  # every configuration imports this file before anything of it runs


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
        ValueError: If no bundle is found there, or `monai.bundle run` was given a flag that no configuration has, or
            for a path what is none.
    """
    here = Path(__file__).resolve().parent
    # Beside the library is the bundle that it was exported with, or a source checkout's bundles; a wheel has them here.
    own = [folder for folder in (Path.cwd(), here.parents[1]) if _is_bundle(folder, name)]
    candidates = [*own, here.parents[1] / "bundles" / name, here / name]
    frame, workflow = inspect.currentframe(), None
    while frame is not None:
        if workflow is None and isinstance(frame.f_locals.get("self"), ConfigWorkflow):
            workflow = frame.f_locals["self"]
            candidates.insert(0, Path(workflow.config_root_path).resolve().parent)
        if frame.f_code is monai.bundle.run.__code__ and frame.f_locals["config_file"] is not None:
            flags, known = frame.f_locals["override"], ConfigParser.load_config_files(frame.f_locals["config_file"])
            _refuse_unknown(flags, known)
            if workflow is not None:
                keep_paths(workflow.parser, {**known, **flags})
        frame = frame.f_back
    for candidate in candidates:
        if (candidate / "configs" / "metadata.json").is_file():
            return str(candidate)
    raise ValueError(f"found no bundle {name!r} at {', '.join(map(str, candidates))}; pass --bundle_root FOLDER")


def _is_bundle(folder: Path, name: str) -> bool:
    """Whether a folder is the bundle of this name, whatever the folder is called."""
    config = folder / "configs" / "inference.json"
    return config.is_file() and f"find_bundle('{name}')" in read_text(config)


def _refuse_unknown(flags: Iterable[str], keys: Iterable[str]) -> None:
    known = {*keys, *inspect.signature(ConfigWorkflow).parameters}
    for flag in flags:
        key = re.split("::|#", flag)[0]
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean --{close[0]}?" if close else "its top-level keys are the flags"
            raise ValueError(f"the configuration has no --{key}; {meant}")


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
