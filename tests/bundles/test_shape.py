"""A configuration shows the method: few lines, few expressions, no plumbing twice."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import StatsHandler

from tests.bundles.sources import BUNDLES, COMMON, SHIPPED, name, read
from trct_monai.bundles.layout import WIDTH, layout
from trct_monai.training import NamedHandlers, validation_handlers

LINES = {"train.json": 120, "inference.json": 70}
EXPRESSIONS = 15
EQUAL = 10
"""So many equal lines in a row in two bundles belong into the library."""


def expressions(value: Any) -> Iterator[str]:
    """The expressions of a configuration."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from expressions(one)
    elif isinstance(value, str) and value.startswith("$"):
        yield value


@pytest.mark.parametrize("file", LINES)
@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_a_bundles_own_files_are_short_and_decide_nothing(bundle: Path, file: str) -> None:
    path = bundle / "configs" / file
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LINES[file]
    found = list(expressions(read(path)))
    assert len(found) <= EXPRESSIONS
    assert [text for text in found if re.search(r"\b(if|or|and|not|lambda)\b", text)] == []


def test_no_ten_lines_in_a_row_are_equal_in_two_bundles() -> None:
    """A new bundle begins as a copy; what it has in common with another when it ships belongs into the library."""
    files = [path for bundle in SHIPPED for path in (bundle / "configs").glob("*.json") if path.stem != "metadata"]
    texts = {path: [line.strip() for line in path.read_text(encoding="utf-8").splitlines()] for path in files}
    runs = {
        path: {tuple(lines[start : start + EQUAL]) for start in range(len(lines) - EQUAL + 1)}
        for path, lines in texts.items()
    }
    for one, other in itertools.combinations(files, 2):
        if one.parents[1] != other.parents[1]:
            assert not runs[one] & runs[other], f"{one} and {other}"


@pytest.mark.parametrize("path", [p for b in (*BUNDLES, COMMON) for p in b.rglob("*.json")], ids=name)
def test_layout_says_the_same_in_lines_that_a_screen_shows(path: Path, tmp_path: Path) -> None:
    content = read(path)
    copy = tmp_path / path.name
    copy.write_text(layout(content), encoding="utf-8")
    assert read(copy) == content and list(read(copy)) == list(content)
    for line in copy.read_text(encoding="utf-8").splitlines():
        assert len(line) <= WIDTH or line.lstrip().startswith('"') or "http" in line


def test_handlers_are_attached_in_their_order_and_left_out_by_name() -> None:
    attached: list[str] = []

    class Noted:
        def __init__(self, text: str) -> None:
            self.text = text

        def attach(self, engine: Any) -> None:
            attached.append(self.text)

    NamedHandlers({"a": Noted("a"), "b": False, "c": None, "d": Noted("d")}).attach(Engine(lambda *_: None))
    assert attached == ["a", "d"]
    with pytest.raises(ValueError, match="handler 'clip' is True; give a handler, or False for none"):
        NamedHandlers({"clip": True})


def test_a_named_handler_takes_the_place_of_the_standard_one_and_others_join(tmp_path: Path) -> None:
    own = StatsHandler()
    network = torch.nn.Linear(1, 1)
    handlers = validation_handlers(network=network, ckpt_path=tmp_path / "m.pt", stats=own, mine=own, best=False)
    assert handlers["stats"] is own and handlers["mine"] is own and handlers["best"] is False
    assert list(handlers) == ["stats", "tensorboard", "pictures", "best", "mine"]
    assert validation_handlers(network=network, ckpt_path="m.pt", rank=1, mine=own)["stats"] is None
