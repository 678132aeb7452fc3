"""What the driver does for every command: what is done, shards, workers, refusals, what belongs to the data set."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.datasets.small import SMALL, files_of
from tests.files import save_nifti
from trct_monai.datasets.cases import SeveralReasonsError
from trct_monai.datasets.driver import EARLY_STOP, Job, Recipe, make_data_set
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.split import split
from trct_monai.datasets.workers import in_shard
from trct_monai.io.datalist import load_datalist, read_datalist


def cases_of(folder):
    return {case["case_id"]: case for case in load_datalist(folder / "datalist.json", "training")}


def test_what_is_finished_is_not_done_again(ct_folder, tmp_path, phantom, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    (out / "p2" / "p2_pa_drr.png").write_bytes(b"damaged")
    save_nifti(ct_folder / "p3.nii.gz", phantom.ct_hu, phantom.affine)
    (out / ".p3.4194305.partial").mkdir()
    prepare(str(ct_folder), str(out), **SMALL)
    after = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    assert "1 of 3 cases are done already" in capsys.readouterr().out
    assert all(after[path] == time_ for path, time_ in before.items() if path.parent.name == "p1")
    assert all(after[path] != time_ for path, time_ in before.items() if path.parent.name == "p2")
    assert (out / "p3").is_dir() and not (out / ".p3.4194305.partial").exists()


def test_other_options_make_other_cases(ct_folder, tmp_path):
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    prepare(str(ct_folder), str(tmp_path / "out"), **{**SMALL, "size": 8})
    assert nibabel.load(tmp_path / "out" / "p1" / "p1.nii.gz").shape == (8, 8, 8)


def test_a_source_with_other_content_makes_its_case_again(ct_folder, tmp_path, phantom, capsys):
    """Of the same size and age: neither says what is in a file."""
    (ct_folder / "p1.nii.gz").unlink()
    out, source = tmp_path / "out", ct_folder / "p1.nii"
    save_nifti(source, phantom.ct_hu, phantom.affine)
    prepare(str(ct_folder), str(out), **SMALL)
    before, times = cases_of(out), source.stat()
    save_nifti(source, phantom.ct_hu + 10, phantom.affine)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert source.stat().st_size == times.st_size
    capsys.readouterr()
    prepare(str(ct_folder), str(out), **SMALL)
    assert "1 of 2 cases are done already" in capsys.readouterr().out
    after = cases_of(out)
    assert after["p2"] == before["p2"] and after["p1"]["voxels"] != before["p1"]["voxels"]


def test_the_same_content_elsewhere_makes_nothing_again(ct_folder, tmp_path, capsys):
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    ct_folder.rename(tmp_path / "elsewhere")
    for file in (tmp_path / "elsewhere").iterdir():
        os.utime(file)
    capsys.readouterr()
    prepare(str(tmp_path / "elsewhere"), str(tmp_path / "out"), **SMALL)
    assert "2 of 2 cases are done already" in capsys.readouterr().out


def test_the_voxels_of_a_detached_header_count(tmp_path, phantom, capsys):
    import itk

    (tmp_path / "in").mkdir()
    image = itk.image_from_array(np.ascontiguousarray(phantom.ct_hu.round().astype(np.int16).T))
    image.SetSpacing([8.0, 8.0, 8.0])
    for name in ("p1.mhd", "p2.nhdr"):
        itk.imwrite(image, str(tmp_path / "in" / name))
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
    before = {name: one["voxels"] for name, one in cases_of(tmp_path / "out").items()}
    for raw in (tmp_path / "in").glob("*.raw"):
        raw.write_bytes((np.frombuffer(raw.read_bytes(), dtype=np.int16) // 2).tobytes())
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
    after = {name: one["voxels"] for name, one in cases_of(tmp_path / "out").items()}
    assert len(before) == 2 and all(after[name] != before[name] for name in before)


def test_cases_without_a_stamp_are_made_again(ct_folder, tmp_path, capsys):
    """Those of version 0.1.0."""
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    record = tmp_path / "out" / "p1" / "case.json"
    content = json.loads(record.read_text(encoding="utf-8"))
    del content["stamp"]
    record.write_text(json.dumps(content), encoding="utf-8")
    capsys.readouterr()
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    assert "1 of 2 cases are done already" in capsys.readouterr().out
    assert json.loads(record.read_text(encoding="utf-8"))["stamp"]["options"]["size"] == 16


def test_a_case_without_its_source_leaves_the_datalist_and_stays_on_disk(ct_folder, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(str(ct_folder), str(out), **SMALL)
    (ct_folder / "p1.nii.gz").unlink()
    prepare(str(ct_folder), str(out), **SMALL)
    assert "left out of the datalist: p1" in capsys.readouterr().out
    assert list(cases_of(out)) == ["p2"] and (out / "p1" / "case.json").is_file()
    split(str(out), "1/0/0", seed=2)
    assert list(cases_of(out)) == ["p2"]


def test_cases_of_other_options_are_refused_where_this_run_does_not_make_them(ct_folder, tmp_path):
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    assert not any(in_shard(name, "1/99") for name in ("p1", "p2"))
    with pytest.raises(ValueError, match="were made with other options; use another output folder"):
        prepare(str(ct_folder), str(tmp_path / "out"), shard="1/99", **{**SMALL, "size": 8})


def test_shards_make_the_same_files_as_one_run(ct_folder, tmp_path, phantom):
    for number in (3, 4, 5):
        save_nifti(ct_folder / f"p{number}.nii.gz", phantom.ct_hu + number, phantom.affine)
    prepare(str(ct_folder), str(tmp_path / "one"), **SMALL)
    for part in ("1/2", "2/2"):
        prepare(str(ct_folder), str(tmp_path / "many"), shard=part, **SMALL)
    one, many = (files_of(tmp_path / name) for name in ("one", "many"))
    assert {name for name in one if one[name] != many[name]} <= {"datalist.json"} and one.keys() == many.keys()
    contents = [read_datalist(tmp_path / name / "datalist.json") for name in ("one", "many")]
    assert contents[0]["training"] == contents[1]["training"]


@pytest.mark.slow
def test_a_kill_leaves_no_half_case_and_the_run_goes_on(ct_folder, tmp_path, phantom):
    for number in range(3, 12):
        save_nifti(ct_folder / f"p{number}.nii.gz", phantom.ct_hu + number, phantom.affine)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "trct_monai", "prepare", "--input", str(ct_folder), "--output", str(out)]
    flags = ["--size", "64", "--radiograph_size", "256", "--num_workers", "0", "--fractions", "1/0/0"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    process = subprocess.Popen(
        [*command, *flags], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(out.glob("p*")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = list(out.glob("p*"))
    assert 0 < len(done) < 11 and not (out / "datalist.json").exists()
    for folder in done:
        digests = json.loads((folder / "case.json").read_text(encoding="utf-8"))["case"]["sha256"]
        assert set(digests) == {path.name for path in folder.iterdir()} - {"case.json"}
    times = {folder: folder.stat().st_mtime_ns for folder in done}
    prepare(str(ct_folder), str(out), size=64, radiograph_size=256, num_workers=0, fractions="1/0/0")
    assert all(folder.stat().st_mtime_ns == time_ for folder, time_ in times.items())
    assert len(load_datalist(out / "datalist.json", "training")) == 11 and not list(out.glob(".*"))


@pytest.mark.slow
def test_two_processes_do_what_one_does(ct_folder, tmp_path):
    prepare(str(ct_folder), str(tmp_path / "one"), **SMALL)
    prepare(str(ct_folder), str(tmp_path / "two"), **{**SMALL, "num_workers": 2})
    assert files_of(tmp_path / "one" / "p1") == files_of(tmp_path / "two" / "p1")


def test_refused_cases_are_listed_counted_and_stop_the_run(ct_folder, tmp_path, phantom, capsys):
    save_nifti(ct_folder / "bad.nii.gz", np.full_like(phantom.ct_hu, np.nan), phantom.affine)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="1 of 3 cases refused, more than --max_skipped 0.05"):
        prepare(str(ct_folder), str(out), **SMALL)
    assert "bad.nii.gz: holds values that are not finite" in "".join(capsys.readouterr())
    assert (out / "p1").is_dir() and not (out / "datalist.json").exists()
    prepare(str(ct_folder), str(out), max_skipped=0.5, **SMALL)
    assert len(load_datalist(out / "datalist.json", "training")) == 2


def test_each_of_several_reasons_is_shown_once_on_a_line_of_its_own(tmp_path, capsys):
    def products(source):
        raise SeveralReasonsError(f"{source}: no frontal", ["1.dcm: too\n dark", "2.dcm: too small"])

    with pytest.raises(ValueError, match="1 of 1 cases refused.*; the first: p1: no frontal$"):
        make_data_set(tmp_path / "out", [Job(("p1",), "p1")], Recipe(products, {}, "test"), dict, num_workers=0)
    lines = "".join(capsys.readouterr()).splitlines()
    assert [line for line in lines if "p1" in line or ".dcm" in line] == [
        "refused  p1: no frontal", "  1.dcm: too dark", "  2.dcm: too small",
    ]  # fmt: skip


def test_a_run_of_refusals_stops_early(tmp_path, phantom, capsys):
    for number in range(30):
        save_nifti(tmp_path / "in" / f"p{number:02d}.nii", np.full((8, 8, 8), np.nan, dtype=np.float32), phantom.affine)
    with pytest.raises(ValueError, match="20 of 30 cases refused, more than --max_skipped 0.05; .*; the first: .*p00"):
        prepare(str(tmp_path / "in"), str(tmp_path / "out"), **SMALL)
    assert "".join(capsys.readouterr()).count("refused  ") == EARLY_STOP
    assert not (tmp_path / "out").exists()
