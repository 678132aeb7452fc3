"""What MONAI's commands and its model zoo ask of every bundle: metadata, network, exports, documentation."""

import json
import re
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.miniature import MINIATURE, smoke
from tests.bundles.processes import warm
from tests.bundles.schemas import NAME, monais_schema, verify_by
from tests.bundles.sources import BUNDLES, SCHEMA, name, read, verify_metadata
from trct_monai.bundles.export import run_onnx

HEADINGS = ["Overview", "Performance", "References", "License"]
"""Sections of a bundle's README, as the zoo's template has them; others may stand between."""

VERSION = r"[0-9]+(\.[0-9]+)+"


def test_our_copy_of_the_schema_is_monais() -> None:
    assert SCHEMA.read_bytes() == monais_schema().read_bytes()


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_metadata_follow_monais_schema(bundle: Path, tmp_path: Path) -> None:
    verify_by(monais_schema(), bundle, tmp_path)


def test_metadata_without_a_task_are_refused(tmp_path: Path) -> None:
    metadata = read(BUNDLES[0] / "configs" / "metadata.json")
    del metadata["task"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify_metadata(tmp_path, tmp_path)


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_metadata_say_what_the_schema_leaves_open(bundle: Path) -> None:
    metadata = read(bundle / "configs" / "metadata.json")
    assert metadata["schema"] == f"https://project-monai.github.io/schema/{NAME}"
    versions = [metadata[f"{package}_version"] for package in ("monai", "pytorch", "numpy")]
    versions += [metadata["version"], *metadata["required_packages_version"].values()]
    assert [version for version in versions if not re.fullmatch(VERSION, version)] == []
    assert all(metadata[key] for key in ("name", "task", "description", "authors", "copyright", "references"))
    for tensors in metadata["network_data_format"].values():
        for tensor in tensors.values():
            assert tensor["dtype"] == "float32" and tensor["is_patch_data"] is False
            assert len(tensor["channel_def"]) == tensor["num_channels"]


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_documentation_has_the_sections_of_the_zoo(bundle: Path) -> None:
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert [heading for heading in found if heading in HEADINGS] == HEADINGS
    assert found[0] == "Overview" and found[-2:] == ["References", "License"]
    sections = dict(zip(found, re.split(r"^## .+$", text, flags=re.MULTILINE)[1:], strict=True))
    references = [line[2:] for line in sections["References"].splitlines() if line.startswith("- ")]
    assert references == read(bundle / "configs" / "metadata.json")["references"]
    assert "(../LICENSE)" in sections["License"] and "(data_license.txt)" in sections["License"]


@pytest.mark.slow
@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_monais_commands_take_the_miniature(bundle: Path, tmp_path: Path) -> None:
    config = ConfigParser(read(bundle / "configs" / "inference.json"))
    numbers = {
        key: value for key, value in (read(smoke(bundle)) | MINIATURE.get(bundle.name, {})).items() if key in config
    }
    config.update(numbers)
    metadata = read(bundle / "configs" / "metadata.json")
    image, pred = (
        metadata["network_data_format"][kind][key] for kind, key in (("inputs", "image"), ("outputs", "pred"))
    )
    size = numbers.get("radiograph_size", 16)
    image["spatial_shape"] = [size, size]
    pred["spatial_shape"] = [numbers.get("volume_size", 16)] * len(pred["spatial_shape"])
    for file, content in (("numbers.json", numbers), ("metadata.json", metadata)):
        (tmp_path / file).write_text(json.dumps(content), encoding="utf-8")
    torch.save(config.get_parsed_content("network_def").state_dict(), tmp_path / "model.pt")

    files = ["--config_file", f"['{bundle / 'configs' / 'inference.json'}','{tmp_path / 'numbers.json'}']"]
    files += ["--meta_file", str(tmp_path / "metadata.json")]
    weights = ["--ckpt_file", str(tmp_path / "model.pt"), "--filepath"]
    # In processes of their own: a traced network has tensors where the tests' type checker wants numbers.
    warm("monai.bundle", "verify_net_in_out", "network_def", *files, "--device", "cpu")
    warm(
        "monai.bundle",
        "ckpt_export",
        "network_def",
        *files,
        *weights,
        str(tmp_path / "model.ts"),
        "--use_trace",
        "True",
    )
    by_trace = ["--use_trace", "True", "--converter_kwargs", "{'dynamo': False}"]
    warm("monai.bundle", "onnx_export", "network_def", *files, *weights, str(tmp_path / "model.onnx"), *by_trace)

    given = torch.rand(1, image["num_channels"], size, size)
    expected = torch.Size([1, 1, *pred["spatial_shape"]])
    assert torch.jit.load(tmp_path / "model.ts")(given).shape == expected
    assert run_onnx(tmp_path / "model.onnx", given).shape == expected
