"""Text, JSON, CSV and pictures: read with one line for what is wrong, written whole or not at all.

Everything is written to a temporary name beside its place and renamed: after a kill, a power cut or on a full disk
the old file is there as it was. What a killed run left goes when another process writes the same file again.
"""

import csv
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import StringIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from zipfile import BadZipFile

import numpy as np

from trct_monai.io.limits import check_bytes

PARTIAL = ".partial"
"""How temporary names end."""

FORMULA = re.compile(r"'*[=+\-@\t\r\n]")
"""How text begins that a spreadsheet takes for a formula; after apostrophes, so that each text has one cell."""


ADVICE = {
    errno.ENOSPC: "make room there, or write to another disk",
    errno.EDQUOT: "delete some of your files there, or write to another disk",
    errno.EFBIG: "raise the limit (ulimit -f, or the file system's own), or write to another disk",
    errno.EROFS: "write to another disk",
}
"""What to do about an error that only writing can raise, by its number."""


class WriteError(OSError):
    """A disk that takes no more: the message names the file, the disk, what is free on it, and what to do."""


@contextmanager
def naming_the_disk(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Turn what a full or read-only disk makes of a block into a `WriteError`; other errors pass.

    Args:
        path: What the block writes.
        temporary: The file or folder that it writes to in its place, and that goes when it fails.

    Raises:
        WriteError: If the disk is full or read-only, the quota is used up, or the file larger than allowed.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = error if isinstance(error, OSError) and error.errno else _reason(temporary or path)
        if isinstance(error, WriteError) or reason is None or reason.errno not in ADVICE:
            raise
        place = path.absolute()
        mount = next(folder for folder in (place, *place.parents) if os.path.ismount(folder))
        meant = Path(*(re.sub(r"^\.(.+)\.\d+\.partial$", r"\1", part) for part in path.parts))
        gone = () if temporary is None else (temporary, *temporary.rglob("*"))
        given_back = sum(file.stat().st_size for file in gone if file.is_file())
        free = (shutil.disk_usage(mount).free + given_back) / 2**20
        raise WriteError(
            f"{meant}: not written: {reason.strerror}; {free:.1f} MiB are free on {mount}; {ADVICE[reason.errno]}, "
            "and run the same command again"
        ) from error


def _reason(place: Path) -> OSError | None:
    """Why a library could not write, if it is the disk: PyTorch and ITK do not say, but a few more bytes do."""
    try:
        with TemporaryFile(dir=place) if place.is_dir() else open(place, "ab") as file:
            file.write(bytes(2**16))
            file.flush()
    except OSError as error:
        return error
    return None


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name to write to, which becomes `path` when the block ends, and goes when it fails.

    Folders above are made if need be.

    Args:
        path: The file to be written.

    Raises:
        WriteError: If the disk takes no more.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with naming_the_disk(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(_left_in(path.parent.absolute()), [path.name])
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())  # or a power cut may leave the new name with nothing in it
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def partial_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder with a temporary name beside `path`, which goes when the block ends.

    Args:
        path: What the folder's content will be part of; folders above are made if need be.

    Raises:
        WriteError: If the disk takes no more.
    """
    path = Path(path)
    temporary = _temporary(path)
    try:
        with naming_the_disk(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove(_left_in(path.parent.absolute()), [path.name])
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")


@contextmanager
def replacing_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """An empty folder to write into, which becomes `folder` when the block ends, and goes when it fails.

    A folder that was there before is moved aside first and removed last.

    Raises:
        WriteError: If the disk takes no more.
    """
    folder = Path(folder)
    stale = folder.with_name(f".{folder.name}.{os.getpid()}.stale{PARTIAL}")
    try:
        with partial_folder(folder) as temporary:
            yield temporary
            if folder.exists():
                folder.rename(stale)
            try:
                temporary.rename(folder)
            except OSError:
                if stale.exists():
                    stale.rename(folder)
                raise
    finally:
        shutil.rmtree(stale, ignore_errors=True)


def remove_partial(parent: Path, names: Sequence[str]) -> None:
    """Remove what killed runs left of these files and folders; a folder that was being replaced comes back.

    What belongs to a process that lives on this machine stays.
    """
    _remove(_partial_in(parent), names)


def _partial_in(parent: Path) -> list[Path]:
    return list(parent.glob(f".*{PARTIAL}"))


@lru_cache(maxsize=64)
def _left_in(parent: Path) -> list[Path]:
    """The temporary files in a folder when this process first wrote there: to list it at each write takes too long."""
    return _partial_in(parent)


def _remove(left: Sequence[Path], names: Sequence[str]) -> None:
    wanted = set(names)
    for path in left:
        name, _, process = path.name[1:].removesuffix(PARTIAL).removesuffix(".stale").rpartition(".")
        if name in wanted and process.isdigit() and not _lives(int(process)) and path.exists():
            if path.name.endswith(f".stale{PARTIAL}") and not path.with_name(name).exists():
                path.rename(path.with_name(name))
            elif path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    """Whether a process of this machine has this number; on Windows, where asking would end it, yes."""
    if os.name == "nt":
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return True


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file of any kind."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text with Unix line ends."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any, indent: int | None = 1) -> None:
    """Write JSON, names in any script as they are; NaN and infinity are refused.

    Raises:
        ValueError: If a number is not finite, which JSON does not know.
    """
    try:
        text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{path}: {error}; nothing was written") from error
    write_text(path, text + "\n")


def write_csv(
    path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None
) -> None:
    """Write a table.

    Args:
        path: Where to write.
        rows: Values by column; a column that a row lacks stays empty.
        columns: The columns in their order; every key of any row if None.
    """
    write_text(path, format_csv(rows, columns))


def format_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """A table as `write_csv` writes it."""
    header = list(dict.fromkeys(key for row in rows for key in row)) if columns is None else list(columns)
    text = StringIO()
    writer = csv.DictWriter(text, fieldnames=header, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: as_cell(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def as_cell(value: Any) -> Any:
    """A value of a table; text that a spreadsheet would run as a formula gets an apostrophe before it.

    `read_csv` takes it off again.
    """
    if isinstance(value, str) and FORMULA.match(value):
        try:
            float(value)  # a number may have a sign
        except ValueError:
            return f"'{value}"
    return value


def write_picture(path: str | os.PathLike[str], pixels: np.ndarray, transparent: int | None = None) -> None:
    """Write grey pixels (rows, columns) of 8 or 16 bits as PNG; those of the value `transparent` are transparent."""
    from PIL import Image

    with replacing(path) as partial:
        Image.fromarray(pixels).save(partial, format="PNG", transparency=transparent)


def write_array(path: str | os.PathLike[str], values: np.ndarray) -> None:
    """Write numbers as .npy."""
    with replacing(path) as partial, open(partial, "wb") as file:
        np.save(file, values)


def read_array(path: str | os.PathLike[str]) -> np.ndarray:
    """The numbers of a .npy file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds anything else than one array of numbers, or has fewer bytes than it states.
    """
    try:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
    except (EOFError, SyntaxError, TypeError, OverflowError, BadZipFile) as error:
        raise ValueError(f"not an array that can be read ({error})") from error
    if not isinstance(values, np.ndarray):
        values.close()
        raise ValueError("expected one array of numbers, got an archive of them (.npz); save one by numpy.save")
    check_bytes(values.nbytes, "its numbers")
    return np.array(values)


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error


def read_csv(path: str | os.PathLike[str]) -> list[dict[str, str]]:
    """The rows of a table, values as text by column.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not UTF-8.
    """
    rows = csv.DictReader(StringIO(read_text(path), newline=""))
    return [{key: _as_text(value) for key, value in row.items()} for row in rows]


def _as_text(cell: Any) -> Any:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and FORMULA.match(cell) else cell
