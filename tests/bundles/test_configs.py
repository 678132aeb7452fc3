"""What every bundle's configuration promises, read without running it."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow

from tests.bundles.sources import BUNDLES, COMMON, RADIOGRAPHS, SHIPPED, name, overlays, read, verify_metadata
from trct_monai.bundles import check_training
from trct_monai.bundles.keys import check_keys
from trct_monai.bundles.overlays import GOES_AFTER, NOT_WITH

V0_1_0 = Path(__file__).parents[1] / "v0_1_0"

PROTOCOL = ("geometry", "extent", "hu_window")
"""What must be the same number in training and inference, and in every bundle that has radiographs."""


def network_numbers(config: dict[str, Any]) -> set[str]:
    """The top-level keys that the network is made of."""
    return {value.removeprefix("@") for value in config["network_def"].values() if str(value).startswith("@")}


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_bundle_is_complete(bundle: Path) -> None:
    for file in ("train.json", "inference.json", "metadata.json", "logging.conf"):
        assert (bundle / "configs" / file).is_file()
    assert "Apache License" in (bundle / "LICENSE").read_text(encoding="utf-8")
    assert (bundle / "docs" / "README.md").is_file() and (bundle / "docs" / "data_license.txt").is_file()
    metadata = read(bundle / "configs" / "metadata.json")
    assert metadata["version"] in metadata["changelog"]


@pytest.mark.parametrize("bundle", SHIPPED, ids=name)
def test_which_bundle_states_the_parameters(bundle: Path, repository: Path) -> None:
    text = (repository / "docs" / "which_bundle.md").read_text(encoding="utf-8")
    stated = re.search(rf"^\| \[{bundle.name}\].* \| ([\d.]+) M / ([\d.]+) M \|", text, re.MULTILINE)
    for overlay, number in zip(("small", None), stated.groups() if stated else ()):
        parser = ConfigParser()
        parser.read_config([bundle / "configs" / f"{part}.json" for part in ("train", overlay) if part])
        network = parser.get_parsed_content("network_def")
        counted = sum(p.numel() for key, p in network.named_parameters() if key != "initial_volume")
        assert f"{counted / 1e6:.1f}" == number
    assert stated


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_monai_verifies_the_metadata(bundle: Path, tmp_path: Path) -> None:
    verify_metadata(bundle, tmp_path)


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_training_and_inference_agree(bundle: Path) -> None:
    train, inference = (read(bundle / "configs" / file) for file in ("train.json", "inference.json"))
    shared = {*PROTOCOL, "radiograph_size"} if bundle in RADIOGRAPHS else {"hu_window"}
    for key in {*shared, *network_numbers(train), "network_def", "network"}:
        assert train[key] == inference[key], key


def test_all_bundles_follow_one_protocol() -> None:
    pages = [read(bundle / "configs" / "train.json") for bundle in RADIOGRAPHS]
    assert len({json.dumps({key: page[key] for key in PROTOCOL}) for page in pages}) == 1


@pytest.mark.parametrize("file", ["train.json", "inference.json"])
def test_every_key_of_an_overlay_exists_in_what_it_overlays(file: str) -> None:
    for bundle, overlay in overlays(file):
        base, own = read(bundle / "configs" / file), read(overlay)
        keys = [key.lstrip("+") for key in own if key not in ("_desc_", GOES_AFTER, NOT_WITH)]
        # A key of its own must be one that it, or another common overlay, refers to: a misspelt one is not.
        text = "".join(path.read_text(encoding="utf-8") for path in (overlay, *COMMON.glob("*.json")))
        unknown = {key for key in keys if "::" not in key and key not in base}
        assert {key for key in unknown if not re.search(rf"@{key}\b", text)} == set(), overlay
        check_keys([key for key in keys if "::" in key and not text.count(f"@{key}")], {**base, **own})


@pytest.mark.parametrize("bundle", [*BUNDLES, V0_1_0 / "direct_regression"], ids=name)
def test_several_processes_begin_with_what_the_bundle_begins_with(bundle: Path) -> None:
    """Those of 0.1.0, and of users, do not import what others check with."""
    alone = read(bundle / "configs" / "train.json")
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / "train.json"), str(COMMON / "multi_gpu.json")])
    first, then = parser["initialize"][: len(alone["initialize"])], parser["initialize"][len(alone["initialize"]) :]
    assert first == alone["initialize"] and parser.config.get("imports") == alone.get("imports")
    assert [step["_target_"] for step in then] == ["trct_monai.training.join_group", "monai.utils.set_determinism"]


def test_weights_are_checked_by_one_process_alone(tmp_path: Path) -> None:
    """And of those that a training names only those that it begins with."""
    paths = {"output_dir": tmp_path, "ckpt_path": tmp_path / "model.pt", "resume_path": tmp_path / "resume.pt"}
    check = partial(check_training, str(tmp_path), "cpu", start_path=tmp_path / "start.pt", **paths)
    check(rank=1), check(rank=1, resume=True)
    with pytest.raises(FileNotFoundError, match="--start_path: no weights at"):
        check()
    with pytest.raises(FileNotFoundError, match="--resume_path: no weights at"):
        check(resume=True)


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_an_overlay_changes_the_network_of_inference_as_that_of_training(bundle: Path) -> None:
    train, inference = (read(bundle / "configs" / file) for file in ("train.json", "inference.json"))
    for own, overlay in overlays("train.json"):
        if own == bundle and overlay.parent.name == "configs":
            assert set(read(overlay)) & network_numbers(train) <= set(inference)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "file"), [("train", "train.json"), ("infer", "inference.json")])
@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_monai_finds_all_properties(
    bundle: Path, kind: str, file: str, phantoms: Path, phase_pairs: Path, tmp_path: Path
) -> None:
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / file),
        workflow_type=kind,
        datalist=str(phantoms if bundle in RADIOGRAPHS else phase_pairs),
        output_dir=str(tmp_path),
    )
    workflow.initialize()
    assert workflow.check_properties() == []
    assert Path(workflow.bundle_root) == bundle


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_metadata_describes_the_network(bundle: Path) -> None:
    data = read(bundle / "configs" / "metadata.json")["network_data_format"]
    train = read(bundle / "configs" / "train.json")
    if bundle in RADIOGRAPHS:
        assert data["inputs"]["image"]["spatial_shape"] == [train["radiograph_size"]] * 2
        assert data["outputs"]["pred"]["spatial_shape"] == [train["volume_size"]] * 3
    else:
        assert data["inputs"]["image"]["spatial_shape"] == [train["slice_size"]] * 2
        assert data["inputs"]["image"]["num_channels"] == train["num_slices"]
    assert data["inputs"]["image"]["num_channels"] == len(data["inputs"]["image"]["channel_def"])
    low, high = train["hu_window"]
    assert f"[{low:.0f}, {high:.0f}]" in data["outputs"]["pred"]["channel_def"]["0"]
