"""Texts of the command line as numbers."""

from collections.abc import Sequence


def parse_numbers(text: str | float | Sequence[float], count: int, name: str) -> tuple[float, ...]:
    """Numbers written as ``a/b/c`` or given as a sequence.

    Raises:
        ValueError: If there are not `count` of them.
    """
    parts = text.split("/") if isinstance(text, str) else [text] if isinstance(text, int | float) else list(text)
    try:
        numbers = tuple(float(part) for part in parts)
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise ValueError(f"{name} must be {count} numbers, got {text!r}")
    return numbers
