"""Series out of a public bucket (S3): each file checked by size and, if stated, MD5; each series whole or not there.

A series that is not complete lies in a hidden folder, which `prepare` passes over and the next run completes.
"""

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from threading import Event
from typing import Any
from xml.etree import ElementTree

from trct_monai.io.files import read_json, replacing, write_json
from trct_monai.io.idc import RemoteSeries

ENDPOINT = "https://s3.amazonaws.com"

TRIES = 5
PAUSE = 1.0
"""Seconds before the second try; each further one waits twice as long."""

TIMEOUT = 60
"""Seconds without a byte after which a connection counts as broken."""

SLACK = 0.01
"""Share by which a series' bytes may differ from the index: what counts is what the server lists, file by file."""

RECORD = ".files.json"
"""Beside the files of a complete series: what they are of, and the bytes of each; `prepare` passes over it."""

ANSWERS_LATER = {429, 500, 502, 503, 504}
"""What a busy server answers."""

_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*\.dcm")
_MD5 = re.compile(r"[0-9a-f]{32}")


class CutError(ValueError):
    """A file that came with other bytes than the server announced."""


@dataclass(frozen=True)
class RemoteFile:
    """One file of a series.

    Attributes:
        url: Where it is.
        name: Its name.
        num_bytes: Its size.
        md5: Its checksum; empty where the server states none.
    """

    url: str
    name: str
    num_bytes: int
    md5: str

    def is_in(self, folder: Path) -> bool:
        """Whether the file is there, byte for byte."""
        path = folder / self.name
        return (
            path.is_file()
            and path.stat().st_size == self.num_bytes
            and self.md5 in ("", hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest())
        )


class Bucket:
    """A server of buckets, asked by several threads.

    Args:
        endpoint: Its address.
        connections: How many to keep open.

    Attributes:
        stopped: Set it, and no thread begins another file or try.
    """

    def __init__(self, endpoint: str, connections: int = 1) -> None:
        import requests

        if not endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint must begin with https:// or http://, got {endpoint!r}")
        self.endpoint = endpoint.rstrip("/")
        self.stopped = Event()
        self.session = requests.Session()
        self.session.headers["Accept-Encoding"] = "identity"  # sizes are those of the files
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, requests.adapters.HTTPAdapter(pool_maxsize=connections))

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def files(self, series: RemoteSeries) -> list[RemoteFile]:
        """The files of a series as the server lists them.

        Raises:
            ValueError: If they are not those of the index.
            ConnectionError: If the server does not answer.
        """
        url, found, token = f"{self.endpoint}/{series.bucket}", list[RemoteFile](), ""
        while True:
            query = {"list-type": "2", "prefix": f"{series.key}/"} | ({"continuation-token": token} if token else {})
            try:
                root = ElementTree.fromstring(self._try(partial(self._content, url, query)))
            except ElementTree.ParseError as error:
                raise ValueError(f"{url}: expected a list of files (S3), got something else ({error})") from error
            for entry in root.iterfind("{*}Contents"):
                key, size, tag = (entry.findtext(f"{{*}}{name}", "") for name in ("Key", "Size", "ETag"))
                name, md5 = key.removeprefix(f"{series.key}/"), tag.strip('"')
                if not _FILE.fullmatch(name) or not size.isdigit():
                    raise ValueError(f"{url}: expected a file of series {series.uid}, got {key!r} of {size!r} bytes")
                found.append(RemoteFile(f"{url}/{key}", name, int(size), md5 if _MD5.fullmatch(md5) else ""))
            token = root.findtext("{*}NextContinuationToken", "")
            if not token:
                break
        num_bytes = sum(file.num_bytes for file in found)
        if len(found) != series.num_files or abs(num_bytes - series.num_bytes) > SLACK * series.num_bytes:
            raise ValueError(
                f"series {series.uid} of {series.patient_id}: the index has {series.num_files} files of "
                f"{series.num_bytes} bytes, the server {len(found)} of {num_bytes}; a newer index may help: "
                "pip install --upgrade idc-index"
            )
        return found

    def get(self, file: RemoteFile, path: Path) -> None:
        """Write a file of the server, checked.

        Raises:
            ValueError: If the server has it no more, or gives other bytes each time.
            ConnectionError: If the connection breaks each time.
            WriteError: If the disk takes no more.
        """

        def once() -> None:
            digest, num_bytes = hashlib.md5(usedforsecurity=False), 0
            with replacing(path) as temporary:
                with self._answer(file.url) as answer, open(temporary, "wb") as out:
                    for block in answer.iter_content(2**18):
                        num_bytes += out.write(block)
                        digest.update(block)
                if num_bytes != file.num_bytes:
                    raise CutError(f"{file.url}: cut: expected {file.num_bytes} bytes, got {num_bytes}")
                if file.md5 not in ("", digest.hexdigest()):
                    raise CutError(f"{file.url}: changed on its way: expected MD5 {file.md5}, got {digest.hexdigest()}")

        self._try(once)

    def _content(self, url: str, query: dict[str, str]) -> bytes:
        with self._answer(url, query) as answer:
            return bytes(answer.content)

    @contextmanager
    def _answer(self, url: str, query: dict[str, str] | None = None) -> Iterator[Any]:
        """A good answer, open; a busy server's counts as a broken connection."""
        with self.session.get(url, params=query, stream=True, timeout=TIMEOUT) as answer:
            if answer.status_code in ANSWERS_LATER:
                raise ConnectionError(f"{answer.status_code} {answer.reason}")
            if answer.status_code != HTTPStatus.OK:
                raise ValueError(
                    f"{url}: the server answered {answer.status_code} {answer.reason}; a newer index may help: "
                    "pip install --upgrade idc-index"
                )
            yield answer

    def _try(self, once: Callable[[], Any]) -> Any:
        """What a function gives, after some tries."""
        import requests

        for number in range(TRIES):
            try:
                return once()
            except (requests.RequestException, ConnectionError, CutError) as error:
                if number == TRIES - 1:
                    if isinstance(error, CutError):
                        raise
                    raise ConnectionError(
                        f"{self.endpoint}: the connection failed {TRIES} times ({error}); what is complete stays, the "
                        "same command goes on from there"
                    ) from error
            if self.stopped.wait(PAUSE * 2**number):
                raise InterruptedError("stopped")


def is_complete(folder: Path, series: RemoteSeries) -> bool:
    """Whether a folder has the files of a series: as they were written, or, of another program, as in the index."""
    sizes = {path.name: path.stat().st_size for path in folder.glob("*.dcm")}
    try:
        return bool(read_json(folder / RECORD) == _record(series, sizes))
    except (OSError, ValueError):
        return (len(sizes), sum(sizes.values())) == (series.num_files, series.num_bytes)


def _record(series: RemoteSeries, sizes: dict[str, int]) -> dict[str, Any]:
    """What a complete series is known by: a revised one keeps its UID, but not its key."""
    return {"key": series.key, "num_files": series.num_files, "files": sizes}


def incomplete(folder: Path) -> Path:
    """The hidden folder of a series that is not complete."""
    return folder.with_name(f".{folder.name}.incomplete")


def bytes_in(folder: Path) -> int:
    """Bytes of the files that are in the hidden folder already."""
    return sum(path.stat().st_size for path in incomplete(folder).glob("*.dcm"))


def fetch_series(bucket: Bucket, series: RemoteSeries, folder: Path, arrived: Callable[[int], None]) -> None:
    """Bring a series into its folder, which appears when it is complete.

    Args:
        bucket: The server.
        series: The series.
        folder: Where it goes. Files that are there already stay if they are right.
        arrived: Takes the bytes of each file that is there.

    Raises:
        ValueError: If the server has other files than the index.
        ConnectionError: If the connection fails.
        InterruptedError: If another thread stopped all.
        WriteError: If the disk takes no more.
    """
    hidden = incomplete(folder)
    if folder.is_dir():  # something is missing, or too much in it
        if hidden.exists():
            raise ValueError(f"{folder} and {hidden.name} beside it are both incomplete: remove the first")
        folder.rename(hidden)
    files = bucket.files(series)
    for path in hidden.glob("*.dcm"):
        if path.name not in {file.name for file in files}:
            path.unlink()
    for file in files:
        if bucket.stopped.is_set():
            raise InterruptedError("stopped")
        if not file.is_in(hidden):
            bucket.get(file, hidden / file.name)
        arrived(file.num_bytes)
    write_json(hidden / RECORD, _record(series, {file.name: file.num_bytes for file in files}))
    hidden.replace(folder)
