"""Paths that a configuration is given: MONAI reads # in them as ::, and a command line reads 123 as a number."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

ENDINGS = ("_path", "_dir", "datalist", "bundle_root")
"""How the names of top-level keys that hold a path end."""

LISTS = ("radiographs", "volumes")
"""Top-level keys that hold a list of paths."""

MAY_BE_EMPTY = ("datalist", "start_path")
"""Keys of which an empty path is none: MONAI's command takes no None."""

TEXTS = ("cts", "held_out")
"""Top-level keys that hold paths or names with commas between them, or one."""


def holds_path(key: str) -> bool:
    """Whether a key of a configuration holds a path."""
    return key.endswith(ENDINGS) and "::" not in key


def check_path(key: str, value: Any) -> None:
    """Refuse what is given for a path and is none, or has arrived as another.

    Args:
        key: The key of the configuration.
        value: What arrived; None is left alone.

    Raises:
        ValueError: If it is no text, or has a ``::`` that MONAI has made of a ``#``.
    """
    if value is None:
        return
    if value == "" and key not in MAY_BE_EMPTY:
        raise ValueError(f"--{key} is empty, which would be the file system's root; give a path")
    if not isinstance(value, str | os.PathLike):
        raise ValueError(
            f"--{key}: expected a path, got {value!r} ({type(value).__name__}); write ./NAME for a name that looks "
            "like a number, a list or a word of Python"
        )
    if "::" in str(value) and not any("::" in one.name and one.exists() for one in (Path(value), *Path(value).parents)):
        raise ValueError(
            f"--{key}: {str(value)!r}: MONAI reads # in a path as ::; give a path without #, or use "
            "python -m trct_monai run, which keeps it"
        )


def check_typed_paths(flags: Mapping[str, str | None]) -> None:
    """Refuse paths that `python -m monai.bundle` reads as something else than what was typed.

    Args:
        flags: What was typed for each flag.

    Raises:
        ValueError: If one is read as a number or a list, or has a ``#``.
    """
    for key, typed in flags.items():
        if typed is None or not (holds_path(key) or key in (*LISTS, *TEXTS)):
            continue
        if holds_path(key):
            check_path(key, DefaultParseValue(typed))
        if "#" in typed and not typed.startswith("$"):
            raise ValueError(
                f"--{key}: {typed!r} does not arrive as it is: MONAI reads # as ::, Python as a comment; give a path "
                "without #, or use python -m trct_monai run, which keeps it"
            )


def kept(value: Any) -> Any:
    """A path, or a list of them, as an expression that MONAI evaluates to exactly that."""
    if isinstance(value, list | tuple):
        return [kept(one) for one in value]
    if isinstance(value, str) and ("#" in value or "::" in value) and not value.startswith(("$", "@", "%")):
        return "$" + repr(value).replace("#", "\\x23").replace("::", ":\\x3a")
    return value
