"""What was typed in the shell, where this process is `python -m monai.bundle`: MONAI hands it on changed."""

import sys
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

CONFIG = "config_file"
"""MONAI's flag for a configuration's files."""


def runs_in_shell() -> bool:
    """Whether this process is `python -m monai.bundle`."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == "monai.bundle.__main__"


def typed_command() -> str | None:
    """The command of `python -m monai.bundle`, such as run; None if this process is another."""
    return next((word for word in sys.argv[1:] if not word.startswith("-")), None) if runs_in_shell() else None


def typed_flags() -> dict[str, str | None]:
    """The flags as they were written, and what was written for each."""
    flags: dict[str, str | None] = {}
    for word, following in zip(sys.argv, [*sys.argv[1:], None]):
        name, equals, value = word.partition("=")
        if name.startswith("--") and len(name) > 2:
            flags[name[2:].replace("-", "_")] = value if equals else following
    return flags


def typed_value(flag: str) -> str | None:
    """What was written in the shell for a flag."""
    return typed_flags().get(flag)


def typed_config() -> list[Path]:
    """The configuration's files, in their order; none if this process is another, or none were given by a flag."""
    typed = typed_value(CONFIG) if runs_in_shell() else None
    value: Any = DefaultParseValue(typed) if typed else []
    if isinstance(value, str):
        value = [value] if Path(value).is_file() else value.split(",")
    return [Path(str(one)) for one in value] if isinstance(value, list | tuple) else []
