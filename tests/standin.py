"""A server on this machine in the place of the Imaging Data Commons, and its index."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

BUCKET = "idc-open-data"

Files = dict[str, bytes]


@dataclass
class StandIn:
    """Series by their keys, and what was asked for.

    Attributes:
        index: The index, a Parquet file.
        series: Files of each series, by its key.
        page: Files that a list has at most.
        asked: Paths of the files that were asked for.
        before: Called with the path of a file and the answer's bytes; gives the bytes that are sent before the
            connection ends.
        status: What the server answers, by path.
        address: Its address.
    """

    index: Path
    series: dict[str, Files] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    page: int = 1000
    asked: list[str] = field(default_factory=list)
    before: Callable[[str, bytes], bytes] = lambda path, content: content
    status: dict[str, int] = field(default_factory=dict)
    address: str = ""

    def add(self, patient: str, number: str | None, files: Files, *, modality: str = "CT", **columns: Any) -> str:
        """Add a series, with its row in the index; gives its UID."""
        uid = columns.get("SeriesInstanceUID", f"1.2.{len(self.rows) + 1}")
        key = f"key-{len(self.rows) + 1}"
        self.series[key] = files
        row = {
            "collection_id": "lidc_idri", "PatientID": patient, "StudyInstanceUID": "1.2.3", "SeriesInstanceUID": uid,
            "Modality": modality, "SeriesNumber": number, "BodyPartExamined": "CHEST",
            "license_short_name": "CC BY 3.0", "source_DOI": "10.7937/k9/tcia.2015.lo9ql9sx", "aws_bucket": BUCKET,
            "crdc_series_uuid": key, "instanceCount": len(files),
            "series_size_MB": sum(map(len, files.values())) / 10**6,
        }  # fmt: skip
        self.rows.append(row | columns)
        self.write_index()
        return str(uid)

    def write_index(self) -> None:
        """Write the index as it is now."""
        import pyarrow
        from pyarrow.parquet import write_table

        table = {key: [row[key] for row in self.rows] for key in self.rows[0]}
        texts = {key: pyarrow.array(values, pyarrow.string()) for key, values in table.items() if key[0] not in "is"}
        write_table(pyarrow.table(table | texts), self.index)

    def flags(self, output: Path, **more: Any) -> dict[str, Any]:
        """Arguments of `fetch` for a quick run from here."""
        known = {"output": str(output), "index": str(self.index), "endpoint": self.address, "num_workers": 2}
        return known | {"collection": "lidc_idri"} | ({} if more.get("split") else {"min_slices": 1}) | more


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer as S3 does: a list of a bucket, or a file."""
        site, url = self.server.site, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if "list-type" in query:
            self._send(200, self._list(query).encode())
            return
        key, name = url.path.removeprefix(f"/{BUCKET}/").split("/")
        site.asked.append(url.path)
        content = site.series.get(key, {}).get(name)
        status = site.status.get(url.path, 404 if content is None else 200)
        self._send(status, content or b"", site.before(url.path, content or b""))

    def _list(self, query: dict[str, str]) -> str:
        site, key = self.server.site, query["prefix"].rstrip("/")
        files, first = sorted(site.series.get(key, {}).items()), int(query.get("continuation-token", 0))
        shown, rest = files[first : first + site.page], len(files) > first + site.page
        entries = "".join(
            f'<Contents><Key>{key}/{name}</Key><ETag>"{hashlib.md5(content).hexdigest()}"</ETag>'
            f"<Size>{len(content)}</Size></Contents>"
            for name, content in shown
        )
        token = f"<NextContinuationToken>{first + site.page}</NextContinuationToken>" if rest else ""
        return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{entries}{token}</ListBucketResult>'

    def _send(self, status: int, content: bytes, sent: bytes | None = None) -> None:
        sent = content if sent is None else sent
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(sent)
        if len(sent) < len(content):
            self.close_connection = True


class _Server(ThreadingHTTPServer):
    site: StandIn
    daemon_threads = True


@contextmanager
def serving(folder: Path) -> Iterator[StandIn]:
    """A stand-in that answers while the block runs."""
    site = StandIn(folder / "index.parquet")
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.site = site
        site.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()


def some_files(number: int, size: int = 3000) -> Files:
    """Files that no one reads, each with other bytes."""
    return {f"slice-{k}.dcm": os.urandom(size) for k in range(number)}
