"""What a result was made from: digests by content, and the one stamp that says whether it must be made again."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trct_monai import __version__
from trct_monai.io.files import read_json

STAMP = "stamp"
"""Key of the stamp in a JSON file that belongs to a result."""

Stamp = dict[str, Any]


def digest_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        FileNotFoundError: If there is no such file; a pipe or a folder is none.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file, or no regular one")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def digest_values(values: Any) -> str:
    """SHA-256 of numbers, texts, lists and mappings, whatever the order of a mapping's keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def digest_voxels(numbers: np.ndarray) -> str:
    """SHA-256 of a volume's numbers as 16-bit integers and its shape, whatever the file around them."""
    return digest_numbers(numbers.astype("<i2"), str(numbers.shape))


def digest_numbers(numbers: np.ndarray, head: str) -> str:
    """SHA-256 of a text, and of an array's numbers row by row with the lowest byte first, as on any machine."""
    digest = hashlib.sha256(head.encode())
    digest.update(np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def make_stamp(inputs: Mapping[str, Any], options: Mapping[str, Any]) -> Stamp:
    """What a result is made from: the same stamp, the same result.

    Args:
        inputs: What goes in, by name: digests of contents (`digest_file`), never of names and dates alone.
        options: Every number and name that the result depends on.

    Returns:
        ``inputs`` and ``options`` as JSON takes them, their ``digest``, and the ``software``, which does not count.
    """
    stamp: Stamp = json.loads(json.dumps({"inputs": inputs, "options": options}))
    return stamp | {"digest": digest_values(stamp), "software": f"trct_monai {__version__}"}


def read_stamp(path: Path) -> Stamp | None:
    """The stamp in a JSON file; None if there is no such file, or it is damaged or has none."""
    try:
        content = read_json(path)
    except (OSError, ValueError):
        return None
    stamp = content.get(STAMP) if isinstance(content, dict) else None
    return stamp if isinstance(stamp, dict) and "digest" in stamp else None


def is_made_from(path: Path, stamp: Stamp) -> bool:
    """Whether the JSON file of a result bears this stamp."""
    known = read_stamp(path)
    return known is not None and known["digest"] == stamp["digest"]
