"""One run at a time: a lock is another process's until that ends, and nothing of it stays."""

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen

import pytest

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
