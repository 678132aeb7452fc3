"""A bundle finds its own folder, whatever the working directory."""

from pathlib import Path

import pytest
from monai.bundle import ConfigWorkflow

from trct_monai.bundle import find_bundle, require_checkpoint


def make_bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text('{"version": "0"}', encoding="utf-8")
    (folder / "configs" / "train.json").write_text(
        '{"imports": ["$from trct_monai.bundle import find_bundle"], "bundle_root": "$find_bundle(\'mine\')"}',
        encoding="utf-8",
    )
    return folder


def test_the_running_workflow_knows_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "one" / "mine")
    monkeypatch.chdir(make_bundle(tmp_path / "two" / "mine"))
    workflow = ConfigWorkflow(config_file=str(bundle / "configs" / "train.json"), workflow_type="train")
    workflow.initialize()
    assert workflow.bundle_root == str(bundle)


def test_without_a_workflow_it_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_bundle(tmp_path / "mine"))
    assert find_bundle("mine") == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="found no bundle 'mine' at .*; pass --bundle_root"):
        find_bundle("mine")


def test_a_missing_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trained model at .*train the bundle first, pass --ckpt_path"):
        require_checkpoint(str(tmp_path / "model.pt"))
