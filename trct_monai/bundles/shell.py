"""What was typed in the shell, where this process is `python -m monai.bundle`: MONAI hands it on changed."""

import re
import sys
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue

from trct_monai.io.files import read_json

FLAG = re.compile(r"--?[A-Za-z_+]")
"""How a flag begins; a negative number does not."""

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
    """The flags as they were written, with one dash or two, and what was written for each; those of a file as well."""
    flags: dict[str, str | None] = {}
    for word, following in zip(sys.argv, [*sys.argv[1:], None]):
        name, equals, value = word.partition("=")
        if FLAG.match(name):
            flags[name.lstrip("-").replace("-", "_")] = value if equals else following
    file = flags.get("args_file")
    return flags if file is None or not Path(file).is_file() else {**_of_file(Path(file)), **flags}


def _of_file(file: Path) -> dict[str, str | None]:
    """The flags of MONAI's --args_file, as they would be written."""
    content = read_json(file)
    return {key: one if isinstance(one, str) else repr(one) for key, one in content.items()}


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
