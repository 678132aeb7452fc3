"""`run`: a bundle with its overlays, every key checked before anything begins."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigWorkflow

from trct_monai.bundles.errors import lines_in_log, one_line
from trct_monai.bundles.find import bundle_folder, overlay_file, shipped_weights
from trct_monai.bundles.keys import OF_COMMAND, check_keys, check_overlay_keys, check_value, merged_config
from trct_monai.bundles.overlays import INFERENCE, TRAIN, bases, check_overlays, read_overlay
from trct_monai.bundles.paths import LISTS, TEXTS, holds_path, kept

TASKS = {"training": TRAIN, "inference": INFERENCE}
"""What a bundle does, and the file for it."""

WEIGHTS = "ckpt_path"
"""Key of the weights."""

OF_WORKFLOW = ("tracking", "logging_file", "meta_file", "run_id", "init_id", "final_id")
"""Flags that are MONAI's `ConfigWorkflow`'s, not the configuration's."""

EVALUATE = "evaluate"
"""The overlay of train.json that reads weights."""


def run(bundle: str, task: str = "", /, **keys: str) -> None:
    """Train a bundle, or run its inference, as `python -m monai.bundle run` does, with every key checked first.

    It works from any folder. A key of the configuration is a flag, such as --epochs 3 or --train::trainer::epoch_length
    3; one that it does not have is refused with the one that was meant. Overlays are found in the bundle's configs and
    in bundles/common, and are refused in a wrong order.

    Inference takes the weights of --ckpt_path; else those of your own training, models/model.pt in the bundle's folder;
    else those that come with the bundle for these overlays.

    Args:
        bundle: BUNDLE[+OVERLAY...], such as any_view+small: a bundle by its name or folder, and overlays in order.
        task: training or inference; if it is left out, what the overlays are for, and inference if they are for both.
        keys: Values of the configuration's keys.

    Raises:
        ValueError: If there is no such bundle, overlay or key, or what it runs refuses its input.
    """
    root, names = bundle_folder(bundle)
    base, files = find_files(root, names, task)
    check_overlays(files)
    check_overlay_keys(files)
    config = merged_config(map(str, files))
    _refuse_monais_flags(keys, config)
    check_keys(keys, config, OF_WORKFLOW)
    for key, typed in keys.items():
        if holds_path(key) and not typed:
            raise ValueError(f"--{key} is empty; give a path")
        check_value(key, _value(key, typed), config.get(key))
    values = {"bundle_root": str(root.resolve()), **{key: _value(key, typed) for key, typed in keys.items()}}
    given = WEIGHTS in values or any(WEIGHTS in read_overlay(path) for path in files[1:])
    loads = values.get("load_pretrain", config.get("load_pretrain", True))
    if not given and loads and (base == INFERENCE or EVALUATE in names):
        values |= _own_or_shipped(root, names)
    if os.environ.get("RANK", "0") == "0":
        print(f"run: {root.resolve().name} with {', '.join(path.name for path in files)}", flush=True)
    try:
        with lines_in_log():
            kind = "train" if base == TRAIN else "infer"
            given_keys = {key: kept(value) for key, value in values.items()}
            workflow = ConfigWorkflow([str(path) for path in files], workflow_type=kind, **given_keys)
            workflow.initialize()
            workflow.run()
            workflow.finalize()
    except ImportError as error:
        hint = (
            "; install its module, or name the folder in PYTHONPATH" if isinstance(error, ModuleNotFoundError) else ""
        )
        raise ValueError(f"{error}{hint}") from error
    except (RuntimeError, ValueError, OSError) as error:
        text = one_line(error)
        if text is None:
            raise
        raise ValueError(text) from error


def find_files(root: Path, overlays: list[str], task: str = "") -> tuple[str, list[Path]]:
    """The bundle's own file for a task, and the files of overlays after it.

    Args:
        root: The bundle's folder.
        overlays: Names of overlays, in its configs, or in bundles/common.
        task: One of `TASKS`; if empty, what the overlays are for, and inference where they are for both.

    Returns:
        `TRAIN` or `INFERENCE`, and the files.

    Raises:
        ValueError: If there is no such overlay, or it is for another task.
    """
    if task and task not in TASKS:
        raise ValueError(f"a bundle runs {' or '.join(TASKS)}, got {task!r}")
    files = [overlay_file(root, name) for name in overlays]
    wanted = {TASKS[task]} if task else {TRAIN, INFERENCE}
    for path in files:
        if not wanted & bases(path):
            raise ValueError(f"{path.name} goes after {' or '.join(bases(path))}.json, this is {' and '.join(wanted)}")
        wanted &= bases(path)
    base = INFERENCE if INFERENCE in wanted else TRAIN
    return base, [root / "configs" / f"{base}.json", *files]


def _refuse_monais_flags(keys: Iterable[str], config: Mapping[str, Any]) -> None:
    """Refuse flags of MONAI's command that have no meaning here, such as --args_file."""
    for key in keys:
        if key in OF_COMMAND and key not in config and key not in OF_WORKFLOW:
            raise ValueError(
                f"--{key} is a flag of python -m monai.bundle run, not of this command, which takes "
                "BUNDLE[+OVERLAY...] and the keys of the configuration as --key value"
            )


def _value(key: str, typed: str) -> Any:
    """What was typed for a key: a path as it is, another value as MONAI's command reads it."""
    words = {"none": None, "null": None, "true": True, "false": False}
    if typed.lower() in words:
        return words[typed.lower()]
    if holds_path(key) or key in TEXTS or (key in LISTS and not typed.startswith(("[", "("))):
        return typed
    value = DefaultParseValue(typed)
    return list(value) if isinstance(value, tuple) else value


def _own_or_shipped(root: Path, names: list[str]) -> Mapping[str, Any]:
    """The weights of the user's own training, else those that come with the bundle; without any where they would be."""
    shipped = shipped_weights(root, names)
    own = root / "models" / "model.pt"
    chosen = own if own.is_file() or not shipped.is_file() else shipped
    if chosen.is_file():
        print(f"weights: {chosen}", flush=True)
    return {WEIGHTS: str(chosen.resolve())}
