"""Keys that a configuration is given: MONAI takes any name, and what it was meant to change stays as it was."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow, run

from trct_monai.bundles.overlays import GOES_AFTER, INFERENCE, NOT_WITH, TRAIN, read_overlay

SEPARATOR = re.compile("::|#")

OF_COMPONENTS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
"""Keys that MONAI reads itself."""

OF_OVERLAYS = ("_desc_", GOES_AFTER, NOT_WITH)
"""Keys that overlays have for people, and for `check_overlays`."""

OF_RUNS = ("imports", "initialize", "run", "finalize", "training", "evaluating")
"""Keys that MONAI evaluates itself."""

OF_COMMAND = {*inspect.signature(ConfigWorkflow).parameters, *inspect.signature(run).parameters} - {"override"}
"""Flags of `python -m monai.bundle run` that are no keys of the configuration."""


def check_keys(given: Iterable[str], config: Mapping[str, Any], others: Iterable[str] = OF_COMMAND) -> None:
    """Refuse a key that a configuration does not have, or that what it belongs to does not take.

    Args:
        given: Keys such as ``epochs`` or ``train::trainer::max_epochs``.
        config: The configuration, as `ConfigParser.load_config_files` reads it.
        others: Names that may be given too.

    Raises:
        ValueError: With the key that was meant, as far as one is close.
    """
    for key in given:
        first, *rest = SEPARATOR.split(key)
        if first not in config and first not in others:
            raise ValueError(f"the configuration has no --{key}; {_meant('', first, [*config, *others])}")
        place, above = config.get(first), first
        for part in rest:
            place = _referred(place, config)
            if part.isdigit() and above.endswith("handlers") and "named_handlers" in config.get(first, {}):
                raise ValueError(f"{key}: handlers have names here, such as {first}::named_handlers::clip")
            known = _parts(place)
            if known is not None and part not in known:
                raise ValueError(f"{above} of the configuration has no {part!r}; {_meant(f'{above}::', part, known)}")
            place = place[int(part)] if isinstance(place, list) else (place or {}).get(part)
            above = f"{above}::{part}"


def _referred(place: Any, config: Mapping[str, Any]) -> Any:
    """What a plain reference such as ``@train::preprocessing`` stands for."""
    seen = set()
    while isinstance(place, str) and re.fullmatch(r"@[\w:]+", place) and place not in seen:
        seen.add(place)
        path, place = place[1:].split("::"), config
        for part in path:
            place = place.get(part) if isinstance(place, Mapping) else None
    return place


def _parts(place: Any) -> list[str] | None:
    """What a key may be followed by; None for anything."""
    if isinstance(place, list):
        return [str(number) for number in range(len(place))]
    if not isinstance(place, dict):
        return []
    if "_target_" not in place:
        return list(place)
    return _arguments(str(place["_target_"]), [*place, *OF_COMPONENTS])


def _arguments(target: str, known: list[str]) -> list[str] | None:
    """What a component takes by name; None if it takes any name, or is nowhere to be found."""
    if not target.replace(".", "").replace("_", "").isalnum():  # an expression
        return None
    found = locate(target if "." in target else str(ComponentLocator().get_component_module_name(target)))
    found = getattr(found, target, found) if "." not in target else found
    for one in inspect.getmro(found) if inspect.isclass(found) else [found]:
        if inspect.isclass(one) and "__init__" not in vars(one):
            continue
        try:
            parameters = inspect.signature(one).parameters.values()  # type: ignore[arg-type]
        except (TypeError, ValueError):
            return None
        known = [*known, *(parameter.name for parameter in parameters)]
        if all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            return known
    return None


def _meant(above: str, part: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(part, list(known), n=1)
    if "." in part and not above:
        return f"write --{part.replace('.', '::')}"
    if close:
        return f"did you mean --{above}{close[0]}?"
    return "its top-level keys are the flags" if not above else f"there are {', '.join(dict.fromkeys(known)) or 'none'}"


def check_value(key: str, value: Any, standard: Any) -> None:
    """Refuse a value of another kind than the configuration's, which MONAI would hand on.

    Args:
        key: The key.
        value: What is given for it; expressions and None are left alone.
        standard: What the configuration has.

    Raises:
        ValueError: If a text or a fraction is given for a number, or no truth for a truth.
    """
    if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
        return
    if isinstance(standard, bool) and not isinstance(value, bool):
        raise ValueError(f"--{key} is True or False, got {value!r}")
    if isinstance(standard, int | float) and not isinstance(standard, bool):
        if isinstance(value, str | bool):
            raise ValueError(f"--{key} is a number, such as {standard}, got {value!r}")
        if isinstance(standard, int) and isinstance(value, float):
            raise ValueError(f"--{key} is a whole number, such as {standard}, got {value!r}")
    if isinstance(standard, list) and isinstance(value, str):
        raise ValueError(f"--{key} is a list, such as {standard}, got {value!r}")


def merged_config(files: Iterable[str]) -> dict[str, Any]:
    """The configuration that files make together."""
    config: dict[str, Any] = ConfigParser.load_config_files(list(files))
    return config


def references(value: Any, mark: str = "@") -> set[str]:
    """What a configuration refers to, such as ``train::dataset``; with the mark % what it repeats."""
    if isinstance(value, Mapping):
        return set().union(*(references(one, mark) for key, one in value.items() if key != "_desc_"))
    if isinstance(value, list):
        return set().union(*(references(one, mark) for one in value))
    return set(re.findall(rf"{mark}(\w+(?:::\w+)*)", value.replace("#", "::"))) if isinstance(value, str) else set()


def check_overlay_keys(files: Sequence[Path]) -> None:
    """Refuse keys of overlays that change nothing, and what they refer to and is not there.

    A key of its own must be one that something refers to, or that an overlay beside it has too: another is misspelt, or
    of another release.

    Args:
        files: The configuration's files in their order.

    Raises:
        ValueError: If an overlay has such a key, or belongs to another kind of bundle.
    """
    whole = merged_config(map(str, files))
    used = references(whole) | references(whole, "%")
    firsts = {one.split("::")[0] for one in used}
    missing = {one.split("::")[0] for one in references(whole)} - set(whole) - {"_meta_"}
    if missing:
        names = ", ".join(file.name for file in files)
        raise ValueError(f"{names} do not go together: nothing is called {', '.join(sorted(missing))}")
    siblings = [files[0].with_name(f"{base}.json") for base in (TRAIN, INFERENCE)]
    both = set(merged_config(str(file) for file in siblings if file.is_file()))
    for number, file in enumerate(files[1:], 1):
        before = merged_config(map(str, files[:number]))
        own = [key.removeprefix("+") for key in read_overlay(file) if key not in OF_OVERLAYS]
        below = [key for key in own if "::" in key and not any(f"{one}::".startswith(f"{key}::") for one in used)]
        try:
            check_keys([key for key in own if "::" not in key], before, {*firsts, *both, *OF_RUNS, *_beside(file)})
            check_keys(below, {**whole, **before})
        except ValueError as error:
            text = str(error).replace("the configuration has no --", "the configuration neither has nor refers to ")
            raise ValueError(f"{file}: {text}") from error


def _beside(file: Path) -> set[str]:
    """The keys of the other overlays in a bundle's folder, or in that of common ones, which may be given with it."""
    if file.resolve().parent.name not in ("configs", "common"):
        return set()
    others = [one for one in file.parent.glob("*.json") if one != file and one.stem != "metadata"]
    return {key.removeprefix("+") for one in others for key in read_overlay(one)}
