"""Where a bundle is, and which of its files make a method."""

import difflib
import logging
from pathlib import Path

from trct_monai.bundles.checks import check_typed
from trct_monai.bundles.errors import show_one_line
from trct_monai.bundles.overlays import INFERENCE, TRAIN
from trct_monai.bundles.shell import typed_config
from trct_monai.io.files import read_json, read_text

logger = logging.getLogger(__name__)

HERE = Path(__file__).resolve().parent

NO_OVERLAYS = (TRAIN, INFERENCE, "metadata")
"""A bundle's own files."""

show_one_line()  # every configuration imports this file before anything of it runs


def find_bundle(name: str) -> str:
    """The folder of a bundle, as the value of its configuration's `bundle_root`.

    `--bundle_root FOLDER` takes its place, as in the bundles of MONAI's model zoo. Else it is, for
    `python -m monai.bundle`, the folder above the `configs` of the first file of `--config_file`; for a program that
    reads the configuration it is the working directory if that is this bundle, or the export that the library is part
    of, or, with a warning, the bundle of this name of the source checkout or of the wheel: a program that reads a copy
    of a bundle gives `bundle_root`.

    Args:
        name: Name of the bundle's folder.

    Raises:
        ValueError: If no bundle is found there, or what was typed is refused (`check_typed`).
    """
    check_typed()
    for file in typed_config()[:1]:
        if file.is_file() and file.resolve().parent.name == "configs":
            return str(file.resolve().parents[1])
    for folder in (Path.cwd(), HERE.parents[1]):
        if _is_bundle(folder, name):
            return str(folder)
    found = _named(name)
    logger.warning("bundle_root is %s, by the name of the bundle; give bundle_root if this is a copy of it", found)
    return str(found)


def _named(name: str) -> Path:
    """The bundle of a name that the library brings: that of the source checkout, or of the wheel.

    Raises:
        ValueError: If there is none.
    """
    places = [HERE.parents[1] / "bundles" / name, HERE / name]
    for folder in places:
        if (folder / "configs" / "metadata.json").is_file():
            return folder
    there = sorted({one.parents[1].name for place in places for one in place.parent.glob("*/configs/metadata.json")})
    close = difflib.get_close_matches(name, there, n=1)
    meant = f"did you mean {close[0]}" if close else f"there are {', '.join(there) or 'none'}"
    raise ValueError(
        f"found no bundle {name!r} at {', '.join(map(str, places))}; {meant}, or give its folder (--bundle_root FOLDER)"
    )


def _is_bundle(folder: Path, name: str) -> bool:
    """Whether a folder is the bundle of this name, whatever the folder is called."""
    config = folder / "configs" / "inference.json"
    text = read_text(config) if config.is_file() else ""
    if f"find_bundle('{name}')" in text:  # as 0.1.0 wrote it
        return True
    root = read_json(config).get("bundle_root") if text else None
    return isinstance(root, dict) and root.get("name") == name


def bundle_folder(spec: str) -> tuple[Path, list[str]]:
    """The folder and the overlays' names of BUNDLE[+OVERLAY...].

    Args:
        spec: The bundle by its name or folder, and overlays.

    Raises:
        ValueError: If there is no such bundle.
    """
    bundle, *overlays = spec.split("+")
    while overlays and Path(f"{bundle}+{overlays[0]}", "configs").is_dir():  # a folder may have a plus in its name
        bundle = f"{bundle}+{overlays.pop(0)}"
    return Path(bundle) if Path(bundle, "configs").is_dir() else _named(bundle), overlays


def overlay_file(root: Path, name: str) -> Path:
    """The file of an overlay of a bundle: in its configs, else of those for all bundles.

    Those are beside the bundle, in the source checkout, or in the wheel.

    Args:
        root: The bundle's folder.
        name: The overlay's name, without the ending.

    Raises:
        ValueError: If there is none.
    """
    common = [folder / "common" for folder in (root.resolve().parent, HERE.parents[1] / "bundles", HERE)]
    places = [root / "configs", *common]
    for place in places:
        if (place / f"{name}.json").is_file() and name not in NO_OVERLAYS:
            return place / f"{name}.json"
    there = {path.stem for place in places for path in place.glob("*.json")} - set(NO_OVERLAYS)
    raise ValueError(f"{root.name} has no overlay {name!r}; there are {', '.join(sorted(there))}")


def bundle_files(spec: str, checkpoint: str | None = None) -> tuple[str, tuple[list[Path], Path]]:
    """Name, inference configuration files and weights of BUNDLE[+OVERLAY...], such as any_view+small.

    Weights of an overlay lie in models/OVERLAY/, if there is such a folder; else in models/.

    Args:
        spec: The bundle by its name or folder, and overlays in its configs.
        checkpoint: Weights in place of those that come with it.

    Raises:
        ValueError: If a file is missing.
    """
    root, overlays = bundle_folder(spec)
    config = [root / "configs" / f"{part}.json" for part in (INFERENCE, *overlays)]
    weights = Path(checkpoint) if checkpoint else shipped_weights(root, overlays)
    for path in (*config, weights):
        if not path.is_file():
            raise ValueError(f"bundle {spec!r} has no {path}; train it, or give another bundle or overlay")
    return "+".join([root.resolve().name, *overlays]), (config, weights)


def shipped_weights(root: Path, overlays: list[str]) -> Path:
    """The weights that come with a bundle for these overlays: one that changes the network has its own, others not."""
    place = root / "models"
    for overlay in overlays:
        place = place / overlay if (place / overlay).is_dir() else place
    return place / "model.pt"
