"""One run at a time in an output folder, or at an output file.

A lock is the operating system's, on a hidden file that goes at the end: it is free as soon as its process has ended,
even by a kill or a power cut, and a file that is left locks nothing. It holds between machines where the file system
has locks for them. On a file system without any, and on Windows, nothing is locked.
"""

import errno
import os
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
    made = [folder for folder in lock.absolute().parents if not folder.exists()]
    try:
        file = _locked(lock, output, ranges, wait)
        try:
            yield
        finally:
            with file:
                if _take(file, ALL):  # no other part is at work
                    with suppress(OSError):
                        lock.unlink()
    finally:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()


def _locked(lock: Path, output: Path, ranges: Sequence[Range], wait: bool) -> IO[str]:
    """The open file of a lock that is held."""
    while True:
        try:
            with naming_the_disk(output, lock):
                lock.parent.mkdir(parents=True, exist_ok=True)
                file = open(lock, "a+", encoding="utf-8")
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            why = "permission denied" if isinstance(error, PermissionError) else "a file is where a folder must be"
            raise OSError(f"{output} cannot be written: {why}; choose another place") from error
        if not _take(file, ranges, wait):
            file.close()
            raise BlockingIOError(
                f"{output} is being written by another run; wait until it has ended, or choose another place"
            )
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()  # the run before removed it when it ended: take the next one


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
