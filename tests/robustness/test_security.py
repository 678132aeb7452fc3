"""Files of strangers: none runs code, writes outside the folder that was named, or takes more memory than there is."""

import csv
import gzip
import json
import os
import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from tests.field.inputs import write_series
from tests.files import Payload, save_nifti
from trct_monai import commands
from trct_monai.bundles.export import export
from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.datasets.plant import plant
from trct_monai.datasets.prepare import prepare
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.evaluation.report import report
from trct_monai.geometry import Camera, preset
from trct_monai.io import load_datalist, load_state, read_ct, read_radiograph
from trct_monai.io.files import format_csv, read_csv, read_json, write_csv
from trct_monai.io.limits import MAX_BYTES, check_bytes
from trct_monai.io.radiograph import read_side_car, save_radiograph
from trct_monai.io.x2ct import read_x2ct
from trct_monai.phantoms import Phantom
from trct_monai.projector import project_hu

WIDE = 10_000
"""Voxels along each side of a volume that nobody has: 10^12 of them."""

NAMES = ["../../out", "a/b", "a\\b", "..", ".", "", " ", "/tmp/x", "a\x00b", "a\x1b[2Jb", "a\nb"]
"""What leaves its folder as a name of a file, or is obeyed by a terminal."""


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


@pytest.mark.parametrize("kind", ["zip", "old", "pickle", "nested"])
def test_a_pickle_among_weights_is_not_opened(kind: str, tmp_path: Path) -> None:
    payload, path = Payload(tmp_path / "opened"), tmp_path / "model.pt"
    if kind == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        state = {"weight": torch.zeros(2), "bias": [{"a": payload}] if kind == "nested" else payload}
        torch.save(state, path, _use_new_zipfile_serialization=kind != "old")
    with pytest.raises(ValueError, match="model.pt: ") as error:
        load_state(path)
    assert "weights_only" not in str(error.value) and not (tmp_path / "opened").exists()


def test_a_pickle_in_an_array_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "pa.npy", np.array([Payload(tmp_path / "opened")], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="not a radiograph that can be read") as error:
        read_radiograph(tmp_path / "pa.npy")
    assert "allow_pickle" not in str(error.value) and not (tmp_path / "opened").exists()


def test_damaged_weights_are_one_line_whatever_is_damaged(tmp_path: Path) -> None:
    path, refused = tmp_path / "model.pt", 0
    for old in (False, True):
        torch.save({"weight": torch.zeros(3, 4), "bias": torch.zeros(3)}, path, _use_new_zipfile_serialization=not old)
        whole, numbers = path.read_bytes(), np.random.default_rng(0)
        for _ in range(200):
            content = np.frombuffer(whole, dtype=np.uint8).copy()
            content[numbers.integers(len(content), size=3)] = numbers.integers(256, size=3)
            path.write_bytes(content.tobytes()[: numbers.integers(1, 2 * len(content))])
            try:
                load_state(path)
            except ValueError as error:
                refused += 1
                assert str(path) in str(error) and "weights_only" not in str(error)
    assert refused > 200


@pytest.mark.parametrize("name", NAMES)
def test_a_case_whose_name_leaves_its_folder_is_refused(name: str, phantoms: Path, tmp_path: Path) -> None:
    datalist, before = renamed(phantoms, tmp_path / "in", name), everything(tmp_path)
    with pytest.raises(ValueError, match="'case_id' must be a name for files"):
        load_datalist(datalist, "test")
    with pytest.raises(ValueError, match="'case_id' must be a name for files"):
        plant(datalist=str(datalist), output=str(tmp_path / "a" / "b" / "out"), num_workers=0)
    assert everything(tmp_path) - before <= {tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "out"}


def renamed(datalist: Path, folder: Path, name: str) -> Path:
    """The same data set with another name for the first case to test, its paths absolute."""
    content = read_json(datalist)
    for case in content["test"]:
        case["label"] = str(datalist.parent / case["label"])
        case["image"] = [str(datalist.parent / image) for image in case["image"]]
    content["test"][0]["case_id"] = name
    folder.mkdir()
    (folder / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "datalist.json"


@pytest.mark.parametrize("name", ["../../out", "a\\b", "a\x1b[2Jb"])
def test_a_view_whose_name_leaves_its_folder_is_refused(name: str, tmp_path: Path) -> None:
    save_radiograph(tmp_path / "pa.png", torch.rand(8, 8), preset("x2ct", 8)[0])
    content = read_json(tmp_path / "pa.json")
    content["camera"]["name"] = name
    with pytest.raises(ValueError, match="name must be without"):
        Camera.from_dict(content["camera"])
    (tmp_path / "pa.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="its side-car .* is none .*name must be without"):
        read_radiograph(tmp_path / "pa.png")


def test_a_datalist_may_name_files_anywhere_and_they_are_only_read(phantoms: Path, tmp_path: Path) -> None:
    """`split` and `plant` write such datalists: reading what a user names is no breach."""
    content = read_json(phantoms)
    for case in content["test"]:
        case["label"] = os.path.relpath(phantoms.parent / case["label"], tmp_path)
        case["image"] = [str(phantoms.parent / image) for image in case["image"]]
    (tmp_path / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    assert content["test"][0]["label"].startswith("..")
    assert len(load_datalist(tmp_path / "datalist.json", "test")) == 2


@pytest.mark.slow
def test_headers_name_no_path_and_leave_no_patient_behind(phantom: Phantom, tmp_path: Path) -> None:
    """PatientID is the case's name, made safe; of other elements that say who it is nothing is written."""

    def who(data: Any, number: int) -> None:
        data.PatientName, data.PatientBirthDate, data.AccessionNumber = "DOE^JANE", "19700102", "ACC77"
        data.InstitutionName, data.StudyDescription, data.StudyID = "GENERAL HOSPITAL", "../../study", "../../id"

    private = tmp_path / "home_of_someone"
    write_series(private / "in" / "series", phantom.ct_hu, phantom.affine, who, patient_id="../../../evil")
    before = everything(private)
    output = tmp_path / "deep" / "er" / "out"
    options: dict[str, Any] = {"size": 16, "radiograph_size": 32, "num_workers": 0, "fractions": "1/0/0"}
    prepare(str(private / "in"), str(output), dicom=True, nifti=True, **options)
    written = [path for path in output.rglob("*") if path.is_file()]
    assert any(path.suffix == ".dcm" for path in written) and any(path.suffix == ".png" for path in written)
    assert everything(private) == before and everything(tmp_path / "deep") - everything(output) == {
        output.parent, output
    }  # fmt: skip
    for path in written:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for secret in (
            b"DOE",
            b"JANE",
            b"19700102",
            b"ACC77",
            b"HOSPITAL",
            b"../../study",
            b"../../id",
            b"home_of_someone",
        ):
            assert secret not in content, f"{path.name} holds {secret!r}"


def test_somebody_elses_json_is_no_side_car(tmp_path: Path) -> None:
    """Such as of BIDS: what `prepare` copies with a radiograph is what `read_side_car` reads."""
    (tmp_path / "pa.json").write_text('{"PatientName": "DOE^JANE"}', encoding="utf-8")
    assert read_side_car(tmp_path / "pa.png") is None


@pytest.mark.slow
def test_given_radiographs_bring_no_json_of_others(phantom: Phantom, tmp_path: Path) -> None:
    save_nifti(tmp_path / "in" / "p1" / "p1.nii.gz", phantom.ct_hu, phantom.affine)
    for view, camera in zip(("pa", "lat"), preset("x2ct", 32)):
        image = project_hu(torch.from_numpy(phantom.ct_hu)[None], [camera], 8.0)[0]
        picture = (image / image.max() * 255).round().byte().numpy()
        Image.fromarray(picture).save(tmp_path / "in" / "p1" / f"p1_{view}.png")
        (tmp_path / "in" / "p1" / f"p1_{view}.json").write_text('{"PatientName": "DOE^JANE"}', encoding="utf-8")
    options: dict[str, Any] = {"size": 16, "num_workers": 0, "fractions": "1/0/0", "geometry": "x2ct"}
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), min_correlation=0.1, **options)
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sum(path.suffix == ".png" for path in written) == 2
    assert not any(b"DOE" in path.read_bytes() for path in written)


FORMULAS = ["=1+1", "+a", "-a", "@a", "\ta", "=cmd|' /C calc'!A0", "'=a", "''@a", "-", "=", "-1-1", "+1;x"]
PLAIN = ["a=b", "'", "'a", "''", "a", "", "-1", "+2.5e3", "-inf", "nan", "<b>", "--", "a\nb"]


def test_a_spreadsheet_takes_no_text_of_a_table_for_a_formula(tmp_path: Path) -> None:
    """And each text comes back as it was."""
    texts = FORMULAS + PLAIN
    write_csv(tmp_path / "a.csv", [{"case_id": text, "score": -1.5} for text in texts])
    assert [row["case_id"] for row in read_csv(tmp_path / "a.csv")] == texts
    assert {row["score"] for row in read_csv(tmp_path / "a.csv")} == {"-1.5"}
    with open(tmp_path / "a.csv", encoding="utf-8", newline="") as file:
        cells = [row["case_id"] for row in csv.DictReader(file)]
    for cell in cells:
        number = re.fullmatch(r"[+-]?(\d+(\.\d+)?(e\d+)?|inf|nan)", cell)
        assert number or not cell.startswith(("=", "+", "-", "@", "\t", "\r")), cell
    assert cells[len(FORMULAS) :] == [text if text != "--" else "'--" for text in PLAIN]
    assert format_csv([{"method": "=1+1"}]) == "method\n'=1+1\n"


@pytest.mark.slow
def test_a_report_shows_names_as_text_and_holds_no_path(tmp_path: Path) -> None:
    make_phantoms(str(tmp_path / "data"), size=16, radiograph_size=32, split="1/0/1", num_workers=0)
    content = read_json(tmp_path / "data" / "datalist.json")
    name = "=cmd<!--<script>alert(1)<img src=x onerror=alert(2)>"
    label = nibabel.load(tmp_path / "data" / content["test"][0]["label"])
    content["test"][0]["case_id"] = name
    (tmp_path / "data" / "datalist.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "predictions").mkdir()
    nibabel.save(label, tmp_path / "predictions" / f"{name}.nii.gz")
    folders = {key: str(tmp_path / key) for key in ("predictions", "output")}
    evaluate(datalist=str(tmp_path / "data" / "datalist.json"), figures=0, num_workers=0, **folders)
    report(evaluation=folders["output"])
    page = (tmp_path / "output" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page and "<img src=x" not in page and "<!--<" not in page
    assert str(tmp_path) not in page and tmp_path.name not in page
    assert re.search(r"Content-Security-Policy\" content=\"default-src 'none';", page)
    assert {row["case_id"] for row in read_csv(tmp_path / "output" / "cases.csv")} == {name}
    assert f"'{name}" in (tmp_path / "output" / "cases.csv").read_text(encoding="utf-8")


def test_the_scripts_of_a_report_write_text_only(repository: Path) -> None:
    for path in (repository / "trct_monai" / "evaluation" / "report").glob("*.js"):
        forbidden = (
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|fetch\(|XMLHttp|import\("
        )
        assert not re.search(forbidden, path.read_text(encoding="utf-8")), path


def stated(shape: tuple[int, ...], *, extra: int = 0, image: Any = nibabel.Nifti1Image) -> bytes:
    """A NIfTI header that states a shape of int16, and some zeros after it."""
    header = image.header_class()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_sform(np.eye(4), 1)
    header["vox_offset"] = 352 if image is nibabel.Nifti1Image else 544
    if image is nibabel.Nifti1Image:
        header["magic"] = b"n+1"
    return bytes(header.binaryblock) + bytes(4 + extra)


def metaimage(compressed: bool) -> bytes:
    return (
        f"ObjectType = Image\nNDims = 3\nBinaryData = True\nCompressedData = {compressed}\nElementSpacing = 1 1 1\n"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        f"DimSize = {WIDE} {WIDE} {WIDE}\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    ).encode() + zlib.compress(bytes(1000))


NRRD = (
    f"NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: {WIDE} {WIDE} {WIDE}\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: gzip\nspace origin: (0,0,0)\n\n"
).encode() + gzip.compress(bytes(1000))

VOLUMES: dict[str, tuple[bytes, str]] = {
    "a.nii.gz": (gzip.compress(stated((WIDE,) * 3)), r"would take \d{4} GiB"),
    "b.nii.gz": (gzip.compress(stated((WIDE * 100, WIDE, 100), image=nibabel.Nifti2Image)), r"would take \d{4} GiB"),
    "c.nii": (stated((WIDE,) * 3), r"would take \d{4} GiB"),
    "d.nii.gz": (gzip.compress(stated((8, 8, 8), extra=2**22)), "its header states 1376 bytes, and there are more"),
    "e.nii.gz": (gzip.compress(stated((8, 8, 8))[:42] + struct.pack("<h", -8) + stated((8, 8, 8))[44:]), "the shape"),
    "f.mha": (metaimage(compressed=False), r"would take \d{4} GiB"),
    "g.mha": (metaimage(compressed=True), r"would take \d{4} GiB"),
    "h.nrrd": (NRRD, r"would take \d{4} GiB"),
}


@pytest.mark.parametrize("name", VOLUMES)
def test_a_header_that_states_too_much_is_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    content, expected = VOLUMES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{re.escape(name)}.*{expected}"):
        read_ct(tmp_path / name)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(rows: int, columns: int) -> bytes:
    """A grey picture of 8 bits, all black, without most of its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


def tiff(rows: int, columns: int) -> bytes:
    """The same as deflated TIFF."""
    pixels = zlib.compress(bytes(10_000))
    tags = {256: columns, 257: rows, 258: 8, 259: 8, 262: 1, 273: 8, 277: 1, 278: rows, 279: len(pixels)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    place = 8 + len(pixels)
    return struct.pack("<2sHI", b"II", 42, place) + pixels + struct.pack("<H", len(tags)) + directory + bytes(4)


def jpeg_2000(rows: int, columns: int, folder: Path) -> bytes:
    """A picture whose header states another size."""
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(folder / "small.jp2")
    content = bytearray((folder / "small.jp2").read_bytes())
    size = content.index(b"ihdr") + 4
    content[size : size + 8] = struct.pack(">II", rows, columns)
    start = content.index(b"\xff\x51") + 6
    content[start : start + 8] = struct.pack(">II", columns, rows)
    return bytes(content)


@pytest.mark.parametrize("side", [9000, 60_000, 2**30])
@pytest.mark.parametrize("kind", ["png", "tif", "jp2"])
def test_a_picture_that_unpacks_to_too_much_is_refused(kind: str, side: int, tmp_path: Path) -> None:
    made = {"png": png, "tif": tiff, "jp2": lambda rows, columns: jpeg_2000(rows, columns, tmp_path)}[kind]
    (tmp_path / f"pa.{kind}").write_bytes(made(side, side))
    with pytest.raises(ValueError, match=f"pa.{kind}: not a radiograph that can be read .*(too large|exceeds|damaged)"):
        read_radiograph(tmp_path / f"pa.{kind}")


def test_arrays_that_are_none_or_state_too_much_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.zeros((4, 4)))
    content = (tmp_path / "short.npy").read_bytes()
    wide = content.replace(b"(4, 4), }          ", b"(4, 4000000000), }")
    assert wide != content and len(wide) == len(content) - 1
    (tmp_path / "short.npy").write_bytes(wide.replace(b"), }", b"), } "))
    with pytest.raises(ValueError, match="short.npy: not a radiograph that can be read"):
        read_radiograph(tmp_path / "short.npy")
    np.savez_compressed(tmp_path / "many.npz", a=np.zeros((4, 4)))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(ValueError, match="expected one array of numbers, got an archive"):
        read_radiograph(tmp_path / "many.npy")


def test_weights_that_unpack_to_too_much_are_refused(tmp_path: Path) -> None:
    """Of a checkpoint, a ZIP archive, the directory states how large each record is."""
    path, records = tmp_path / "model.pt", 9
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(records):
            archive.writestr(f"archive/data/{number}", b"0")
    parts = path.read_bytes().split(b"PK\x01\x02")
    stated_sizes = [part[:20] + struct.pack("<I", 2**32 - 2) + part[24:] for part in parts[1:]]
    path.write_bytes(b"PK\x01\x02".join([parts[0], *stated_sizes]))
    with pytest.raises(ValueError, match="model.pt: its tensors would take 36 GiB, more than the 32 that fit"):
        load_state(path)


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="the machine does not say how much memory it has")
def test_more_than_the_memory_that_is_free_is_refused() -> None:
    check_bytes(2**20, "its numbers")
    memory = [line.split() for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines()]
    total = next(int(line[1]) for line in memory if line[0] == "MemTotal:") * 1024
    with pytest.raises(ValueError, match="its numbers would take .* GiB"):
        check_bytes(min(total, MAX_BYTES) + 1, "its numbers")


def test_an_h5_file_takes_nothing_from_another_file(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(range(64)))
    pictures = {"xray1": np.zeros((4, 4)), "xray2": np.zeros((4, 4))}

    def refused(add: Callable[[h5py.File], Any]) -> str:
        with h5py.File(tmp_path / "ct_xray_data.h5", "w") as file:
            for key, value in pictures.items():
                file[key] = value
            add(file)
        with pytest.raises(ValueError) as error:
            read_x2ct(tmp_path / "ct_xray_data.h5", "SPL")
        return str(error.value)

    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["ct"] = np.zeros((4, 4, 4))
    external = [(str(tmp_path / "secret.bin"), 0, h5py.h5f.UNLIMITED)]
    layout = h5py.VirtualLayout(shape=(4, 4, 4), dtype="f8")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "ct", shape=(4, 4, 4))
    assert "a link" in refused(lambda file: file.__setitem__("ct", h5py.ExternalLink("other.h5", "ct")))
    assert "in another file" in refused(lambda f: f.create_dataset("ct", (4, 4, 4), dtype="u1", external=external))
    assert "in another file" in refused(lambda file: file.create_virtual_dataset("ct", layout))
    assert "would take" in refused(lambda f: f.create_dataset("ct", (WIDE,) * 3, dtype="i2", chunks=(10, 10, 10)))


def test_json_that_is_nested_too_deep_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(ValueError, match="a.json: not JSON"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("place", ["docs/notes.md", "LICENSE", "configs/logging.conf", "models/intervals.pt"])
def test_export_takes_nothing_along_through_a_link(place: str, tmp_path: Path) -> None:
    """Of a stranger's bundle, a link may point to a key of yours."""
    bundle = tmp_path / "bundle"
    for name in ("docs/README.md", "LICENSE", "configs/inference.json", "configs/metadata.json", "models/model.pt"):
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_text("{}", encoding="utf-8")
    (tmp_path / "key").write_text("secret", encoding="utf-8")
    (bundle / place).unlink(missing_ok=True)
    (bundle / place).symlink_to(tmp_path / "key")
    with pytest.raises(ValueError, match=f"{re.escape(place)} is a link to .*key, which is not in"):
        export(bundle=str(bundle), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out*"))


def test_what_a_terminal_would_obey_is_not_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["check", "--datalist", str(tmp_path / "a\x1b[2Jb.json")]) == commands.USER_ERROR
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "\x1b" not in said and "a?[2Jb.json" in said
