"""The pages of docs/ keep their word: listings and the notebook run as printed, the Slurm script calls what exists."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import pytest
import torch

import trct_monai.networks
from tests.bundles.sources import verify_metadata
from tests.test_contracts import perturbed, radiographs
from trct_monai.bundles.find import bundle_folder
from trct_monai.bundles.keys import check_overlay_keys
from trct_monai.bundles.launcher import find_files
from trct_monai.commands import main


def listings(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_the_tutorial_runs_and_holds_no_outputs(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.chdir(tmp_path)
    plt.switch_backend("agg")
    page = json.loads((repository / "docs" / "tutorial.ipynb").read_text(encoding="utf-8"))
    names: dict[str, Any] = {}
    for number, cell in enumerate(page["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
    plt.close("all")
    score = {
        name: names["PROTOCOLS"]["hu"](ct, names["truth_hu"])["psnr_3d"] for name, ct in names["predictions"].items()
    }
    assert score["any_view"] > score["ridge_pca"] > score["mean_volume"]


def test_the_method_of_the_comparison_page_writes_a_ct_for_each_case(
    repository: Path, phantoms: Path, tmp_path: Path
) -> None:
    (program,) = listings(repository / "docs" / "compare.md", "python")
    (tmp_path / "my_method.py").write_text(program, encoding="utf-8")
    command = [sys.executable, "my_method.py", str(phantoms), "my_predictions"]
    subprocess.run(command, cwd=tmp_path, check=True)
    for case in json.loads(phantoms.read_text(encoding="utf-8"))["test"]:
        prediction = nibabel.load(tmp_path / "my_predictions" / f"{case['case_id']}.nii.gz")
        assert prediction.shape == nibabel.load(phantoms.parent / case["label"]).shape


@pytest.fixture
def lifted_cnn(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The network of the page about new methods, as the module that the page puts it into."""
    source = tmp_path / "lifted_cnn.py"
    source.write_text(listings(repository / "docs" / "add_a_method.md", "python")[0], encoding="utf-8")
    spec = importlib.util.spec_from_file_location("trct_monai.networks.lifted_cnn", source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, spec.name, module)
    monkeypatch.setattr(trct_monai.networks, "lifted_cnn", module, raising=False)
    return module


def test_the_new_method_keeps_the_contract(repository: Path, lifted_cnn: ModuleType) -> None:
    line = listings(repository / "docs" / "add_a_method.md", "python")[1]
    make = eval(f"{{{line}}}", vars(lifted_cnn))["lifted_cnn"]
    network = perturbed(make(8)).train()
    network(radiographs()).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    volume = network.eval()(radiographs())
    assert volume.shape == (2, 1, 8, 8, 8) and 0 <= volume.min() and volume.max() <= 1


@pytest.mark.usefixtures("lifted_cnn")
@pytest.mark.slow
def test_the_new_bundle_trains_and_reconstructs(
    repository: Path, phantoms: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = repository / "docs" / "add_a_method.md"
    (own,) = listings(page, "json")
    assert len(own.splitlines()) <= 60
    (tmp_path / "lifted_cnn.json").write_text(own, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    make, _ = listings(page, "bash")
    assert main(make.split()[3:]) == 0
    bundle = tmp_path / "bundles" / "lifted_cnn"
    written = {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()}
    configs = {f"configs/{name}" for name in ("train.json", "inference.json", "metadata.json", "logging.conf")}
    assert written == {*configs, "LICENSE", "docs/README.md", "docs/data_license.txt"}
    for file in ("train", "inference"):
        text = (bundle / "configs" / f"{file}.json").read_text(encoding="utf-8")
        assert json.loads(text)["channels"] == 16 and "direct_regression" not in text
        assert "hidden_size" not in text and len(text.splitlines()) <= 100
    verify_metadata(bundle, tmp_path)
    paths = ["--datalist", str(phantoms), "--ckpt_path", str(tmp_path / "model.pt"), "--output_dir"]
    assert main(["run", f"{bundle}+smoke", "training", *paths, str(tmp_path / "output")]) == 0
    state = torch.load(tmp_path / "output" / "resume" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2 and state["network"]["head.conv_block.weight"].any()
    sizes = ["--volume_size", "16", "--radiograph_size", "32"]
    assert main(["run", str(bundle), *paths, str(tmp_path / "predictions"), *sizes]) == 0
    assert len(list((tmp_path / "predictions").iterdir())) == 2


def test_a_new_bundle_needs_a_network_and_a_folder_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, folder = tmp_path / "mine.json", tmp_path / "mine"
    flags = ["new_bundle", "--config", str(config), "--output", str(folder)]
    for text, more, expected in (
        ('{"channels": 16}', [], "no network_def; give the network as"),
        ('{"network_def": {}}', ["--like", "nothing"], "found no bundle 'nothing'"),
        ('{"network_def": {}}', ["--like", "any_view+small"], "--like takes a bundle without overlays"),
        ('{"network_def": {"a": "@chanels"}}', [], "nothing is called chanels, which the new bundle refers to"),
        ('{"network_def": {}, "learning_rat": 1}', [], "has no --learning_rat; did you mean --learning_rate?"),
        ('{"network_def": {}, "train::trainer": {}}', [], "train::trainer: give the whole key, or put this into"),
    ):
        config.write_text(text, encoding="utf-8")
        assert main([*flags, *more]) == 2 and expected in capsys.readouterr().err
    config.write_text('{"network_def": {}}', encoding="utf-8")
    folder.mkdir()
    assert main(flags) == 2 and "mine is there already; give --output a new folder" in capsys.readouterr().err
    assert not list(folder.iterdir())


def test_numbers_that_only_what_is_replaced_had_are_no_flags_of_a_new_bundle(tmp_path: Path) -> None:
    own = {
        "network_def": {"_target_": "mine.Network", "volume_size": "@volume_size"},
        "loss": {"_target_": "torch.nn.L1Loss"},
        "random_transforms": [],
        "volume_size": 32,
    }
    (tmp_path / "mine.json").write_text(json.dumps(own), encoding="utf-8")
    flags = ["--config", str(tmp_path / "mine.json"), "--output", str(tmp_path / "mine"), "--like", "any_view"]
    assert main(["new_bundle", *flags]) == 0
    train, inference = (
        json.loads((tmp_path / "mine" / "configs" / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("train", "inference")
    )
    assert {"l1_weight", "deep_weight", "pose_rotation", "augmentation_prob", "num_modes"} & set(train) == set()
    assert {"loss", "random_transforms", "num_modes"} & set(inference) == set()
    assert train["volume_size"] == inference["volume_size"] == 32 and train["learning_rate"] == 0.0001
    check_overlay_keys([tmp_path / "mine" / "configs" / "train.json"])


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
@pytest.mark.parametrize("stopped", [False, True])
def test_the_slurm_script_starts_one_torchrun_a_machine(repository: Path, tmp_path: Path, stopped: bool) -> None:
    commands = {
        "scontrol": "echo first; seq 100000",  # more than a pipe holds: whoever reads one line only breaks it
        "srun": 'echo "threads $OMP_NUM_THREADS"; "$@"',
        "torchrun": 'echo "$@"',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    if stopped:
        (tmp_path / "output" / "resume").mkdir(parents=True)
        (tmp_path / "output" / "resume" / "checkpoint.pt").touch()
    slurm = {"JOB_ID": "7", "JOB_NODELIST": "two", "JOB_NUM_NODES": "2", "GPUS_ON_NODE": "4", "CPUS_PER_TASK": "32"}
    environment = {
        **os.environ,
        **{f"SLURM_{key}": value for key, value in slurm.items()},
        "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
        "OUTPUT": str(tmp_path / "output"),
    }
    script = repository / "examples" / "slurm" / "train.sbatch"
    # Not in the repository: an environment there would be activated, and its torchrun would wait for another.
    said = subprocess.run(
        ["bash", str(script), "direct_regression", "datalist.json", "--epochs", "3"],
        env=environment, cwd=tmp_path, check=True, capture_output=True, encoding="utf-8",
    ).stdout  # fmt: skip
    assert said.startswith("threads 8\n--nnodes 2 --nproc_per_node 4 --rdzv_id 7") and "first:29500" in said
    assert f"--resume {stopped} --epochs 3" in said
    (spec,) = re.findall(r"-m trct_monai run (\S+) training ", said)
    root, overlays = bundle_folder(spec)
    assert [path.is_file() for path in find_files(root, overlays, "training")[1]] == [True, True]
