"""Weights: half precision in the file, float32 in memory; read with `weights_only=True`, verified by their digest."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointLoader

from trct_monai.io.weights import CHECKSUMS, load_frozen, load_state, save_state, ship_weights
from trct_monai.networks import AnyView


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.BatchNorm1d(30))


def ship(state: dict[str, Any], folder: Path) -> Path:
    """The shipped file of a state dict."""
    save_state(folder / "trained.pt", state)
    ship_weights(folder / "trained.pt", folder / "model.pt")
    return folder / "model.pt"


def test_shipped_weights_are_half_in_the_file_and_float32_in_memory(tmp_path: Path) -> None:
    state = network().state_dict()
    path = ship(state, tmp_path)
    kept = torch.load(path, weights_only=True)
    assert {value.dtype for value in kept.values()} == {torch.float16, torch.int64}  # BatchNorm counts its batches
    loaded = load_state(path)
    assert {name: value.dtype for name, value in loaded.items()} == {name: value.dtype for name, value in state.items()}
    for name, value in state.items():
        torch.testing.assert_close(loaded[name], value, rtol=2**-11, atol=2**-25)
    trained, other = network(), network()
    load_frozen(other, path)
    assert all(torch.equal(value, loaded[name]) for name, value in other.state_dict().items())
    CheckpointLoader(str(path), {"model": trained}, map_location="cpu")(Engine(lambda engine, batch: None))
    assert all(torch.equal(value, loaded[name]) for name, value in trained.state_dict().items())
    assert {value.dtype for value in trained.parameters()} == {torch.float32}


def test_what_is_no_floating_point_number_stays_as_it_is(tmp_path: Path) -> None:
    state = {"index": torch.tensor([2**40, -1]), "mask": torch.tensor([True, False]), "digest": b"\x01", "epoch": 7}
    loaded = load_state(ship({**state, "double": torch.ones(2, dtype=torch.float64)}, tmp_path))
    assert loaded.pop("double").dtype == torch.float32
    for name, value in state.items():
        assert torch.equal(loaded[name], value) if isinstance(value, torch.Tensor) else loaded[name] == value


@pytest.mark.parametrize("wrong", [7e4, -7e4, float("inf"), float("nan")])
def test_numbers_that_float16_does_not_have_are_refused(wrong: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="trained.pt: b has numbers that are not finite in float16"):
        ship({"a": torch.ones(2), "b": torch.tensor([1.0, wrong])}, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["trained.pt"]


def test_the_same_weights_give_the_same_file_which_the_checksums_list(tmp_path: Path) -> None:
    state = network().state_dict()
    (tmp_path / CHECKSUMS).write_text("0  another.pt\n1  model.pt\n", encoding="utf-8")
    path = ship(state, tmp_path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (tmp_path / CHECKSUMS).read_text(encoding="utf-8") == f"0  another.pt\n{digest}  model.pt\n"
    ship_weights(path, path)  # rounding again changes nothing
    ship(state, tmp_path / "again")
    assert {file.read_bytes() for file in (path, tmp_path / "again" / "model.pt")} == {path.read_bytes()}
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


def test_bfloat16_comes_back_as_float32_too(tmp_path: Path) -> None:
    save_state(tmp_path / "model.pt", {"a": torch.tensor([1.5, 1e38], dtype=torch.bfloat16)})
    loaded = load_state(tmp_path / "model.pt")["a"]
    assert loaded.dtype == torch.float32 and loaded.isfinite().all()


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.ones(2)], tmp_path / "model.pt")
    with pytest.raises(ValueError, match="not weights by their names, but list"):
        load_state(tmp_path / "model.pt")


def test_a_checkpoint_to_resume_from_is_not_shipped(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="checkpoint to resume from"):
        ship({"epoch": 3, "network": {"a": torch.ones(2)}}, tmp_path)
    assert not (tmp_path / "model.pt").exists()


def test_checksums_of_binary_files_count_too(tmp_path: Path) -> None:
    path = ship({"a": torch.ones(2)}, tmp_path)
    sums = path.with_name(CHECKSUMS)
    sums.write_text(sums.read_text(encoding="utf-8").replace("  model.pt", " *model.pt"), encoding="utf-8")
    load_state(path)
    path.write_bytes(path.read_bytes() + b"0")
    with pytest.raises(ValueError, match="is not the file"):
        load_state(path)
    ship({"a": torch.ones(2)}, tmp_path)
    assert len(sums.read_text(encoding="utf-8").splitlines()) == 1


def test_tensors_in_eight_bits_are_read_as_they_were_rounded_and_rounding_again_changes_nothing(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    channels = {"encoder_channels": [4], "decoder_channels": [4], "num_models": 2, "num_modes": 6}
    network = AnyView(8, **channels)
    modes, weight = network.linear_start.modes, "pyramids.0.carries.0.weight"
    modes.copy_(torch.randn(modes.shape) * torch.logspace(-4, 0, 12).view(-1, 1, 1, 1, 1))
    modes[3] = 0
    before = network.state_dict()
    save_state(tmp_path / "trained.pt", before)
    path = tmp_path / "model.pt"
    ship_weights(tmp_path / "trained.pt", path, eight_bits=["linear_start.modes", "pyramids.*"])
    written = torch.load(path, weights_only=True)
    assert written["linear_start.modes"].dtype == written[weight].dtype == torch.int8
    assert {value.dtype for value in written.values() if value.ndim == 1} == {torch.float16}
    loaded = load_state(path)
    assert loaded.keys() == before.keys()
    for name in ("linear_start.modes", weight):
        error = (loaded[name] - before[name]).flatten(1).abs().amax(dim=1)
        assert (error <= before[name].flatten(1).abs().amax(dim=1) / 240).all()
    assert loaded["linear_start.modes"][3].eq(0).all()
    for state in (loaded, torch.load(path, weights_only=True)):  # MONAI's CheckpointLoader reads the file itself
        other = AnyView(8, **channels)
        other.load_state_dict(state)
        assert all(torch.equal(value, loaded[name]) for name, value in other.state_dict().items())
    ship_weights(path, tmp_path / "again.pt", eight_bits=["linear_start.modes", "pyramids.*"])
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()
    with pytest.raises(KeyError, match="no tensor 'no_such"):
        ship_weights(path, tmp_path / "third.pt", eight_bits=["no_such.*"])
