"""One stamp says what a result was made from: inputs and options by content, whatever names and dates."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from trct_monai.io.files import write_json, write_text
from trct_monai.io.provenance import STAMP, digest_file, digest_values, digest_voxels, is_made_from, make_stamp
from trct_monai.io.weights import digest_state


def test_a_stamp_changes_with_every_input_and_option_and_with_nothing_else(tmp_path: Path) -> None:
    source, record = tmp_path / "source", tmp_path / "record.json"
    write_text(source, "a")
    stamp = make_stamp({"source": digest_file(source)}, {"size": (64, 64), "window": None})
    write_json(record, {STAMP: stamp, "result": 1})
    assert is_made_from(record, make_stamp({"source": digest_file(source)}, {"window": None, "size": [64, 64]}))
    os.utime(source, (0, 0))
    assert is_made_from(record, make_stamp({"source": digest_file(source)}, {"size": [64, 64], "window": None}))
    assert not is_made_from(record, make_stamp({"source": digest_file(source)}, {"size": [64, 65], "window": None}))
    write_text(source, "b")  # as many bytes
    assert not is_made_from(record, make_stamp({"source": digest_file(source)}, {"size": [64, 64], "window": None}))


@pytest.mark.parametrize("content", [None, "", "[]", '{"stamp": 3}', '{"stamp": {}}', "{"], ids=str)
def test_a_record_that_is_missing_or_damaged_was_made_from_nothing(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        write_text(tmp_path / "record.json", content)
    assert not is_made_from(tmp_path / "record.json", make_stamp({}, {}))


def test_digests_are_of_numbers_and_of_their_shape() -> None:
    numbers = np.arange(24, dtype=np.int16)
    assert digest_voxels(numbers.reshape(2, 3, 4)) == digest_voxels(numbers.astype(np.float32).reshape(2, 3, 4))
    assert digest_voxels(numbers.reshape(2, 3, 4)) != digest_voxels(numbers.reshape(4, 3, 2))
    assert digest_values({"a": 1, "b": [2]}) == digest_values({"b": [2], "a": 1}) != digest_values({"a": 1, "b": [3]})


def test_the_digest_of_a_state_sees_every_sign_and_name() -> None:
    state = {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(3.0)}
    digest = digest_state(state)
    assert digest == digest_state({name: value.clone() for name, value in reversed(state.items())})
    for other in ({**state, "a": -state["a"]}, {**state, "a": state["a"].flip(0)}, {"a": state["a"], "c": state["b"]}):
        assert digest_state(other) != digest
