"""The index of NCI's Imaging Data Commons: every public series, its size, its licence and its place."""

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, files, version
from pathlib import Path
from typing import Any

from trct_monai.io.case import check_file_name

NO_INDEX = "fetch needs idc-index, which brings the list of all public series: pip install 'trct-monai[fetch]'"

DISTRIBUTION = "idc-index-data"

COLUMNS = (
    "collection_id", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber",
    "BodyPartExamined", "license_short_name", "source_DOI", "aws_bucket", "crdc_series_uuid", "instanceCount",
    "series_size_MB",
)  # fmt: skip
"""Columns of the index, in the order of the attributes of `RemoteSeries`."""


@dataclass(frozen=True)
class RemoteSeries:
    """One DICOM series of the Imaging Data Commons.

    Attributes:
        collection: Such as lidc_idri.
        patient_id: PatientID.
        study_uid: StudyInstanceUID.
        uid: SeriesInstanceUID.
        modality: CT, CR or DX.
        number: SeriesNumber; empty if there is none.
        body_part: BodyPartExamined; empty if there is none.
        license: Its short name, such as CC BY 3.0.
        doi: What to cite.
        bucket: Where the files are.
        key: Their folder in the bucket.
        num_files: Number of files.
        num_bytes: Bytes of all of them.
    """

    collection: str
    patient_id: str
    study_uid: str
    uid: str
    modality: str
    number: str
    body_part: str
    license: str
    doi: str
    bucket: str
    key: str
    num_files: int
    num_bytes: int

    @property
    def folder(self) -> Path:
        """Where its files go, as idc-index puts them: what that has downloaded counts as done."""
        parts = (self.collection, self.patient_id, self.study_uid, f"{self.modality}_{self.uid}")
        for part in parts:
            check_file_name(part, "a name in the index")
        return Path(*parts)


def index_file(index: str | None = None) -> tuple[Path, str]:
    """The Parquet file of the index, and what to call it.

    Args:
        index: A file; that of the installed idc-index if None.

    Raises:
        ValueError: If idc-index is not installed.
        FileNotFoundError: If there is no such file.
    """
    if importlib.util.find_spec("pyarrow") is None or importlib.util.find_spec("requests") is None:
        raise ValueError(NO_INDEX)
    if index is not None:
        if not Path(index).is_file():
            raise FileNotFoundError(f"{index}: no such index; leave out --index for that of idc-index")
        return Path(index), index
    try:  # not imported: that reads texts in the locale's encoding, which ASCII cannot
        found = [file.locate() for file in files(DISTRIBUTION) or () if file.name == "idc_index.parquet"]
    except PackageNotFoundError:
        found = []
    if not found:
        raise ValueError(NO_INDEX)
    return Path(str(found[0])), f"{DISTRIBUTION} {version(DISTRIBUTION)}"


def read_collections(index: Path) -> list[str]:
    """The collections of an index that have CTs."""
    return sorted(set(_columns(index, ("collection_id",), [("Modality", "==", "CT")])["collection_id"]))


def read_collection(index: Path, collection: str, modalities: Collection[str]) -> list[RemoteSeries]:
    """The series of a collection, sorted by patient and UID.

    Raises:
        ValueError: If the index is damaged, or a series lacks its licence, size or place.
    """
    wanted = [("collection_id", "==", collection), ("Modality", "in", list(modalities))]
    table = _columns(index, COLUMNS, wanted)
    for key in ("SeriesNumber", "BodyPartExamined"):
        table[key] = [text or "" for text in table[key]]
    for key, values in table.items():
        if None in values:
            series = table["SeriesInstanceUID"][values.index(None)]
            raise ValueError(f"{index}: series {series} has no {key}; use idc-index's own index")
    table["series_size_MB"] = [round(size * 10**6) for size in table["series_size_MB"]]  # they are to the byte
    return sorted(
        (RemoteSeries(*values) for values in zip(*table.values(), strict=True)),
        key=lambda series: (series.patient_id, series.uid),
    )


def _columns(index: Path, columns: Sequence[str], wanted: list[tuple[str, str, Any]]) -> dict[str, list[Any]]:
    from pyarrow import ArrowException
    from pyarrow.parquet import read_table

    try:
        table = read_table(index, columns=list(columns), filters=wanted).to_pydict()
    except (ArrowException, KeyError) as error:
        raise ValueError(f"{index}: not an index of the Imaging Data Commons ({error})") from error
    return {key: table[key] for key in columns}
