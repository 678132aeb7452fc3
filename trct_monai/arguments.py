"""Texts of the command line as numbers and names, and what a mistyped one may have meant."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence
from math import isfinite

_WORDS = {1: "one number", 2: "two numbers", 3: "three numbers"}


def parse_numbers(
    text: str | float | Sequence[float], count: int | None, name: str, example: str = ""
) -> tuple[float, ...]:
    """Finite numbers written as ``a/b/c`` or ``a,b,c``, or given as a sequence.

    Args:
        text: What the user wrote.
        count: How many they must be; None for one or more.
        name: What they are called in the message.
        example: How they may be written, for the message.

    Raises:
        ValueError: If there are not `count` of them, or one is not a finite number.
    """
    parts = re.split("[/,]", text) if isinstance(text, str) else [text] if isinstance(text, int | float) else list(text)
    try:
        numbers = tuple(float(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if not numbers or not all(map(isfinite, numbers)) or len(numbers) != (count or len(numbers)):
        wanted = "numbers" if count is None else _WORDS.get(count, f"{count} numbers")
        separator = "commas" if "," in example else "/"
        raise ValueError(
            f"{name} must be {wanted}{'' if count == 1 else f' separated by {separator}'}"
            f"{example and f', such as {example}'}, got {text!r}"
        )
    return numbers


def parse_counts(text: str | int | Sequence[int], count: int | None, name: str, example: str = "") -> tuple[int, ...]:
    """Whole numbers of 0 or more; else as `parse_numbers`.

    Raises:
        ValueError: If there are not `count` of them, or one is negative or not whole.
    """
    numbers = parse_numbers(text, count, name, example)
    if not all(number == int(number) >= 0 for number in numbers):
        raise ValueError(f"{name} must be whole numbers of 0 or more{example and f', such as {example}'}, got {text!r}")
    return tuple(int(number) for number in numbers)


def parse_names(text: str | os.PathLike[str] | int | Iterable[str | int] | None) -> list[str]:
    """Names written as ``a,b,c``, or given one by one; empty ones are left out.

    Args:
        text: What the user wrote. A command line may have split it already, and made numbers of names of digits.
    """
    if isinstance(text, str | os.PathLike | int):
        text = str(text).split(",")
    return [name for name in (str(part).strip() for part in text or ()) if name]


def suggestion(word: str, known: Iterable[str]) -> str:
    """A blank and, in brackets, the known word that may have been meant; empty if none is near."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
