"""`fetch`: from a server on this machine, and choices out of the real index."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets.small import files_of
from tests.standin import BUCKET, StandIn, serving, some_files
from trct_monai.commands import main
from trct_monai.datasets.fetch import fetch
from trct_monai.io import bucket, idc
from trct_monai.io.files import WriteError, read_csv
from trct_monai.io.idc import read_collection

ONE = "lidc_idri/LIDC-IDRI-0001/1.2.3/CT_1.2.1"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """Two patients of the published training list with a CT each, and a radiograph of the first."""
    monkeypatch.setattr(bucket, "PAUSE", 0.01)
    with serving(tmp_path) as stand_in:
        stand_in.add("LIDC-IDRI-0001", "3000566", some_files(5))
        stand_in.add("LIDC-IDRI-0002", "3000522", some_files(3))
        stand_in.add("LIDC-IDRI-0001", None, some_files(1), modality="DX")
        yield stand_in


def served(site: StandIn, modalities: str = "CT") -> dict[str, bytes]:
    """What is to lie below the output, by path."""
    return {
        f"lidc_idri/{row['PatientID']}/1.2.3/{row['Modality']}_{row['SeriesInstanceUID']}/{name}": content
        for row in site.rows
        if row["Modality"] in modalities
        for name, content in site.series[row["crdc_series_uuid"]].items()
    }


def fetched(output: Path) -> dict[str, bytes]:
    return {path: content for path, content in files_of(output).items() if path.endswith(".dcm")}


def test_every_series_comes_once_with_its_licence(site: StandIn, tmp_path: Path) -> None:
    site.page = 2
    output = tmp_path / "out"
    fetch(**site.flags(output))
    assert fetched(output) == served(site)
    rows = read_csv(output / "LICENSES.csv")
    assert [(row["patient_id"], row["license"], row["files"]) for row in rows] == [
        ("LIDC-IDRI-0001", "CC BY 3.0", "5"),
        ("LIDC-IDRI-0002", "CC BY 3.0", "3"),
    ]
    assert "lidc_idri (CC BY 3.0): https://doi.org/10.7937/k9/" in (output / "CITATIONS.txt").read_text()
    before, site.asked = files_of(output), []
    fetch(**site.flags(output))
    assert site.asked == [] and files_of(output) == before
    fetch(**site.flags(output, patients="LIDC-IDRI-0001", radiographs=True))
    assert fetched(output) == served(site, "CT DX") and len(site.asked) == 1
    assert {row["series_uid"] for row in read_csv(output / "LICENSES.csv")} == {"1.2.1", "1.2.2", "1.2.3"}


def test_a_connection_that_breaks_now_and_then_does_no_harm(site: StandIn, tmp_path: Path) -> None:
    site.before = lambda path, content: content[:1000] if site.asked.count(path) < 3 else content
    fetch(**site.flags(tmp_path / "out"))
    assert fetched(tmp_path / "out") == served(site)
    assert len(site.asked) == 3 * len(served(site))


def test_a_broken_connection_is_one_line_and_the_next_run_asks_for_the_rest(
    site: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    site.before = lambda path, content: content[:1000] if path.endswith("slice-3.dcm") else content
    flags = [text for key, value in site.flags(output, num_workers=1).items() for text in (f"--{key}", str(value))]
    assert main(["fetch", *flags]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {site.address}: the connection failed 5 times") and "same command goes on" in last
    assert not (output / ONE).exists(), "a series that is not whole has no folder that `prepare` would read"
    site.before, site.asked = (lambda path, content: content), []
    fetch(**site.flags(output))
    assert fetched(output) == served(site)
    assert {path for path in site.asked if "key-1/" in path} == {f"/{BUCKET}/key-1/slice-{k}.dcm" for k in (3, 4)}


def test_nobody_there_is_said(site: StandIn, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match=r"http://127\.0\.0\.1:1: the connection failed 5 times .* goes on"):
        fetch(**site.flags(tmp_path / "out", endpoint="http://127.0.0.1:1"))


def test_a_busy_server_is_asked_again(site: StandIn, tmp_path: Path) -> None:
    path = f"/{BUCKET}/key-2/slice-0.dcm"
    site.status[path] = 503
    with pytest.raises(ConnectionError, match="failed 5 times .503 Service Unavailable."):
        fetch(**site.flags(tmp_path / "out"))
    assert site.asked.count(path) == bucket.TRIES


def test_changed_bytes_are_refused_and_the_other_series_come(site: StandIn, tmp_path: Path) -> None:
    site.before = lambda path, content: content[::-1] if "key-1/slice-2" in path else content
    with pytest.raises(ValueError, match=r"1 of 2 series .*slice-2\.dcm: changed on its way: expected MD5 "):
        fetch(**site.flags(tmp_path / "out"))
    assert set(fetched(tmp_path / "out")) == {
        *(path for path in served(site) if "0002" in path),
        *(f"lidc_idri/LIDC-IDRI-0001/1.2.3/.CT_1.2.1.incomplete/slice-{k}.dcm" for k in (0, 1)),
    }


def test_a_server_with_other_files_than_the_index_is_refused(site: StandIn, tmp_path: Path) -> None:
    del site.series["key-1"]["slice-4.dcm"]
    with pytest.raises(
        ValueError, match="1.2.1 of LIDC-IDRI-0001: the index has 5 files of 15000 bytes, the server 4 of"
    ):
        fetch(**site.flags(tmp_path / "out"))
    assert not (tmp_path / "out" / ONE).exists()


@pytest.mark.parametrize("name", ["../../evil.dcm", "slice/0.dcm", ".dcm", "slice.exe"])
def test_names_that_are_none_of_a_slice_are_refused(site: StandIn, tmp_path: Path, name: str) -> None:
    site.series["key-1"][name] = site.series["key-1"].pop("slice-4.dcm")
    with pytest.raises(ValueError, match="expected a file of series 1.2.1, got 'key-1/"):
        fetch(**site.flags(tmp_path / "out"))
    assert not list(tmp_path.rglob("*evil*"))


def test_what_is_damaged_on_disk_comes_again_alone(site: StandIn, tmp_path: Path) -> None:
    output = tmp_path / "out"
    fetch(**site.flags(output))
    (output / ONE / "slice-1.dcm").write_bytes(b"cut")
    (output / ONE / "slice-2.dcm").unlink()
    (output / ONE / "foreign.dcm").write_bytes(b"no slice of it")
    site.asked = []
    fetch(**site.flags(output))
    assert fetched(output) == served(site)
    assert sorted(site.asked) == [f"/{BUCKET}/key-1/slice-{k}.dcm" for k in (1, 2)]


def test_a_revised_series_comes_again(site: StandIn, tmp_path: Path) -> None:
    fetch(**site.flags(tmp_path / "out"))
    site.series["revised"] = some_files(5) | {"slice-0.dcm": site.series["key-1"]["slice-0.dcm"]}
    site.rows[0]["crdc_series_uuid"] = "revised"
    site.write_index()
    site.asked = []
    fetch(**site.flags(tmp_path / "out"))
    assert fetched(tmp_path / "out") == served(site)
    assert sorted(site.asked) == [f"/{BUCKET}/revised/slice-{k}.dcm" for k in range(1, 5)]


def test_what_idc_index_has_downloaded_counts(site: StandIn, tmp_path: Path) -> None:
    for path, content in served(site).items():
        (tmp_path / "out" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / path).write_bytes(content)
    fetch(**site.flags(tmp_path / "out"))
    assert site.asked == []


def test_headers_of_another_length_than_in_the_index_do_no_harm(site: StandIn, tmp_path: Path) -> None:
    site.rows[0]["series_size_MB"] += 1e-4
    site.write_index()
    for number in (8, 0):
        site.asked = []
        fetch(**site.flags(tmp_path / "out"))
        assert fetched(tmp_path / "out") == served(site) and len(site.asked) == number


def test_a_disk_that_is_too_small_is_named_before_anything_comes(site: StandIn, tmp_path: Path) -> None:
    site.add("LIDC-IDRI-0004", "3000534", some_files(1), series_size_MB=1e12)
    with pytest.raises(OSError, match=r"out: 1000000000\.0 GB are to come, .* are free there; make room, .*--limit"):
        fetch(**site.flags(tmp_path / "out"))
    assert site.asked == []


@pytest.mark.slow
def test_a_disk_that_fills_up_is_named_and_the_command_goes_on(site: StandIn, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here")
    try:

        def fill(path: str, content: bytes) -> bytes:
            if "slice-2" in path and not (disk / "filler").exists():
                (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
            return content

        site.before = fill
        with pytest.raises(
            WriteError, match=r"slice-\d\.dcm: not written: No space left on device; .* make room there"
        ):
            fetch(**site.flags(disk / "out", num_workers=1))
        (disk / "filler").unlink()
        site.before = lambda path, content: content
        fetch(**site.flags(disk / "out"))
        assert fetched(disk / "out") == served(site)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_place_that_cannot_be_written_is_named(site: StandIn, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="a file is where a folder must be; choose another place"):
        fetch(**site.flags(tmp_path / "file" / "out"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"collection": "lidc_irdi"}, r"no CTs of a collection 'lidc_irdi' .*did you mean lidc_idri\?.*chests are in"),
        ({"patients": "LIDC-IDRI-0003"}, r"no patient 'LIDC-IDRI-0003' .*did you mean LIDC-IDRI-000[12]\?"),
        ({"split": "x3ct"}, "split must be x2ct or left out"),
        ({"split": "x2ct", "collection": "nlst"}, "x2ct is one of lidc_idri, got --collection nlst"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"num_workers": 0}, "num_workers must be at least 1"),
        ({"output": None}, "fetch needs --output, or --dry_run True"),
        ({"endpoint": "s3://bucket"}, "endpoint must begin with https"),
        ({"index": "gone.parquet"}, "gone.parquet: no such index"),
        ({"index": __file__}, "not an index of the Imaging Data Commons"),
        ({"body_part": "head"}, "body_part chest or any"),
        ({"min_slices": 9}, "no CT is left of this collection: --body_part any and --min_slices 1 keep all"),
        ({"min_slices": 4, "patients": "LIDC-IDRI-0001,LIDC-IDRI-0002"}, "left of LIDC-IDRI-0002: --body_part any and"),
        ({"split": "x2ct", "min_slices": 4}, "leave out --body_part and --min_slices, or --split"),
        ({"split": "x2ct", "body_part": "any"}, "leave out --body_part and --min_slices, or --split"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(site: StandIn, tmp_path: Path, flags: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        fetch(**site.flags(tmp_path / "out") | flags)
    assert site.asked == []


def test_without_idc_index_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idc, "DISTRIBUTION", "no-such-distribution")
    with pytest.raises(ValueError, match=r"fetch needs idc-index, .*: pip install 'trct-monai\[fetch\]'"):
        fetch("lidc_idri", dry_run=True)


def test_what_shows_no_lungs_is_left_out_and_counted(
    site: StandIn, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("HEAD", "ABDOMEN", "CHESTABDOMEN", None):
        site.add("LIDC-IDRI-0009", "1", some_files(4), BodyPartExamined=part)
    fetch(**site.flags(tmp_path, dry_run=True, min_slices=4))
    said = capsys.readouterr().out
    assert "left out: 1 series of fewer than 4 files (--min_slices), 2 of another part of the body" in said
    assert "3 series of 2 patients" in said
    fetch(**site.flags(tmp_path, dry_run=True, min_slices=1, body_part="any"))
    assert "6 series of 3 patients" in capsys.readouterr().out


def test_a_patient_who_is_not_in_the_split_is_named(site: StandIn, tmp_path: Path) -> None:
    site.add("LIDC-IDRI-9999", "1", some_files(1))
    with pytest.raises(ValueError, match="no CT is left of LIDC-IDRI-9999: they are not in the split x2ct"):
        fetch(**site.flags(tmp_path / "out", split="x2ct", patients="LIDC-IDRI-0001,LIDC-IDRI-9999"))


def test_a_patient_whose_cts_are_all_of_another_part_is_named() -> None:
    with pytest.raises(ValueError, match="no CT is left of ABD_LYMPH_001: --body_part any and --min_slices 1"):
        fetch("ct_lymph_nodes", patients="ABD_LYMPH_001,MED_LYMPH_001", dry_run=True)


def test_more_patients_include_the_fewer(site: StandIn, tmp_path: Path) -> None:
    for number in range(10, 30):
        site.add(f"LIDC-IDRI-{number:04d}", "1", some_files(1, 10))
    before: set[str] = set()
    for limit in (1, 4, 9):
        fetch(**site.flags(tmp_path / "out", limit=limit))
        now = {path.name for path in (tmp_path / "out" / "lidc_idri").iterdir()}
        assert before < now and len(now) == limit
        before = now


def test_a_dry_run_writes_nothing(site: StandIn, tmp_path: Path) -> None:
    fetch(**site.flags(tmp_path / "out", dry_run=True))
    assert not (tmp_path / "out").exists() and site.asked == []


@pytest.mark.parametrize(
    ("collection", "limit", "licence"),
    [("nlst", 7, "CC BY 4.0"), ("Lung-PET-CT-Dx", None, "CC BY 4.0"), ("nsclc_radiomics", 3, "CC BY-NC 3.0")],
)
def test_the_real_index_states_licences_and_sizes(
    collection: str, limit: int | None, licence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch(collection, limit=limit, dry_run=True)
    said, warned = capsys.readouterr()
    assert f"licence: {licence} (" in said and " GB (CT)" in said and "cite: https://doi.org/10.7937/" in said
    assert limit is None or f" of {limit} patients" in said
    assert ("allows no commercial use" in warned) == ("NC" in licence)


def test_sizes_of_the_real_index_are_whole_bytes() -> None:
    from trct_monai.io.idc import index_file

    (one, *_) = read_collection(index_file()[0], "lidc_idri", ["CT"])
    assert (one.patient_id, one.num_files, one.num_bytes, one.number) == ("LIDC-IDRI-0001", 133, 70018838, "3000566")
