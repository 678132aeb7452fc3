"""A configuration as text that people read: short values side by side, a component's arguments after its target."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

WIDTH = 120
"""Columns of a line."""

INDENT = 4


def layout(config: Mapping[str, Any]) -> str:
    """A configuration as JSON, at most `WIDTH` columns wide where its texts allow that.

    Args:
        config: What `json.dumps` takes.
    """
    lines: list[str] = []
    side_by_side = False
    for text, is_value in _entries(config, INDENT):
        before = lines[-1] if lines else ""
        if is_value and side_by_side and len(before) + 2 + len(text) < WIDTH:
            lines[-1] = f"{before}, {text}"
        else:
            lines[-1:] = [f"{before},"] if lines else []
            lines.append(" " * INDENT + text)
        side_by_side = is_value
    return "{\n" + "\n".join(lines) + "\n}\n"


def _entries(config: Mapping[str, Any], indent: int) -> Iterator[tuple[str, bool]]:
    """The text of each entry, and whether it is one short value."""
    for key, value in config.items():
        text = f"{json.dumps(key)}: {_text(value, indent, len(key) + 4)}"
        yield text, not isinstance(value, Mapping) and "\n" not in text and not _holds(value)


def _holds(value: Any) -> bool:
    """Whether a list holds more than numbers and texts, or a text is an expression."""
    if isinstance(value, list):
        return any(isinstance(one, list | Mapping) for one in value)
    return isinstance(value, str) and value.startswith("$")


def _text(value: Any, indent: int, used: int) -> str:
    """A value at an indentation, of whose first line some columns are used."""
    short = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, list | Mapping) or indent + used + len(short) < WIDTH:
        return short
    inner = indent + INDENT
    if isinstance(value, list):
        rows = ",\n".join(" " * inner + _text(one, inner, 1) for one in value)
        return f"[\n{rows}\n{' ' * indent}]"
    return "{" + _packed(value, inner, indent + used + 1) + "}"


def _packed(value: Mapping[str, Any], indent: int, used: int) -> str:
    """The entries of a component, as many on a line as it takes."""
    text, column = "", used
    for number, (key, one) in enumerate(value.items()):
        name = f"{json.dumps(key)}: "
        plain = json.dumps(one, ensure_ascii=False)
        if number:
            fits = column + 2 + len(name) + len(plain) < WIDTH
            text += ", " if fits else ",\n" + " " * indent
            column = column + 2 if fits else indent
        entry = name + _text(one, indent, column - indent + len(name))
        text += entry
        column = len(entry.rpartition("\n")[2]) + (0 if "\n" in entry else column)
    return text
