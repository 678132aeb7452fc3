"""What git tracks: small enough to clone and to carry, nothing twice, and weights as they ship."""

import hashlib
import shutil
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from trct_monai.io.weights import CHECKSUMS, verify_checksum

LARGEST_TREE = 32 * 2**20
LARGEST_FILE = 10 * 10**6
SMALL = 100_000
"""Bytes of a file that may lie in the tree twice, such as a licence."""


@pytest.fixture(scope="module")
def tracked(repository: Path) -> list[Path]:
    """The files that git tracks."""
    if not (repository / ".git").exists() or shutil.which("git") is None:
        pytest.skip("this is no git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=repository, check=True, capture_output=True, encoding="utf-8"
    )
    paths = [repository / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_the_tree_and_each_of_its_files_are_small(tracked: list[Path]) -> None:
    sizes = {path: path.stat().st_size for path in tracked}
    assert sum(sizes.values()) <= LARGEST_TREE
    assert [path for path, size in sizes.items() if size >= LARGEST_FILE] == []


def test_no_large_file_lies_in_the_tree_twice(tracked: list[Path]) -> None:
    same: dict[str, list[Path]] = defaultdict(list)
    for path in tracked:
        if path.stat().st_size > SMALL:
            same[hashlib.sha256(path.read_bytes()).hexdigest()].append(path)
    assert [paths for paths in same.values() if len(paths) > 1] == []


def test_weights_ship_in_half_precision_with_their_digest(tracked: list[Path]) -> None:
    weights = [path for path in tracked if path.suffix == ".pt"]
    assert len(weights) >= 8
    for path in weights:
        listed = path.with_name(CHECKSUMS).read_text(encoding="utf-8").splitlines()
        assert path.name in [line.partition("  ")[2] for line in listed], f"use ship_weights for {path}"
        verify_checksum(path)
        floating = [value for value in torch.load(path, weights_only=True).values() if value.is_floating_point()]
        assert {value.dtype for value in floating} == {torch.float16}, f"use ship_weights for {path}"
