"""Keys that a configuration is given: MONAI takes any name, and what it was meant to change stays as it was."""

import difflib
import inspect
import re
from collections.abc import Iterable, Mapping
from pydoc import locate
from typing import Any

from monai.bundle import ComponentLocator, ConfigParser, ConfigWorkflow, run

SEPARATOR = re.compile("::|#")

OF_COMPONENTS = ("_target_", "_disabled_", "_requires_", "_desc_", "_mode_")
"""Keys that MONAI reads itself."""

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
            known = _parts(place)
            if known is not None and part not in known:
                raise ValueError(f"{above} of the configuration has no {part!r}; {_meant(f'{above}::', part, known)}")
            place = place[int(part)] if isinstance(place, list) else (place or {}).get(part)
            above = f"{above}::{part}"


def _referred(place: Any, config: Mapping[str, Any]) -> Any:
    """What a plain reference such as ``@train::preprocessing`` stands for."""
    while isinstance(place, str) and re.fullmatch(r"@[\w:]+", place):
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
    if close:
        return f"did you mean --{above}{close[0]}?"
    return "its top-level keys are the flags" if not above else f"there are {', '.join(known) or 'none'}"


def known_keys(files: Iterable[str]) -> dict[str, Any]:
    """The configuration that files make together."""
    config: dict[str, Any] = ConfigParser.load_config_files(list(files))
    return config
