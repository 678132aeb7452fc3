"""One run at a time in an output folder, or at an output file.

A lock is the operating system's, on a hidden file that goes at the end: it is free as soon as its process has ended,
even by a kill or a power cut, and a file that is left locks nothing. It holds between machines where the file system
has locks for them. On a file system without any, other processes are not kept out. On Windows, where an open file
cannot be removed, nothing is done at all: no lock, no check and no folder.
"""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from trct_monai.io.files import naming_the_disk

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"

Range = tuple[bool, int, int]
"""Bytes of the locked file: whether for one process alone, how many (0 for all that follow), and the first."""

ALL: Sequence[Range] = ((True, 0, 0),)

PATIENCE = 1.0
"""Seconds for which a shard tries again: one that ends holds all bytes for a moment, and its folder may go."""

HELD: set[tuple[int, int, int]] = set()
"""Process, device and inode of the files that are locked here.

The system's locks belong to a process: it may take them twice, and loses them all when it closes the file once.
"""


@contextmanager
def alone_in(folder: Path, shard: tuple[int, int] = (1, 1)) -> Iterator[None]:
    """Keep other runs out of an output folder, which is made if need be, and goes if nothing comes into it.

    Args:
        folder: The folder.
        shard: Part i of n: different parts may write at the same time, the same part or the whole may not.

    Raises:
        BlockingIOError: If another run writes there.
        OSError: If the folder cannot be written.
    """
    part, count = shard
    mine = count * (count - 1) // 2 + part  # a byte of its own for each part of each count
    with _held(folder / LOCK, folder, ALL if count == 1 else ((False, 1, 0), (True, 1, mine))):
        yield


@contextmanager
def alone_at(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other runs from an output file, or a folder that is to appear as a whole.

    Args:
        path: The file or folder.
        wait: Wait for the other run in place of refusing.

    Raises:
        BlockingIOError: If another run writes it.
        OSError: If the folder above cannot be written.
    """
    with _held(path.with_name(f".{path.name}{LOCK}"), path, ALL, wait):
        yield


@contextmanager
def _held(lock: Path, output: Path, ranges: Sequence[Range], wait: bool = False) -> Iterator[None]:
    if fcntl is None:
        yield
        return
    made = [folder for folder in lock.absolute().parents if not folder.exists()]
    try:
        file = _locked(lock, output, ranges, wait)
        key = _key(os.fstat(file.fileno()))
        HELD.add(key)
        try:
            yield
        finally:
            with file:
                if _take(file, ALL):  # no other part is at work
                    with suppress(OSError):
                        lock.unlink()
            HELD.discard(key)
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _key(status: os.stat_result) -> tuple[int, int, int]:
    return os.getpid(), status.st_dev, status.st_ino


def _locked(lock: Path, output: Path, ranges: Sequence[Range], wait: bool) -> IO[str]:
    """The open file of a lock that is held."""
    deadline = time.monotonic() + PATIENCE
    while True:
        file = _opened(lock, output, deadline)
        if file is None:
            raise _refusal(output)
        if not _take(file, ranges, wait):
            file.close()
            if len(ranges) == 1 or time.monotonic() > deadline:
                raise _refusal(output)
            time.sleep(0.01)
            continue
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()  # the run before removed it when it ended: take the next one


def _opened(lock: Path, output: Path, deadline: float) -> IO[str] | None:
    """The file of a lock, in a folder that another run may be removing; None if this process holds it."""
    while True:
        with suppress(OSError):
            if _key(lock.stat()) in HELD:
                return None
        try:
            with naming_the_disk(output, lock):
                lock.parent.mkdir(parents=True, exist_ok=True)
                return open(lock, "a+", encoding="utf-8")
        except (PermissionError, NotADirectoryError, FileExistsError, FileNotFoundError) as error:
            if any(folder.exists() and not folder.is_dir() for folder in lock.parents):
                why = "a file is where a folder must be"
            elif isinstance(error, FileExistsError | FileNotFoundError) and time.monotonic() < deadline:
                time.sleep(0.01)
                continue
            else:
                why = "permission denied" if isinstance(error, PermissionError) else str(error.strerror)
            raise OSError(f"{output} cannot be written: {why}; choose another place") from error


def _refusal(output: Path) -> BlockingIOError:
    return BlockingIOError(
        f"{output} is being written by another run; wait until it has ended, or choose another place"
    )


def _take(file: IO[str], ranges: Sequence[Range], wait: bool = False) -> bool:
    """Lock parts of a file: false if another process holds one; true as well where there are no locks."""
    if fcntl is None:
        return True
    for alone, length, first in ranges:
        try:
            fcntl.lockf(
                file, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB), length, first
            )
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
