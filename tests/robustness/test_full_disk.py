"""A disk that takes no more: one line says which, the old files are whole, and with more room the command goes on."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.bundles.miniature import RECONSTRUCTION, command
from tests.robustness.commands import (
    COMMANDS,
    Inputs,
    Undisturbed,
    assert_said_in_one_line,
    contents,
    half_written,
    resumed,
)
from tests.robustness.trials import Trials

pytestmark = pytest.mark.slow

ONE_PROCESS = [name for name in COMMANDS if "workers" not in name]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory that takes a few pages."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


@pytest.mark.parametrize("name", ["phantoms", "prepare", "evaluate", "leaderboard", "report", "export", "training"])
def test_a_full_disk_is_named_and_the_command_goes_on_when_there_is_room(
    name: str, trials: Trials, inputs: Inputs, undisturbed: Callable[[str], Undisturbed], small_disk: Path
) -> None:
    whole, out = undisturbed(name).out, small_disk / "out"
    expected = contents(whole)
    resize(small_disk, sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 2)
    full = trials.run(*COMMANDS[name](inputs, out))
    assert_said_in_one_line(
        full, str(out), "not written: No space left on device; ", f" MiB are free on {small_disk}; make room there"
    )
    assert half_written(small_disk) == []
    if name != "training":
        assert contents(out).items() <= expected.items()
    resize(small_disk, 0)
    trials.succeed(*resumed(COMMANDS[name](inputs, out), out))
    assert contents(out) == expected


@pytest.mark.parametrize("name", ONE_PROCESS)
def test_a_file_beyond_the_limit_is_named(name: str, trials: Trials, inputs: Inputs, tmp_path: Path) -> None:
    out = tmp_path / "out"
    limited = trials.run(*COMMANDS[name](inputs, out), largest_file=2000)
    assert_said_in_one_line(limited, str(out), "not written: File too large; ", " are free on /", "ulimit -f")
    assert half_written(tmp_path) == []


def test_a_disk_that_is_full_of_records_is_named(
    trials: Trials, inputs: Inputs, small_disk: Path, tmp_path: Path
) -> None:
    resize(small_disk, 8192)
    records = small_disk / "records"
    full = trials.run(*command(RECONSTRUCTION, inputs.datalist, tmp_path, pictures=True, tensorboard_dir=records))
    assert_said_in_one_line(full, str(records), "not written: No space left on device")


@pytest.mark.parametrize("name", ["report", "training"])
def test_the_old_file_stays_when_the_new_one_does_not_fit(
    name: str, trials: Trials, inputs: Inputs, undisturbed: Callable[[str], Undisturbed], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(undisturbed(name).out, out)
    before = contents(out)
    assert trials.run(*COMMANDS[name](inputs, out), largest_file=2000)["code"] > 0
    assert contents(out) == before


@pytest.mark.parametrize("name", ["prepare", "report", "training"])
def test_inputs_may_be_read_only_and_on_another_disk(
    name: str,
    trials: Trials,
    inputs: Inputs,
    undisturbed: Callable[[str], Undisturbed],
    small_disk: Path,
    tmp_path: Path,
) -> None:
    resize(small_disk, 0)
    folder, out = inputs.datalist.parents[1], tmp_path / "out"
    shutil.copytree(folder, small_disk / "inputs")
    copies = Inputs(*(small_disk / "inputs" / path.relative_to(folder) for path in vars(inputs).values()))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    trials.succeed(*COMMANDS[name](copies, out))
    assert contents(out).keys() == contents(undisturbed(name).out).keys()
    refused = trials.run(*COMMANDS[name](inputs, small_disk / "out"))
    assert_said_in_one_line(refused, str(small_disk / "out"), "Read-only file system")


@pytest.mark.parametrize("name", ["phantoms", "evaluate", "report", "export"])
def test_an_output_that_cannot_be_is_refused_in_one_line(
    name: str, trials: Trials, inputs: Inputs, tmp_path: Path
) -> None:
    out = tmp_path / "file" / "out"
    out.parent.touch()
    assert_said_in_one_line(
        trials.run(*COMMANDS[name](inputs, out)), str(out), "cannot be written: a file is where a folder must be"
    )
    assert list(tmp_path.iterdir()) == [out.parent]
