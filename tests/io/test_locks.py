"""One run at a time: a lock is another process's until that ends, and nothing of it stays."""

import errno
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from trct_monai.io import locks
from trct_monai.io.locks import LOCK, alone_at, alone_in

fcntl = pytest.importorskip("fcntl")

HOLD = """
import fcntl, sys, time
file = open(sys.argv[1], "a+")
for first in sys.argv[2:]:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(first))
print("held", flush=True)
time.sleep(60)
"""

Hold = Callable[..., "Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Have another process lock bytes of a file."""
    others = []

    def start(path: Path, *first: int) -> "Popen[str]":
        other = Popen([sys.executable, "-c", HOLD, str(path), *map(str, first)], stdout=subprocess.PIPE, text=True)
        others.append(other)
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        return other

    yield start
    for other in others:
        other.kill()
        other.communicate()


def test_a_folder_is_free_again_when_the_other_was_killed(tmp_path: Path, hold: Hold) -> None:
    other = hold(tmp_path / LOCK, 1)
    with pytest.raises(BlockingIOError, match="is being written by another run; wait until it has ended"):
        with alone_in(tmp_path):
            pass
    other.kill()
    other.wait()
    with alone_in(tmp_path):
        (tmp_path / "made").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_shards_keep_only_their_own_and_whole_runs_out(tmp_path: Path, hold: Hold) -> None:
    with alone_in(tmp_path, (2, 3)):
        pass
    other = hold(tmp_path / LOCK, 2 + 3)  # the byte of 2/3
    with alone_in(tmp_path, (1, 3)):
        pass
    assert (tmp_path / LOCK).exists()  # the other's
    for shard in ((2, 3), (1, 1)):
        with pytest.raises(BlockingIOError):
            with alone_in(tmp_path, shard):
                pass
    other.kill()
    other.wait()


def test_a_shard_begins_while_another_ends(tmp_path: Path, hold: Hold) -> None:
    """That one holds byte 0 for itself, for a moment."""
    other = hold(tmp_path / LOCK, 0)
    threading.Timer(0.1, other.kill).start()
    with alone_in(tmp_path, (1, 2)):
        pass


def test_a_folder_that_goes_meanwhile_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As another shard removes it that made nothing: between making and asking, or between making and opening."""
    mkdir, fails = Path.mkdir, [FileExistsError(errno.EEXIST, "File exists"), None]

    def goes(path: Path, *args: Any, **kwargs: Any) -> None:
        if not fails:
            mkdir(path, *args, **kwargs)
        elif (error := fails.pop(0)) is not None:
            raise error

    monkeypatch.setattr(Path, "mkdir", goes)
    with alone_in(tmp_path / "out", (1, 2)):
        assert (tmp_path / "out" / LOCK).is_file()
    assert fails == [] and list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="out cannot be written: a file is where a folder must be"):
        with alone_in(tmp_path / "file" / "out"):
            pass


@pytest.mark.parametrize("shards", [((1, 1), (1, 1)), ((1, 2), (2, 2))])
def test_one_process_is_refused_too_and_the_lock_stays(shards: tuple[tuple[int, int], ...], tmp_path: Path) -> None:
    with alone_in(tmp_path, shards[0]):
        for _ in range(2):
            with pytest.raises(BlockingIOError, match="is being written by another run"):
                with alone_in(tmp_path, shards[1]):
                    pass
        done = subprocess.run(
            [sys.executable, "-c", HOLD, str(tmp_path / LOCK), "2"], capture_output=True, text=True, check=False
        )
        assert "BlockingIOError" in done.stderr
    with alone_in(tmp_path, shards[1]):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fails", [False, True])
def test_folders_that_stay_empty_go_again(tmp_path: Path, fails: bool) -> None:
    try:
        with alone_in(tmp_path / "a" / "b"):
            assert (tmp_path / "a" / "b" / LOCK).is_file()
            if fails:
                raise KeyError
    except KeyError:
        pass
    with alone_at(tmp_path / "c" / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_next_one_locks_a_file_that_exists(tmp_path: Path) -> None:
    """A run that had the file open when another removed it takes the new one."""
    with alone_at(tmp_path / "file"):
        (tmp_path / f".file{LOCK}").unlink()
        with alone_at(tmp_path / "file"):
            assert (tmp_path / f".file{LOCK}").is_file()


def test_without_locks_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a network drive that has none."""

    def refuses(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refuses)
    with alone_in(tmp_path / "out"), alone_at(tmp_path / "file"):
        (tmp_path / "out" / "made").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "made"]


def test_on_windows_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no fcntl, and a file that is open cannot be removed."""
    monkeypatch.setattr(locks, "fcntl", None)
    with alone_in(tmp_path / "out"), alone_in(tmp_path / "out"):
        assert list(tmp_path.iterdir()) == []
