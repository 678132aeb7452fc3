"""Every bundle, exported: its folder alone runs, says what it is, and gives what PyTorch gives."""

import json
import shutil
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import pytest
import torch

from tests.bundles.processes import shell, warm
from tests.bundles.schemas import monais_schema, verify_by
from tests.bundles.sources import BUNDLES as SOURCES
from tests.bundles.sources import verify_metadata
from trct_monai.bundles.errors import one_line
from trct_monai.bundles.export import TRACED_ONLY, foreign_targets, write_configs
from trct_monai.commands import main
from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.io.datalist import load_datalist
from trct_monai.io.weights import CHECKSUMS

pytestmark = pytest.mark.slow

BUNDLES = [
    "direct_regression+small",
    "trct_gan+small",
    "x2ct_gan+small",
    "two_stage+small",
    "hybrid_cnn_vit+small",
    "dif_net+small",
    "any_view+small+intervals",
    "ct_phase_pix2pix+small",
]


@pytest.fixture(scope="module", params=BUNDLES)
def exported(request: pytest.FixtureRequest, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "out"
    # By itself, for a traced network has tensors where the tests' type checker wants numbers.
    flags = ["--bundle", request.param, "--out", str(folder), "--onnx", "True"]
    said = warm("trct_monai", "export", *flags, cwd=repository)
    assert "model.ts differs from PyTorch by" in said and "model.onnx differs from PyTorch by" in said
    return folder


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A datalist of one phantom."""
    folder = tmp_path_factory.mktemp("phantom")
    make_phantoms(str(folder), size=16, split="0/0/1", num_workers=0, radiograph_size=128)
    return folder / "datalist.json"


def config(folder: Path) -> str:
    return str(folder / "configs" / "inference.json")


def metadata(folder: Path) -> str:
    return str(folder / "configs" / "metadata.json")


def test_it_runs_from_an_empty_folder_by_its_own_code(
    exported: Path, phantom: Path, repository: Path, tmp_path: Path
) -> None:
    (case,) = load_datalist(phantom, "test")
    takes_cts = "PhaseCases" in Path(config(exported)).read_text(encoding="utf-8")
    data = ["--volumes", f"['{case['label']}']"] if takes_cts else ["--datalist", str(phantom)]
    if "VolumeRefiner" in Path(config(exported)).read_text(encoding="utf-8"):  # which lies in any_view alone
        data += [
            "--refiner_path",
            str(repository / "bundles" / "any_view" / "models" / "small" / "refiner" / "model.pt"),
        ]
    probe = tmp_path / "probe"  # what Python loads first: it says at the end where our code came from
    probe.mkdir()
    (probe / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        "atexit.register(lambda: print('OURS', sys.modules['trct_monai'].__file__, file=sys.stderr))\n",
        encoding="utf-8",
    )
    flags = ["--config_file", config(exported), *data, "--output_dir", str(tmp_path / "output")]
    said = shell("monai.bundle", "run", *flags, cwd=probe, PYTHONPATH=str(probe))
    assert f"OURS {exported / 'trct_monai' / '__init__.py'}" in said
    (written,) = [path for path in (tmp_path / "output").glob("*.nii.gz") if "_quantiles" not in path.name]
    pred = load(metadata(exported))["network_data_format"]["outputs"]["pred"]["spatial_shape"]
    assert len(pred) == 2 or list(nibabel.load(written).shape[:3]) in (pred, [2 * n for n in pred])


def load(path: str) -> dict[str, Any]:
    page: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return page


def test_monai_verifies_it(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported)
    verify_metadata(exported, tmp_path)
    monai.bundle.verify_net_in_out("network_def", metadata(exported), config(exported), device="cpu")


def test_its_metadata_follow_monais_schema(exported: Path, tmp_path: Path) -> None:
    verify_by(monais_schema(), exported, tmp_path)


def test_monai_finds_all_its_properties(
    exported: Path, phantoms: Path, phase_pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its folder; from elsewhere a program that has another library says where it is, or is refused."""
    config_file = str(exported / "configs" / "inference.json")
    elsewhere = monai.bundle.ConfigWorkflow(config_file=config_file, workflow_type="infer")
    elsewhere.initialize()
    with pytest.raises(RuntimeError) as refused:
        elsewhere.evaluator  # noqa: B018
    assert "--bundle_root FOLDER" in str(one_line(refused.value))
    monkeypatch.chdir(exported)
    takes_cts = "PhaseCases" in Path(config(exported)).read_text(encoding="utf-8")
    for kind, file in (("train", "train.json"), ("infer", "inference.json")):
        workflow = monai.bundle.ConfigWorkflow(
            config_file=str(exported / "configs" / file),
            workflow_type=kind,
            datalist=str(phase_pairs if takes_cts else phantoms),
            output_dir=str(tmp_path),
        )
        workflow.initialize()
        assert workflow.check_properties() == []
        assert Path(workflow.bundle_root) == exported


def test_it_says_that_torchscript_is_by_tracing_alone(exported: Path, tmp_path: Path) -> None:
    assert load(metadata(exported))["torchscript"] == TRACED_ONLY
    assert f"**TorchScript** is made {TRACED_ONLY}" in (exported / "docs" / "export.md").read_text(encoding="utf-8")
    files = ["--config_file", config(exported), "--meta_file", metadata(exported), "--bundle_root", str(exported)]
    flags = ["ckpt_export", "network_def", *files, "--filepath", str(tmp_path / "model.ts")]
    warm("monai.bundle", *flags, "--use_trace", "True", cwd=exported)
    torch.jit.load(tmp_path / "model.ts")
    with pytest.raises(AssertionError, match="torch/jit/_script.py"):  # else the note is wrong
        warm("monai.bundle", *flags, cwd=exported)


def test_it_holds_what_a_zoo_asks_for(exported: Path) -> None:
    wanted = "LICENSE configs/logging.conf configs/train.json docs/README.md docs/data_license.txt docs/export.md"
    wanted += " configs/evaluate.json configs/multi_gpu.json configs/multi_gpu_train.json"
    wanted += " models/model.pt models/model.ts models/model.onnx requirements.txt"
    assert [name for name in wanted.split() if not (exported / name).is_file()] == []
    state = torch.load(exported / "models" / "model.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) and value.device.type == "cpu" for value in state.values())
    sums = (exported / "models" / CHECKSUMS).read_text(encoding="utf-8")
    assert all(f"  model.{kind}\n" in sums for kind in ("pt", "ts", "onnx"))
    assert load(metadata(exported))["version"] in load(metadata(exported))["changelog"]


def test_a_program_of_others_in_a_configuration_is_named(tmp_path: Path) -> None:
    page = {
        "a": [{"_target_": "os.system", "command": "true"}, {"_target_": "Compose"}],
        "b": {"_target_": "torch.nn.ReLU"},
    }
    (tmp_path / "inference.json").write_text(json.dumps(page), encoding="utf-8")
    assert list(foreign_targets(tmp_path)) == ["inference.json calls os.system"]


def test_an_overlay_goes_where_its_description_says(repository: Path, tmp_path: Path) -> None:
    folder = repository / "bundles" / "any_view" / "configs"
    files = [folder / f"{name}.json" for name in ("inference", "small", "many_views", "train_intervals", "intervals")]
    write_configs(files, tmp_path / "configs")
    inference, train = (load(str(tmp_path / "configs" / f"{name}.json")) for name in ("inference", "train"))
    assert "calibrate" in str(train["run"]) and "calibrate" not in str(inference["run"])
    assert inference["step_channels"] == train["step_channels"] == load(str(folder / "small.json"))["step_channels"]
    assert str(inference["run"]).count("set_determinism") == 1 and "initialize" not in inference


def test_common_overlays_go_along_by_our_names_and_the_zoos(tmp_path: Path) -> None:
    """Also those of a bundle that is elsewhere."""
    copy = tmp_path / "bundles" / SOURCES[0].name
    shutil.copytree(SOURCES[0] / "configs", copy / "configs")
    write_configs([copy / "configs" / "inference.json"], tmp_path / "configs")
    names = {"evaluate.json", "multi_gpu.json", "multi_gpu_train.json"}
    assert {path.name for path in (tmp_path / "configs").iterdir()} & names == names
    ours, zoos = (tmp_path / "configs" / name for name in ("multi_gpu.json", "multi_gpu_train.json"))
    assert ours.read_bytes() == zoos.read_bytes()


def test_bad_input_is_one_line_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "wrong.pt").write_bytes(b"no weights")
    for flags, expected in (
        (["--bundle", "direct_regression+small", "--out", "full"], "full already exists; give --out a new folder"),
        (["--bundle", "direct_regression+tiny", "--out", "new"], "bundle 'direct_regression+tiny' has no"),
        (["--bundle", "nothing", "--out", "new"], "found no bundle 'nothing'"),
        (["--bundle", "direct_regression+small", "--checkpoint", "{}/wrong.pt", "--out", "new"], "wrong.pt"),
    ):
        flags = [flag.format(tmp_path) for flag in flags]
        flags[flags.index("--out") + 1] = str(tmp_path / flags[flags.index("--out") + 1])
        assert main(["export", *flags]) == 2
        assert expected in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "wrong.pt"]


def test_its_trace_refuses_radiographs_of_another_size(exported: Path) -> None:
    inputs = json.loads(Path(metadata(exported)).read_text(encoding="utf-8"))["network_data_format"]["inputs"]
    if inputs["image"]["format"] != "radiograph":
        pytest.skip("a network of slices takes any size")
    shape = [inputs["image"]["num_channels"], *inputs["image"]["spatial_shape"]]
    model = torch.jit.load(exported / "models" / "model.ts")
    assert model(torch.rand(1, *shape)).isfinite().all()
    with pytest.raises(torch.jit.Error, match=f"expected radiographs of {shape[1]} x {shape[2]} pixels, as the model"):
        model(torch.rand(1, shape[0], 2 * shape[1], 2 * shape[2]))
