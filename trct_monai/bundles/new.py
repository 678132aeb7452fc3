"""`new_bundle`: the folder of a new method, from one file that says what is its own."""

import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trct_monai.bundles.find import bundle_folder
from trct_monai.bundles.keys import OF_OVERLAYS, check_keys, merged_config, references
from trct_monai.bundles.layout import layout
from trct_monai.bundles.overlays import INFERENCE, TRAIN, read_overlay
from trct_monai.io.files import read_json, replacing_folder, write_json, write_text

NETWORK = "network_def"

REFERENCE = "say which paper it comes from"

README = """\
# {name}

## Overview

What the method does, and what it takes.

## Performance

The command, the hardware, the hours, the score and what it does not show.

## References

- {reference}

## License

[Apache License 2.0](../LICENSE); of the data, [data_license.txt](data_license.txt).
"""


DATA_LICENSE = """\
PhantomThorax: digital thorax phantoms, computed from seeds by trct_monai (Apache License 2.0). No patient data, no
download. Radiographs and labels made by `python -m trct_monai phantoms` carry no licence of a third party.

Data of your own keeps its own licence and asks for its own attribution: name it here if weights that come along have
seen it.
"""


def new_bundle(config: str, output: str, like: str = "direct_regression") -> None:
    """Make the folder of a new method, from one JSON with what is its own: its network, its numbers, its loss.

    The rest is that of another bundle: train.json and inference.json with these keys in their places, metadata.json,
    licences, and a README to fill in. Numbers that only what it replaces had are left out.

    Args:
        config: A JSON file with the keys of train.json that are the method's own; network_def must be among them.
        output: The folder, whose name is that of the bundle.
        like: The bundle that has the rest, by its name or folder.

    Raises:
        ValueError: If there is no such bundle, the file has no network, or the folder is there already.
    """
    target, (root, overlays) = Path(output), bundle_folder(like)
    own = {key: value for key, value in read_overlay(Path(config)).items() if key not in OF_OVERLAYS}
    if overlays:
        raise ValueError(f"--like takes a bundle without overlays, got {like!r}")
    if NETWORK not in own:
        raise ValueError(f'{config}: no {NETWORK}; give the network as "{NETWORK}": {{"_target_": "...", ...}}')
    nested = [key for key in own if "::" in key or key.startswith("+")]
    if nested:
        raise ValueError(f"{config}: {nested[0]}: give the whole key, or put this into an overlay of the new bundle")
    theirs = merged_config([str(root / "configs" / f"{part}.json") for part in (INFERENCE, TRAIN)])
    check_keys([key for key in own if key not in references(own)], theirs, ())
    if target.exists():
        raise ValueError(f"{target} is there already; give --output a new folder")
    name, configs = target.resolve().name, root / "configs"
    known = read_json(configs / "train.json").get("bundle_root")
    old = known["name"] if isinstance(known, dict) and "name" in known else root.resolve().name
    with replacing_folder(target) as folder:
        for part in ("configs", "docs"):
            (folder / part).mkdir()
        for part in (TRAIN, INFERENCE):
            base = merged_config([str(configs / f"{part}.json")])
            content = merged(base, own if part == TRAIN else needed(own, base))
            write_text(folder / "configs" / f"{part}.json", layout(renamed(content, old, name)))
        write_json(folder / "configs" / "metadata.json", _metadata(root, name, own), indent=4)
        for file in ("configs/logging.conf", "LICENSE"):
            shutil.copyfile(root / file, folder / file)
        write_text(folder / "docs" / "data_license.txt", DATA_LICENSE)
        write_text(folder / "docs" / "README.md", README.format(name=name, reference=REFERENCE))
    print(
        f"wrote {target}; next: python -m trct_monai run {shlex.quote(str(target))} training --datalist DATALIST.json"
    )


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with the keys of a new method, without the numbers that only what it replaces had.

    The method's numbers stand where those of the old network stood.

    Raises:
        ValueError: If it refers to a key that is not there.
    """
    whole = {**base, **own}
    replaced = {one.split("::")[0] for key in own if key in base for one in references(base[key])}
    used = {one.split("::")[0] for one in references(whole)}
    gone = {key for key in replaced - used - set(own) if not isinstance(base.get(key), Mapping)}
    new = {key: value for key, value in own.items() if key not in base}
    result: dict[str, Any] = {}
    for key in base:
        if key == NETWORK:
            result |= new
        if key not in gone:
            result[key] = whole[key]
    missing = {one.split("::")[0] for one in references(result)} - set(result)
    if missing:
        raise ValueError(f"nothing is called {', '.join(sorted(missing))}, which the new bundle refers to")
    return result


def needed(own: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Of a method's keys those of its inference: the numbers that both have, and what its network is made of."""
    wanted = {NETWORK, *(key for key in own if key in base and _plain(base[key]) and _plain(own[key]))}
    while more := {one.split("::")[0] for key in wanted for one in references(own.get(key))} & set(own) - wanted:
        wanted |= more
    return {key: value for key, value in own.items() if key in wanted}


def _plain(value: Any) -> bool:
    """Whether a value is a number, a text or a list of such."""
    if isinstance(value, list):
        return all(_plain(one) for one in value)
    return not isinstance(value, Mapping) and not (isinstance(value, str) and value.startswith("$"))


def renamed(value: Any, old: str, name: str) -> Any:
    """A configuration that is called by a new name, wherever it is called by the old one."""
    if isinstance(value, Mapping):
        return {key: renamed(one, old, name) for key, one in value.items()}
    if isinstance(value, list):
        return [renamed(one, old, name) for one in value]
    return re.sub(rf"^{re.escape(old)}\b", name, value) if isinstance(value, str) else value


def _metadata(root: Path, name: str, own: Mapping[str, Any]) -> dict[str, Any]:
    """The other bundle's metadata under the new name, with the sizes of the new one."""
    metadata: dict[str, Any] = read_json(root / "configs" / "metadata.json")
    version = "0.1.0"
    metadata |= {"name": name, "description": f"{name}: say in one sentence what it does", "version": version}
    metadata |= {"changelog": {version: "first version"}, "references": [REFERENCE]}
    metadata |= {"authors": "say who made it", "copyright": "say whose it is"}
    metadata["task"] = "say what it is for"
    formats = metadata["network_data_format"]
    for key, place in (("radiograph_size", formats["inputs"]["image"]), ("volume_size", formats["outputs"]["pred"])):
        if key in own:
            place["spatial_shape"] = [own[key]] * len(place["spatial_shape"])
    return metadata
