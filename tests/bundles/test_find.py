"""A bundle finds its own folder, whatever the working directory."""

import hashlib
from pathlib import Path

import monai.bundle
import pytest
import torch
from monai.bundle import ConfigWorkflow

from trct_monai.bundles.find import bundle_files, find_bundle
from trct_monai.io.weights import CHECKSUMS, load_frozen, require_checkpoint


def make_bundle(folder: Path) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text('{"version": "0"}', encoding="utf-8")
    page = '{"imports": ["$from trct_monai.bundles.find import find_bundle"], "bundle_root": "$find_bundle(\'mine\')"}'
    for name in ("train.json", "inference.json"):
        (folder / "configs" / name).write_text(page, encoding="utf-8")
    return folder


def test_the_running_workflow_knows_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make_bundle(tmp_path / "one" / "mine")
    monkeypatch.chdir(make_bundle(tmp_path / "two" / "mine"))
    workflow = ConfigWorkflow(config_file=str(bundle / "configs" / "train.json"), workflow_type="train")
    workflow.initialize()
    assert workflow.bundle_root == str(bundle)


def test_without_a_workflow_it_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(make_bundle(tmp_path / "by_another_name"))
    assert find_bundle("mine") == str(tmp_path / "by_another_name")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="found no bundle 'mine' at .*; pass --bundle_root"):
        find_bundle("mine")


def test_a_missing_model_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no trained model at .*train the bundle first, pass --ckpt_path"):
        require_checkpoint(str(tmp_path / "model.pt"))


def test_a_mistyped_flag_is_refused(tmp_path: Path) -> None:
    """MONAI would take it as one more key, and train on with the default."""
    config = str(make_bundle(tmp_path / "mine") / "configs" / "train.json")
    page = '{"epochs": 2, "section": {"a": 1}, "run": ["$print(@root, @epochs)"], "root": "$find_bundle(\'mine\')"'
    page += ', "imports": ["$from trct_monai.bundles.find import find_bundle"], "initialize": [], "finalize": []}'
    Path(config).write_text(page, encoding="utf-8")
    options = {"config_file": config, "epochs": 3, "section::a": 2, "workflow_type": "train"}
    monai.bundle.run(**options)
    with pytest.raises(RuntimeError) as error:
        monai.bundle.run(**options, epoch=7)
    causes, one = [], error.value.__cause__
    while one is not None:
        causes.append(str(one))
        one = one.__cause__
    assert any("the configuration has no --epoch; did you mean --epochs?" in cause for cause in causes)


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
