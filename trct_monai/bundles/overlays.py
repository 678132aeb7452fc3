"""Which overlays may follow which files: what their keys `goes_after` and `not_with` say."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trct_monai.io.files import read_json

TRAIN, INFERENCE = "train", "inference"
"""A bundle's own files, which every overlay follows one of."""

GOES_AFTER, NOT_WITH = "goes_after", "not_with"
"""Keys of an overlay. They are for this check alone; nothing of a run refers to them."""

ZOO_NAMES = {"multi_gpu_train": "multi_gpu"}
"""Names by which MONAI's model zoo calls an overlay, as exports have them."""


def read_overlay(path: Path) -> dict[str, Any]:
    """A configuration as it stands in its file.

    Raises:
        ValueError: If it is no JSON object, or what it goes after is not a list of names.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(content).__name__}")
    for key in (GOES_AFTER, NOT_WITH):
        names = content.get(key, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f'{path}: {key} must be a list of names, such as ["{TRAIN}"], got {json.dumps(names)}')
    return content


def check_overlays(files: Sequence[Path]) -> None:
    """Refuse files in an order, or together, in which one of them would not do what it says.

    An overlay says by ``goes_after`` what comes before it: ``"train"`` that file, ``"train|inference"`` either of them,
    ``"small?"`` that file if it is there at all; and by ``not_with`` what must not be there. Files are known by their
    names without the ending. One without these keys, as a user's may be, goes anywhere.

    Args:
        files: The configuration's files in their order.

    Raises:
        ValueError: If one is there twice, before what it goes after, without it, or with what it does not go with.
    """
    names = [ZOO_NAMES.get(path.stem, path.stem) for path in files]
    shown = ", ".join(path.name for path in files)
    for number, (name, path) in enumerate(zip(names, files)):
        if name in names[:number]:
            raise ValueError(f"{path.name} is there twice: {shown}")
        content = read_overlay(path)
        for entry in content.get(GOES_AFTER, []):
            choices, optional = entry.removesuffix("?").split("|"), entry.endswith("?")
            wanted = " or ".join(f"{choice}.json" for choice in choices)
            if not set(choices) & set(names[:number]) and (not optional or set(choices) & set(names)):
                raise ValueError(f"{path.name} goes after {wanted}; given were {shown}")
        for other in content.get(NOT_WITH, []):
            if other in names:
                raise ValueError(f"{path.name} does not go with {other}.json; given were {shown}")


def bases(path: Path) -> set[str]:
    """Which of a bundle's own files an overlay may follow: `TRAIN`, `INFERENCE` or both."""
    both = {TRAIN, INFERENCE}
    named = [both & set(entry.split("|")) for entry in read_overlay(path).get(GOES_AFTER, [])]
    return set.intersection(both, *(entry for entry in named if entry))
