"""`fetch`: public CTs by the name of their collection, out of NCI's Imaging Data Commons."""

import hashlib
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path
from threading import Lock

from tqdm import tqdm

from trct_monai.arguments import parse_names, suggestion
from trct_monai.datasets.x2ct_split import COLLECTION, SIDES, X2CTSplit, find_x2ct_split
from trct_monai.io.bucket import ENDPOINT, Bucket, bytes_in, fetch_series, is_complete
from trct_monai.io.dicom.radiograph import RADIOGRAPH_MODALITIES
from trct_monai.io.files import read_csv, write_csv, write_text
from trct_monai.io.idc import RemoteSeries, index_file, read_collection, read_collections
from trct_monai.io.locks import alone_in

CHESTS = ("lidc_idri", "nsclc_radiogenomics", "lung_pet_ct_dx", "4d_lung", "ct_lymph_nodes", "nlst")
"""Collections with chests that data/README.md describes."""

IN_CHEST = ("CHEST", "THORAX", "LUNG", "MEDIASTINUM", "HEART", "WHOLEBODY")
"""Words of BodyPartExamined for what shows the lungs."""

BODY_PART, MIN_SLICES = "chest", 16
"""What of a collection is fetched, unless other is asked for; a published split has its own CTs."""

FREE = ("CC BY 3.0", "CC BY 4.0")
"""Licences that ask for no more than to be named."""

LICENSES, CITATIONS = "LICENSES.csv", "CITATIONS.txt"

IDC_DOI = "10.1148/rg.230180"
"""Fedorov et al., National Cancer Institute Imaging Data Commons, RadioGraphics 2023."""


def fetch(
    collection: str,
    output: str | None = None,
    split: str | None = None,
    patients: str | None = None,
    limit: int | None = None,
    radiographs: bool = False,
    body_part: str = BODY_PART,
    min_slices: int = MIN_SLICES,
    dry_run: bool = False,
    num_workers: int = 8,
    index: str | None = None,
    endpoint: str = ENDPOINT,
) -> None:
    """Fetch public CTs as DICOM series, each once, checked, with their licences.

    The list of all series is in idc-index (pip install 'trct-monai[fetch]'); the files come from the public bucket of
    NCI's Imaging Data Commons, without an account. Interrupt it as you like: the same command goes on, and does nothing
    twice. Give the folder to `prepare`.

    Args:
        collection: Such as lidc_idri, nsclc_radiogenomics, lung_pet_ct_dx, 4d_lung, ct_lymph_nodes or nlst; any of the
            Imaging Data Commons that has CTs.
        output: Folder for OUTPUT/COLLECTION/PATIENT/STUDY/CT_SERIES, LICENSES.csv and CITATIONS.txt; needed unless it
            is a dry run.
        split: x2ct: the series of LIDC-IDRI that X2CT-GAN published, and its lists for `split`, x2ct_train.csv and
            x2ct_test.csv.
        patients: These alone: names, separated by commas.
        limit: So many patients at most, drawn by their names; more of them include the fewer ones. Of a split, both
            sides in proportion.
        radiographs: Bring the radiographs (CR, DX) of these patients, too.
        body_part: chest: what the header says to be of another part is left out, unknown ones stay; any: all CTs.
        min_slices: Shorter series, such as localizers, are left out; `prepare` skips them, too.
        dry_run: Say what would come, how much, by which licences, and fetch nothing.
        num_workers: Number of series that come at a time.
        index: Parquet file of another index than that of idc-index.
        endpoint: Address of an S3 server that has the buckets.
    """
    if output is None and not dry_run:
        raise ValueError("fetch needs --output, or --dry_run True to see what would come")
    if split not in (None, "x2ct") or body_part not in ("chest", "any"):
        raise ValueError(f"split must be x2ct or left out, and body_part chest or any, got {split!r} and {body_part!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    name = collection.lower().replace("-", "_").replace(" ", "_")
    if split and name != COLLECTION:
        raise ValueError(f"the split x2ct is one of {COLLECTION}, got --collection {collection}")
    if split and (body_part, min_slices) != (BODY_PART, MIN_SLICES):
        raise ValueError("a split states its CTs itself: leave out --body_part and --min_slices, or --split")
    file, title = index_file(index)
    series = read_collection(file, name, ("CT", *RADIOGRAPH_MODALITIES))
    cts = [one for one in series if one.modality == "CT"]
    if not cts:
        known = read_collections(file)
        raise ValueError(
            f"no CTs of a collection {collection!r} in {title}{suggestion(name, known)}; "
            f"chests are in {', '.join(CHESTS)}, and {len(known)} collections have CTs"
        )
    published = find_x2ct_split(cts) if split else None
    if published:
        sides, left_out = list(published.sides.values()), "they are not in the split x2ct"
    else:
        sides, left_out = [_fitting(cts, body_part, min_slices)], "--body_part any and --min_slices 1 keep all"
    chosen = _choose(sides, cts, parse_names(patients), limit, left_out)
    who = {one.patient_id for one in chosen}
    pictures = [one for one in series if one.modality in RADIOGRAPH_MODALITIES and one.patient_id in who]
    _describe(name, title, chosen, pictures, radiographs, published)
    wanted = chosen + (pictures if radiographs else [])
    if output is None or dry_run:
        print("a dry run: nothing was fetched")
        return
    folder = Path(output)
    with alone_in(folder):
        _write_licenses(folder, wanted)
        if published:
            published.write(folder)
        _fetch_all(folder, wanted, num_workers, endpoint)
    print(f"wrote {folder}: {LICENSES}, {CITATIONS}{', ' + ', '.join(SIDES.values()) if published else ''}")
    phases = " --phases True" if name == "4d_lung" else ""
    print(f"next: python -m trct_monai prepare --input {folder / name} --output CASES{phases}")
    if published:
        lists = " ".join(
            f"--{key}_list {folder / file}" for key, file in zip(("train", "test"), SIDES.values(), strict=True)
        )
        print(f"then: python -m trct_monai split --data CASES --by lists {lists} --leaks_to test")


def _fitting(cts: Sequence[RemoteSeries], body_part: str, min_slices: int) -> list[RemoteSeries]:
    """The CTs that `prepare` can use, by what the index says; the number of others is printed."""
    long = [one for one in cts if one.num_files >= min_slices]
    fitting = [
        one
        for one in long
        if body_part == "any" or not one.body_part or any(word in one.body_part.upper() for word in IN_CHEST)
    ]
    if len(fitting) < len(cts):
        print(
            f"left out: {len(cts) - len(long)} series of fewer than {min_slices} files (--min_slices), "
            f"{len(long) - len(fitting)} of another part of the body (--body_part any)"
        )
    return fitting


def _choose(
    sides: Sequence[Sequence[RemoteSeries]],
    cts: Sequence[RemoteSeries],
    patients: Sequence[str],
    limit: int | None,
    left_out: str,
) -> list[RemoteSeries]:
    """The series of the patients asked for, and of no more than so many; `left_out` says why some have none."""
    known = {one.patient_id for one in cts}
    for name in patients:
        if name not in known:
            raise ValueError(
                f"no patient {name!r} with a CT in this collection{suggestion(name, known)}; "
                f"they are called {', '.join(sorted(known)[:2])}, ..."
            )
    kept = {one.patient_id for side in sides for one in side}
    gone = [name for name in patients if name not in kept]
    if gone or not kept:
        raise ValueError(f"no CT is left of {', '.join(gone) or 'this collection'}: {left_out}")
    places: dict[str, float] = {}
    for side in sides:
        names = sorted({one.patient_id for one in side if not patients or one.patient_id in patients}, key=_lot)
        for place, name in enumerate(names):
            places.setdefault(name, (place + 0.5) / len(names))  # each side's in turn, by its share
    who = set(sorted(places, key=lambda name: (places[name], name))[:limit])
    return [one for side in sides for one in side if one.patient_id in who]


def _lot(patient_id: str) -> str:
    """Where a patient stands among those to be drawn: not by the hash of `split`, whose sections would be filled."""
    return hashlib.sha256(f"fetch:{patient_id}".encode()).hexdigest()


def _describe(
    name: str,
    title: str,
    chosen: Sequence[RemoteSeries],
    pictures: Sequence[RemoteSeries],
    radiographs: bool,
    published: X2CTSplit | None,
) -> None:
    """Print what is to come: series, patients, bytes, licences and what to cite."""
    print(f"{name} in {title}: {_amount(chosen)} (CT)")
    for line in published.describe() if published else ():
        print(line)
    if published and len(chosen) < sum(map(len, published.sides.values())):
        uids = {one.uid for one in chosen}
        counts = [f"{side} {sum(one.uid in uids for one in found)}" for side, found in published.sides.items()]
        print(f"chosen of them: {', '.join(counts)}")
    if radiographs or pictures:
        kept = "come, too" if radiographs else "are left out; --radiographs True brings them"
        print(f"radiographs (CR, DX) of these patients: {_amount(pictures)}; they {kept}")
    wanted = [*chosen, *(pictures if radiographs else ())]
    for license_name, count in sorted(Counter(one.license for one in wanted).items()):
        print(f"licence: {license_name} ({count} series)")
    for doi in _dois(wanted):
        print(f"cite: https://doi.org/{doi}")
    sys.stdout.flush()
    for license_name in sorted({one.license for one in wanted} - set(FREE)):
        what = "allows no commercial use" if "NC" in license_name else "is no CC BY licence"
        print(
            f"warning: {license_name} {what}; read it before you use the data, or share weights trained on them",
            file=sys.stderr,
        )


def _amount(series: Sequence[RemoteSeries]) -> str:
    num_bytes = sum(one.num_bytes for one in series)
    return f"{len(series)} series of {len({one.patient_id for one in series})} patients, {_size(num_bytes)}"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"


def _dois(series: Iterable[RemoteSeries]) -> list[str]:
    return [*sorted({one.doi for one in series}), IDC_DOI]


def _write_licenses(folder: Path, series: Sequence[RemoteSeries]) -> None:
    """Write the licence of each series, and what to cite; what an earlier run wrote of others stays."""
    path = folder / LICENSES
    rows = {row.get("series_uid", ""): row for row in (read_csv(path) if path.is_file() else ())}
    for one in series:
        rows[one.uid] = {
            "collection": one.collection, "patient_id": one.patient_id, "modality": one.modality,
            "series_uid": one.uid, "files": str(one.num_files), "bytes": str(one.num_bytes), "license": one.license,
            "doi": one.doi,
        }  # fmt: skip
    write_csv(path, [rows[uid] for uid in sorted(rows)])
    cited: dict[str, set[str]] = defaultdict(set)
    for row in rows.values():
        cited[row.get("doi", "")].add(f"{row.get('collection')} ({row.get('license')})")
    lines = [f"{', '.join(sorted(names))}: https://doi.org/{doi}" for doi, names in sorted(cited.items())]
    lines.append(f"Imaging Data Commons (Fedorov et al. 2023): https://doi.org/{IDC_DOI}")
    write_text(folder / CITATIONS, "\n".join(["Cite what you use of these:", *lines]) + "\n")


def _fetch_all(folder: Path, series: Sequence[RemoteSeries], num_workers: int, endpoint: str) -> None:
    """Bring all series that are not there yet.

    Raises:
        ValueError: If the server has not what the index states; the others are there.
        OSError: If the connection fails, or the disk is too small.
    """
    absent = [one for one in series if not is_complete(folder / one.folder, one)]
    total = sum(one.num_bytes for one in absent)
    to_come = total - sum(bytes_in(folder / one.folder) for one in absent)
    print(f"{len(series) - len(absent)} of {len(series)} series are here already, {_size(to_come)} are to come")
    free = shutil.disk_usage(folder).free
    if to_come > free:
        raise OSError(
            f"{folder}: {_size(to_come)} are to come, {_size(free)} are free there; make room, write to another disk, "
            "or fetch less by --limit or --patients"
        )
    lock, refused = Lock(), list[str]()
    with (
        closing(Bucket(endpoint, num_workers)) as bucket,
        tqdm(total=total, desc="fetch", unit="B", unit_scale=True, disable=not absent) as progress,
        ThreadPoolExecutor(num_workers) as pool,
    ):

        def arrived(num_bytes: int) -> None:
            with lock:
                progress.update(num_bytes)

        futures = [pool.submit(fetch_series, bucket, one, folder / one.folder, arrived) for one in absent]
        try:
            for future in as_completed(futures):
                try:
                    future.result()
                except ValueError as error:  # this series' own fault
                    refused.append(str(error))
                    tqdm.write(f"refused  {error}")
        except BaseException:
            bucket.stopped.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    print(f"{len(absent) - len(refused)} series in this run, {len(refused)} refused")
    if refused:
        raise ValueError(f"{len(refused)} of {len(series)} series are not complete; the first: {refused[0]}")
