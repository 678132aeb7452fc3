"""A bundle finds its own folder, whatever the working directory."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trct_monai.bundles.find import bundle_files, find_bundle
from trct_monai.io.weights import CHECKSUMS, load_frozen, require_checkpoint


def make_bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text('{"version": "0"}', encoding="utf-8")
    page = {
        "bundle_root": {"_target_": "trct_monai.bundles.find_bundle", "name": "mine"},
        "epochs": 2,
        "section": {"a": 1},
        "run": ["$print('in', @bundle_root, @epochs)"],
    }
    for name in ("train.json", "inference.json"):
        (folder / "configs" / name).write_text(json.dumps(page), encoding="utf-8")
    return folder


def in_shell(*words: str, cwd: Path) -> str:
    """What MONAI's command says, or the line that it ends with."""
    done = subprocess.run(
        [sys.executable, "-m", "monai.bundle", "run", *words], cwd=cwd, capture_output=True, text=True, check=False
    )
    return done.stdout if done.returncode == 0 else done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_monais_command_finds_and_checks_the_bundle_whose_file_it_was_given(tmp_path: Path) -> None:
    """From the folder of another bundle of the same name; what MONAI would take in silence is refused in one line."""
    bundle, other = make_bundle(tmp_path / "one" / "mine"), make_bundle(tmp_path / "two" / "mine")
    config = ["--config_file", str(bundle / "configs" / "train.json")]
    assert f"in {bundle} 3" in in_shell(*config, "--epochs", "3", "--section::a", "2", cwd=other)
    assert f"in {other} 2" in in_shell(*config, "--bundle_root", str(other), cwd=tmp_path)
    overlay = bundle / "configs" / "late.json"
    overlay.write_text('{"goes_after": ["train"], "epochs": 7}', encoding="utf-8")
    both = [str(overlay), str(bundle / "configs" / "train.json")]
    for words, expected in (
        ([*config, "--epoch=7"], "error: the configuration has no --epoch; did you mean --epochs?"),
        ([*config, "--section::b", "7"], "error: section of the configuration has no 'b'; there are a"),
        (["--config_file", str(both)], "error: late.json goes after train.json; given were late.json, train.json"),
    ):
        assert in_shell(*words, cwd=tmp_path) == expected
    assert f"in {bundle} 7" in in_shell("--config_file", str(both[::-1]), cwd=tmp_path)


def test_without_a_workflow_it_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_bundle(tmp_path / "by_another_name"))
    assert find_bundle("mine") == str(tmp_path / "by_another_name")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="found no bundle 'mine' at .*--bundle_root FOLDER"):
        find_bundle("mine")


def test_a_missing_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trained model at .*train the bundle first, pass --ckpt_path"):
        require_checkpoint(str(tmp_path / "model.pt"))


def test_another_bundle_in_the_working_directory_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_bundle(tmp_path / "mine"))
    assert find_bundle("any_view").endswith("bundles/any_view")


def test_a_folder_may_have_a_plus_in_its_name(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "one+two")
    (bundle / "models" / "small").mkdir(parents=True)
    (bundle / "configs" / "small.json").touch()
    for place in (bundle / "models", bundle / "models" / "small"):
        (place / "model.pt").touch()
    assert bundle_files(str(bundle))[1][1] == bundle / "models" / "model.pt"
    assert bundle_files(f"{bundle}+small")[1][1] == bundle / "models" / "small" / "model.pt"


def test_weights_are_those_that_the_checksums_list(tmp_path: Path) -> None:
    network = torch.nn.Linear(2, 2)
    path = tmp_path / "model.pt"
    torch.save(network.state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / CHECKSUMS).write_text(f"{digest}  model.pt\n", encoding="utf-8")
    load_frozen(torch.nn.Linear(2, 2), str(path))
    with torch.no_grad():
        network.weight += 1
    torch.save(network.state_dict(), path)
    with pytest.raises(ValueError, match="model.pt is not the file that .*SHA256SUMS lists: it is damaged"):
        load_frozen(torch.nn.Linear(2, 2), str(path))
    (tmp_path / CHECKSUMS).unlink()
    path.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    with pytest.raises(ValueError, match="a Git LFS pointer"):
        load_frozen(torch.nn.Linear(2, 2), str(path))
