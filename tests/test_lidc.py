"""`make lidc`, from a server on this machine to the leaderboard, and the Slurm array that may prepare the cases."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bundles.miniature import MINIATURE
from tests.files import save_series
from tests.standin import serving
from trct_monai.io.datalist import load_datalist
from trct_monai.io.files import read_csv
from trct_monai.phantoms import thorax_phantom

pytestmark = pytest.mark.skipif(os.name == "nt", reason="a shell script")

CTS = (("0001", "3000566"), ("0002", "3000522"), ("0010", "3000518"), ("0003", "3000611"), ("0442", "5405"))
"""Patients of the published lists: two for training, one whom `split` draws for validation, two for the test."""


def make_lidc(repository: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """`make lidc` in this environment, as it is."""
    words = [f"{key}={value}" for key, value in {"VENV": sys.prefix, **variables}.items()]
    command = ["make", "--silent", "--old-file=install", "lidc", *words]
    return subprocess.run(command, cwd=repository, check=False, capture_output=True, encoding="utf-8")


@pytest.mark.slow
def test_one_command_goes_from_public_cts_to_a_leaderboard(repository: Path, tmp_path: Path) -> None:
    network = " ".join(
        f"--{key} {str(value).replace(' ', '')}" for key, value in MINIATURE["direct_regression"].items()
    )
    with serving(tmp_path) as site:
        for seed, (patient, number) in enumerate((*CTS, ("0442", "5472"))):
            phantom, uid = thorax_phantom(seed, size=40, findings=[]), f"1.2.3.{seed}"
            tags = {"0020|0011": number, "0008|0020": "20000101", "0018|0015": "CHEST"}
            files = save_series(
                tmp_path / uid, phantom.ct_hu, phantom.affine, uid=uid, patient_id=f"LIDC-IDRI-{patient}", tags=tags
            )
            contents = {path.name: path.read_bytes() for path in files}
            site.add(f"LIDC-IDRI-{patient}", number, contents, SeriesInstanceUID=uid)
        small = "--num_workers 0"
        variables = {
            "LIDC": str(tmp_path / "lidc"),
            "FETCH": f"--index {site.index} --endpoint {site.address}",
            "SIZE": "16",
            "PREPARE": f"--radiograph_size 32 {small}",
            "SPLIT": "--fractions 0.7/0.15/0.15",
            "TRAINING": "direct_regression+smoke",
            "TRAIN": network,
            "RECONSTRUCT": f"--volume_size 16 --radiograph_size 32 {network}",
            "BOARD": f"--baselines mean_volume,nearest_neighbour {small}",
        }
        site.status = dict.fromkeys([f"/idc-open-data/key-3/{name}" for name in site.series["key-3"]], 404)
        stopped = make_lidc(repository, **variables)
        assert stopped.returncode and "[1/6]" in stopped.stdout and "[2/6]" not in stopped.stdout
        assert "error: 1 of 6 series are not complete; the first: " in stopped.stderr
        asked, site.asked, site.status = site.asked, [], {}
        done = make_lidc(repository, **variables)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        assert not set(site.asked) & {path for path in asked if "/key-3/" not in path}
    datalist = tmp_path / "lidc" / "cases" / "x2ct.json"
    patients = {
        section: sorted(case["patient_id"][-4:] for case in load_datalist(datalist, section))
        for section in ("training", "validation", "test")
    }
    assert patients == {"training": ["0001", "0002"], "validation": ["0010"], "test": ["0003", "0442", "0442"]}
    board = read_csv(tmp_path / "lidc" / "leaderboard" / "leaderboard.csv")
    assert {row["method"] for row in board} == {"mean_volume", "nearest_neighbour", "direct_regression"}


@pytest.fixture
def said(tmp_path: Path) -> Path:
    """A folder with a `python` and an `sbatch` that say what they are called with, and cases that FETCHED names."""
    writes = '[[ " $* " != *" split "* ]] || echo "$FETCHED" >lidc/cases/x2ct.json\n'
    (tmp_path / "lidc" / "cases").mkdir(parents=True)
    for name in ("python", "sbatch"):
        (tmp_path / name).write_text(f'#!/bin/bash\necho {name} "$@"\n{writes}', encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(said: Path, script: Path, *words: str, status: int = 0, **variables: str) -> list[str]:
    """The lines of a script that ends with a status."""
    environment = {**os.environ, "PATH": f"{said}{os.pathsep}{os.environ['PATH']}", "FETCHED": "all", **variables}
    done = subprocess.run(
        ["bash", str(script), *words], cwd=said, env=environment, check=False, capture_output=True, encoding="utf-8"
    )
    assert done.returncode == status, done.stdout + done.stderr
    return (done.stdout + done.stderr).splitlines()


def training_of(lines: list[str]) -> str:
    (training,) = (line for line in lines if line.startswith("python") and " training " in line)
    return training


def test_a_training_that_was_stopped_is_resumed(repository: Path, said: Path) -> None:
    script, resume = repository / "examples" / "lidc.sh", said / "lidc" / "any_view_small" / "resume"
    for state in ("False", "True"):
        lines = run(said, script, LIDC=str(said / "lidc"), BUNDLE="any_view+small", FETCH="--limit 9")
        training = training_of(lines)
        assert training.startswith("python -m trct_monai run any_view+small training ")
        assert training.endswith(f"--resume {state}") and f"--ckpt_path {resume.parent / 'model.pt'}" in training
        assert any("fetch" in line and line.endswith("--limit 9") for line in lines)
        resume.mkdir(parents=True, exist_ok=True)
        (resume / "checkpoint.pt").touch()


TRIAL = {"LIDC": "lidc", "BUNDLE": "trct_gan", "FETCHED": "a hundred", "TRAIN": "--epochs 9"}


@pytest.mark.parametrize(
    "others", [{"FETCHED": "all"}, {"TRAIN": ""}, {"TRAINING": "trct_gan+smoke"}, {"BUNDLE": "trct+gan"}]
)
def test_a_training_by_other_cases_or_settings_is_not_resumed(
    repository: Path, said: Path, others: dict[str, str]
) -> None:
    script, output = repository / "examples" / "lidc.sh", said / "lidc" / "trct_gan"
    run(said, script, **TRIAL)
    (output / "resume").mkdir()
    (output / "resume" / "checkpoint.pt").touch()
    lines = run(said, script, status=2, **TRIAL | others)
    expected = "error: lidc/trct_gan was trained on other cases or by other settings; remove it or choose another LIDC"
    assert lines[-1] == expected and not any(" training " in line for line in lines)
    assert training_of(run(said, script, **TRIAL)).endswith("--resume True --epochs 9")
    (output / "resume" / "checkpoint.pt").unlink()
    assert " --resume False" in training_of(run(said, script, **TRIAL | others))


@pytest.mark.parametrize("others", [{"SIZE": "128"}, {"PREPARE": "--center body"}])
def test_other_cases_in_the_same_folder_are_refused_first(repository: Path, said: Path, others: dict[str, str]) -> None:
    script = repository / "examples" / "lidc.sh"
    run(said, script, **TRIAL)
    (line,) = run(said, script, status=2, **TRIAL | others)
    assert line.startswith("error: lidc/cases was made with SIZE=64 PREPARE=, not SIZE=")
    assert line.endswith("; remove it or choose another LIDC")


def test_all_bundles_with_predictions_of_these_cases_are_in_the_table(repository: Path, said: Path) -> None:
    script, board = (
        repository / "examples" / "lidc.sh",
        "python -m trct_monai leaderboard --datalist lidc/cases/x2ct.json",
    )
    for name in ("any_view_small", "stopped", "trct_gan"):
        (said / "lidc" / name).mkdir()
        (said / "lidc" / name / "model.pt").touch()
    run(said, script, LIDC="lidc", BUNDLE="any_view+small")
    lines = run(said, script, LIDC="lidc", BUNDLE="trct_gan")
    ours = "any_view_small=lidc/any_view_small/predictions,trct_gan=lidc/trct_gan/predictions"
    assert lines[-1] == f"{board} --output lidc/leaderboard --methods {ours}"
    left_out = "left out: lidc/{} has no complete predictions of these cases; give its BUNDLE again"
    assert [line for line in lines if "left out" in line] == [left_out.format("stopped")]
    lines = run(said, script, LIDC="lidc", BUNDLE="trct_gan", FETCHED="more")
    assert lines[-1].endswith(" --methods trct_gan=lidc/trct_gan/predictions")
    assert [line for line in lines if "left out" in line] == [
        left_out.format(name) for name in ("any_view_small", "stopped")
    ]


def test_predictions_count_no_more_once_their_training_goes_on(repository: Path, said: Path) -> None:
    script, output = repository / "examples" / "lidc.sh", said / "lidc" / "trct_gan"
    run(said, script, LIDC="lidc", BUNDLE="trct_gan")
    assert (output / "predictions.txt").is_file()
    with open(said / "python", "a", encoding="utf-8") as python:
        python.write('[[ " $* " != *" training "* ]]\n')
    run(said, script, status=1, LIDC="lidc", BUNDLE="trct_gan")
    assert not (output / "predictions.txt").exists()


def test_an_array_prepares_one_share_a_task(repository: Path, said: Path) -> None:
    lines = run(said, repository / "examples" / "lidc.sh", SHARDS="16", LIDC="lidc")
    (batch,) = (line for line in lines if line.startswith("sbatch"))
    assert batch.startswith("sbatch --wait --array=1-16 ") and "prepare.sbatch --input lidc/cts --output " in batch
    script = repository / "examples" / "slurm" / "prepare.sbatch"
    slurm = {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_MAX": "16", "SLURM_CPUS_PER_TASK": "4"}
    expected = ["python -m trct_monai prepare --num_workers 4 --input a --output b --shard 3/16"]
    assert run(said, script, "--input", "a", "--output", "b", **slurm) == expected
    again = slurm | {"SLURM_ARRAY_TASK_MAX": "3", "SHARDS": "16"}
    assert run(said, script, "--input", "a", "--output", "b", **again) == expected
