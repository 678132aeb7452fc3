"""`python -m monai.bundle` checks weights, device, data and folders first, and says in one line what is wrong.

Most cases run here and look at the line that the process would show; three run as a process of their own.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import apply_transform

from tests.bundles.miniature import MINIATURE, RECONSTRUCTION, SIZES, files, run
from tests.bundles.sources import BUNDLES, name, read
from tests.files import Payload
from trct_monai.bundles.checks import check_run
from trct_monai.bundles.errors import HINT, PACKAGE, one_line
from trct_monai.io.weights import LFS_POINTER

INFERENCE = files(RECONSTRUCTION, "inference.json")
SMALL = SIZES | MINIATURE[RECONSTRUCTION.name]
NO_DEVICE = "cuda:99"


def line(config: list[str], **options: Any) -> str:
    """The line that a run shows. From Python the error itself is raised, in MONAI's wrapping."""
    with pytest.raises((RuntimeError, ValueError, OSError)) as raised:
        run(config, **options)
    text = one_line(raised.value)
    assert text is not None and "\n" not in text and len(text) < 600
    return text


def network_of(bundle: Path) -> torch.nn.Module:
    parser = ConfigParser()
    parser.read_config(files(bundle, "inference.json"))
    parser.update(SIZES | MINIATURE.get(bundle.name, {}))
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    return network


def weights(kind: str, folder: Path) -> Path:
    """A file of weights with one thing wrong."""
    path, network = folder / f"{kind}.pt", network_of(RECONSTRUCTION)
    state: dict[str, Any] = network.state_dict()
    if kind == "wrapped":
        state = torch.nn.DataParallel(network).state_dict()
    elif kind == "of another bundle":
        state = network_of(RECONSTRUCTION.with_name("any_view")).state_dict()
    elif kind == "of another size":
        state = {key: value[:1] if value.ndim else value for key, value in state.items()}
    elif kind == "pickled":
        state = {"bias": Payload(folder / "opened")}
    torch.save(state, path)
    if kind == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif kind == "a pointer":
        path.write_bytes(LFS_POINTER + b".github.com/spec/v1\noid sha256:0\nsize 1\n")
    elif kind == "missing":
        path.unlink()
    return path


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("missing", "no trained model at"),
        ("cut", "not weights that can be read"),
        ("a pointer", "is a Git LFS pointer"),
        ("wrapped", "every name begins with 'module.'"),
        ("of another bundle", "does not hold the weights of this DirectRegression: it lacks"),
        ("of another size", "does not hold the weights of this DirectRegression: .*size mismatch"),
        ("pickled", "got the Python object .*mkdir"),
    ],
)
def test_weights_that_do_not_fit_are_one_line(kind: str, expected: str, tmp_path: Path) -> None:
    path = weights(kind, tmp_path)
    text = line(INFERENCE, ckpt_path=str(path), output_dir=str(tmp_path / "out"), **SMALL)
    assert re.search(expected, text) and str(path) in text and "weights_only" not in text
    assert not (tmp_path / "out").exists() and not (tmp_path / "opened").exists()


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_every_bundle_refuses_weights_of_another(bundle: Path, tmp_path: Path) -> None:
    torch.save({"foreign": torch.zeros(2)}, tmp_path / "model.pt")
    options = {"ckpt_path": str(tmp_path / "model.pt"), "output_dir": str(tmp_path / "out")}
    text = line(files(bundle, "inference.json"), **options | SIZES | MINIATURE.get(bundle.name, {}))
    assert "does not hold the weights of this" in text and "1 (such as foreign) others" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["train.json", "inference.json"])
@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_every_bundle_checks_its_device_data_and_folder_first(bundle: Path, file: str, tmp_path: Path) -> None:
    config, out = files(bundle, file), tmp_path / "out"
    assert f"no device '{NO_DEVICE}' here" in line(config, device=NO_DEVICE, output_dir=str(out))
    assert "no such datalist" in line(config, datalist=str(tmp_path / "none.json"), output_dir=str(out))
    assert not out.exists()
    out.touch()
    assert f"--output_dir: {out / 'run'} cannot be written" in line(config, output_dir=str(out / "run"))


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_every_configuration_that_starts_something_checks_first(bundle: Path) -> None:
    for path in (bundle / "configs").glob("*.json"):
        if "initialize" in read(path):
            first = read(path)["initialize"][0]
            assert first["_target_"] in ("trct_monai.bundles.check_training", "trct_monai.bundles.check_inference")
            assert all(first[key] == f"@{key}" for key in ("bundle_root", "device", "datalist", "output_dir"))


def test_what_a_training_begins_with_is_read_before_its_data(tmp_path: Path) -> None:
    config = files(RECONSTRUCTION, "train.json")
    path = str(weights("cut", tmp_path))
    assert "not weights that can be read" in line(config, start_path=path, output_dir=str(tmp_path / "out"))
    assert "--resume_path: no weights at" in line(config, resume=True, output_dir=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a::b", "1.5", "3"])
def test_a_path_arrives_as_it_was_given(name: str, tmp_path: Path) -> None:
    path = tmp_path / name / "model.pt"
    path.parent.mkdir()
    assert f"no trained model at {path}:" in line(INFERENCE, ckpt_path=str(path), **SMALL)
    assert f"{path.with_name('list.json')}: no such datalist" in line(INFERENCE, datalist=f"{path.parent}/list.json")
    pictures = [f"{path.parent}/pa.png", f"{path.parent}/lat.png"]
    Path(pictures[0]).touch()
    assert f"{pictures[0]}: not a radiograph" in line(INFERENCE, radiographs=pictures, load_pretrain=False, **SMALL)


def test_a_path_that_monai_changes_is_refused(tmp_path: Path) -> None:
    """It reads # as its separator ::, and would write to a folder of another name."""
    expected = "MONAI reads # in a path as ::; give a path without #, or use python -m trct_monai run"
    for key in ("ckpt_path", "output_dir", "datalist", "bundle_root"):
        assert expected in line(INFERENCE, **{key: str(tmp_path / "run#3" / "x")})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [123, 1.5, True, ("a", "b"), {"a": 1}])
def test_what_the_shell_makes_of_a_path_is_refused(value: Any, tmp_path: Path) -> None:
    """Fire reads 123 as a number and a,b as two texts."""
    for key in ("ckpt_path", "output_dir", "datalist"):
        assert f"--{key}: expected a path, got {value!r}" in line(INFERENCE, **{key: value})


@pytest.mark.slow
def test_an_error_in_a_worker_is_the_line_that_it_was() -> None:
    """PyTorch gives it as text, with the traceback in it."""
    loader = torch.utils.data.DataLoader(Damaged(), num_workers=1, multiprocessing_context="forkserver")
    with pytest.raises(RuntimeError) as raised:
        next(iter(loader))
    assert one_line(raised.value) == f"a.png: damaged, in two lines{HINT}"


class Damaged(torch.utils.data.Dataset[int]):
    """Raises what a transform raises, as MONAI wraps it."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        try:
            raise ValueError("a.png: damaged,\nin two lines")
        except ValueError as error:
            raise RuntimeError("applying transform") from error


@pytest.mark.parametrize(
    ("code", "file", "expected"),
    [
        ("_, _ = 1, 2, 3", "of_a_user.py", True),
        ("raise ValueError('x')", "of_a_user.py", True),
        ("_, _ = 1, 2, 3", PACKAGE / "transforms" / "ours.py", True),
        ("raise ValueError('x')", PACKAGE / "transforms" / "ours.py", False),
    ],
)
def test_a_line_says_how_to_see_the_calls_unless_the_library_refused(
    code: str, file: str | Path, expected: bool
) -> None:
    space: dict[str, Any] = {}
    exec(compile(f"def transform(data): {code}", str(file), "exec"), space)
    with pytest.raises(RuntimeError) as raised:
        apply_transform(space["transform"], {})
    assert (HINT in str(one_line(raised.value))) is expected


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB."),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"),
        RuntimeError("CUDA error: CUDA-capable device(s) is/are busy or unavailable\nCUDA kernel"),
    ],
)
def test_a_device_that_others_use_is_there(
    error: RuntimeError, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "zeros", fails)
    with pytest.raises(ValueError, match="^device 'cuda:0' is in use .CUDA .*; wait until it is free"):
        check_run(str(tmp_path), "cuda:0")


def test_an_error_of_ours_keeps_its_traceback() -> None:
    assert one_line(TypeError("a fault of the program")) is None and one_line(RuntimeError("out of memory")) is None


def test_a_workflow_in_python_raises_the_error(tmp_path: Path) -> None:
    workflow = ConfigWorkflow(config_file=INFERENCE, workflow_type="infer", device=NO_DEVICE)
    with pytest.raises(RuntimeError) as raised:
        workflow.initialize()
    assert isinstance(raised.value.__cause__, ValueError)


@pytest.mark.slow
def test_the_shell_shows_one_line(tmp_path: Path) -> None:
    (tmp_path / "run#3").mkdir()
    path, options = weights("pickled", tmp_path), [f"--{key}={value}" for key, value in SMALL.items()]
    metadata, exported = RECONSTRUCTION / "configs" / "metadata.json", tmp_path / "model.ts"
    bundle, output = ["--config_file", INFERENCE[0]], ["--output_dir", "out"]
    export = ["ckpt_export", "network_def", "--filepath", str(exported), "--meta_file", str(metadata)]
    commands = {
        "got the Python object": ["run", *bundle, *output, "--ckpt_path", str(path), *options],
        "'run#3/model.pt' does not arrive as it is": ["run", *bundle, *output, "--ckpt_path", "run#3/model.pt"],
        "--ckpt_path: expected a path, got 123": ["run", *bundle, *output, "--ckpt_path", "123"],
        "got the Python object .*not loaded": [*export, *bundle, "--ckpt_file", str(path), "--use_trace", "True"],
    }
    for expected, command in commands.items():
        done = subprocess.run(
            [sys.executable, "-m", "monai.bundle", *command], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        *others, last = done.stderr.splitlines()
        assert done.returncode == 1 and last.startswith("error: ") and re.search(expected, last), done.stderr
        assert "Traceback" not in done.stdout + done.stderr and "weights_only" not in done.stdout + done.stderr
        assert all("trusted" in other or "a source you trust" in other or not other.strip() for other in others), others
    assert not (tmp_path / "out").exists() and not (tmp_path / "opened").exists() and not exported.exists()
