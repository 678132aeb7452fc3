"""Real radiographs beside their CT: paired by PatientID, understood by registration, and none is dropped silently."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.examinations import SPACING, body, taken, write_ct, write_radiograph
from tests.datasets.small import files_of, one_case
from tests.field.inputs import prepare, run, write_series
from trct_monai.datasets import prepare as prepare_of_library
from trct_monai.datasets import real_radiographs
from trct_monai.datasets.prepare_case import Options
from trct_monai.datasets.real_radiographs import RealOptions, measured_pixels, write_real_radiographs
from trct_monai.datasets.real_sources import describe_radiographs, pair_radiographs
from trct_monai.datasets.sources import Source, find_sources
from trct_monai.datasets.workers import in_shard
from trct_monai.geometry import Camera, make_camera
from trct_monai.intensity import STORED_HU
from trct_monai.io.ct import read_ct
from trct_monai.io.datalist import load_datalist
from trct_monai.io.radiograph import read_radiograph
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.registration import Registration
from trct_monai.transforms import LoadRadiographsd

FLAT = np.full((8, 8), 7, np.uint16)


def with_border(pixels: np.ndarray) -> np.ndarray:
    """The picture behind shutters, with a letter burned in."""
    framed = pixels.copy()
    framed[:14] = framed[-10:] = 0
    framed[:, :16] = framed[:, -12:] = 0
    framed[20:32, 150:170] = 4095
    return framed


def empty_ct(folder: Path, patient: str, number: int) -> None:
    write_series(folder, np.zeros((8, 8, 16)), np.eye(4), uid=f"2.25.9{number}", patient_id=patient)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Headers of several patients, in folders that say nothing, or the wrong thing."""
    for number, patient in enumerate(("A", "B", "C", "ANONYMOUS"), start=1):
        empty_ct(tmp_path / "in" / f"ct{number}", patient, number)
    write_radiograph(tmp_path / "in" / "ct2" / "f.dcm", FLAT, "A")
    write_radiograph(tmp_path / "in" / "elsewhere" / "deep" / "l.dcm", FLAT, "A ", day="20000112", modality="DX")
    write_radiograph(tmp_path / "in" / "ct1" / "belly.dcm", FLAT, "A", BodyPartExamined="ABDOMEN")
    write_radiograph(tmp_path / "in" / "ct1" / "both.dcm", FLAT, "A", BodyPartExamined="CHESTABDOMEN")
    write_radiograph(tmp_path / "in" / "ct3" / "one.dcm", FLAT, "C")
    write_radiograph(tmp_path / "in" / "ct1" / "d.dcm", FLAT, "D")
    write_radiograph(tmp_path / "in" / "ct4" / "nobody.dcm", FLAT, "ANONYMOUS")
    return tmp_path / "in"


def test_radiographs_belong_to_the_ct_of_their_patient_id_wherever_they_lie(folder: Path) -> None:
    found = pair_radiographs(folder, find_sources(folder), single_view=False)
    assert [source.patient_id for source in found.sources] == ["A"] and found.sources[0].layout == 6
    assert [path.name for path in found.sources[0].unsorted] == ["both.dcm", "f.dcm", "l.dcm"]
    reasons = {path.relative_to(folder).as_posix(): reason for path, reason in found.skipped}
    assert "BodyPartExamined ABDOMEN" in reasons.pop("ct1/belly.dcm")
    assert reasons.pop("ct1/d.dcm") == "1 radiograph of D, of whom there is no CT"
    assert reasons.pop("ct4/nobody.dcm") == "1 radiograph of a PatientID that names nobody"
    assert reasons.pop("ct2") == "a CT of B, of whom there are no radiographs"
    assert "one radiograph: --single_view True" in reasons.pop("ct3")
    assert "without a PatientID" in reasons.pop("ct4") and not reasons
    kept = pair_radiographs(folder, find_sources(folder), single_view=True).sources
    assert [source.patient_id for source in kept] == ["A", "C"]


def test_the_stamp_of_a_case_has_the_content_of_its_radiographs(folder: Path) -> None:
    (source,) = pair_radiographs(folder, find_sources(folder), single_view=False).sources
    before = source.digests(folder)
    write_radiograph(folder / "ct2" / "f.dcm", FLAT + 1, "A")
    after = source.digests(folder)
    assert {name for name in before if before[name] != after[name]} == {"ct2/f.dcm"}


def test_without_the_flag_all_is_as_before_and_one_line_names_it(folder: Path) -> None:
    found = find_sources(folder)
    assert all(not source.unsorted for source in found.sources)
    (line,) = describe_radiographs(found)
    assert line == "5 CR/DX radiographs of 2 of these patients: --real_radiographs True keeps them"
    options = Options(16, 320.0, "x2ct", 32, STORED_HU, False, False, False, None, 0.0, 0.7, "SPL")
    assert "real" not in options.recorded  # cases that were made before stay done
    shutil.rmtree(folder / "ct1"), shutil.rmtree(folder / "ct3")
    assert not list(describe_radiographs(find_sources(folder)))


def test_what_does_not_go_together_is_refused_in_one_line(folder: Path) -> None:
    real = {"real_radiographs": True, "radiograph_size": 512}
    assert "--real_radiographs measures cameras" in prepare(folder, **real, geometry="clinic").error
    assert "max_error must be positive" in prepare(folder, **real, max_error=0).error
    for own in ({"single_view": True}, {"max_error": 7}):
        assert "give --real_radiographs True, too" in prepare(folder, **own).error
    numbers = {"photons": 1e5, "scatter_fraction": 0.2, "kvp": 90, "whole": True, "nifti": True, "radiograph_size": 64}
    for flag, value in numbers.items():
        ran = prepare(folder, **{**real, flag: value})
        assert f"--{flag}" in ran.error and "--real_radiographs renders nothing" in ran.error
    shutil.rmtree(folder / "ct1"), shutil.rmtree(folder / "ct3")
    ran = prepare(folder, **real)
    assert (
        "expected CTs and radiographs of the same patients" in ran.error and "got 2 CTs and 3 radiographs" in ran.error
    )
    assert not ran.output.exists()


def test_borders_and_letters_are_not_measured() -> None:
    pixels = taken(body(5), "pa")
    shown = measured_pixels(torch.from_numpy(with_border(pixels) / 4095.0).float())
    assert not shown[:12].any() and not shown[23:29, 153:167].any()  # a frame beside air passes for air
    assert shown[60:150, 60:130].float().mean() > 0.95


def beside_a_ct(folder: Path, ct_hu: np.ndarray, pictures: dict[str, np.ndarray], **protocol: object):
    """`write_real_radiographs` of a CT and pictures of its patient, by their paths."""
    write_series(folder / "ct", ct_hu, np.diag([SPACING, SPACING, SPACING, 1.0]), uid="2.25.71", patient_id="A")
    files = tuple(write_radiograph(folder / name, pixels, "A") for name, pixels in pictures.items())
    slices = tuple(sorted((folder / "ct").iterdir()))
    source = Source("A", "A", "DICOM", folder / "ct", slices, unsorted=files)
    ct = read_ct(source.path, source.files)
    (cube,) = CTPreprocessing(**protocol).cubes(ct.ct_hu, [32], ct.affine)
    (folder / "case").mkdir()
    return write_real_radiographs(
        source, ct, cube, folder / "case", options=RealOptions(single_view=True), min_correlation=0.7, root=folder,
        refused=folder / "refused",
    )  # fmt: skip


def registered_as(camera: Camera, error_mm: float = 1.0):
    """In place of `register`: this camera for a frontal, and nothing for a lateral."""

    def register(image: torch.Tensor, ct_hu: torch.Tensor, spacing: object, view: Camera, **_: object) -> Registration:
        sure = view.name == "pa"
        orientation = {"transform": "identity", "correlation": 0.99 if sure else 0.1, "runner_up": "rotate_90"}
        intensity = {"quantitative": False, "gain": 1.0, "offset": 0.0}
        flat = torch.zeros(8, 8)
        found = camera if sure else view
        return Registration(found, {**orientation, "runner_up_correlation": 0.0}, intensity, flat, flat, error_mm, 0.1)

    return register


def test_films_of_one_name_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NBIA calls the one file of every series 1-1.dcm."""
    camera = make_camera("pa", 0.0, sod=1600.0, sdd=1800.0, detector_extent=(400.0, 380.0), size=(200, 190))
    monkeypatch.setattr(real_radiographs, "register", registered_as(camera, error_mm=9.0))
    pictures = {"cr/s1/1-1.dcm": taken(body(5), "pa"), "cr/s2/1-1.dcm": taken(body(5), "lat")}
    with pytest.raises(ValueError, match=r"cr/s1/1-1\.dcm: fits .*; cr/s2/1-1\.dcm: fits"):
        beside_a_ct(tmp_path, body(5), pictures, center="lungs")
    assert sorted(path.name for path in (tmp_path / "refused").iterdir()) == ["A_1_1-1.png", "A_2_1-1.png"]


def test_the_lungs_must_be_in_the_picture_wherever_the_cube_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scan down to the hip, in a cube around the middle of the scan, 100 mm below that of the chest."""
    long = np.concatenate([body(5)[:, :, :1].repeat(40, axis=2), body(5)], axis=2)
    chest = make_camera("pa", 0.0, sod=1600.0, sdd=1800.0, detector_extent=(300.0, 300.0), size=(200, 190))
    pixels = {"1.dcm": taken(body(5), "pa")}
    monkeypatch.setattr(real_radiographs, "register", registered_as(chest.shifted((0.0, 0.0, 100.0))))
    fields, _ = beside_a_ct(tmp_path / "chest", long, pixels, center="body", extent=600.0)
    assert fields["views"] == ["pa"]
    monkeypatch.setattr(real_radiographs, "register", registered_as(chest.shifted((0.0, 0.0, -60.0))))
    with pytest.raises(ValueError, match="points of the middle of the lungs, no whole chest"):
        beside_a_ct(tmp_path / "belly", long, pixels, center="body", extent=600.0)


@pytest.fixture(scope="module")
def examined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A patient with four radiographs, one with somebody else's frontal, and what became of them."""
    root = tmp_path_factory.mktemp("examined")
    write_ct(root / "in" / "ct" / "a", 5, "A")
    write_ct(root / "in" / "ct" / "e", 3, "E")
    own = body(5)
    cr = root / "in" / "cr"
    frontal = with_border(taken(own, "ap", seed=1))
    write_radiograph(cr / "1.dcm", frontal, "A", ViewPosition="AP", PhotometricInterpretation="MONOCHROME1")
    write_radiograph(cr / "2.dcm", taken(own, "lat", seed=2), "A", day="20000112", ViewPosition="PA")
    write_radiograph(cr / "3.dcm", taken(body(5, 0.25), "pa", seed=3), "A", day="20000301", modality="DX")
    noise = np.random.default_rng(0).integers(1, 4000, (200, 190)).astype(np.uint16)
    write_radiograph(cr / "4.dcm", noise, "A", ViewPosition="LL")
    write_radiograph(cr / "5.dcm", taken(own, "pa", seed=4), "E")
    write_radiograph(cr / "6.dcm", taken(body(3), "rl", seed=5)[:, ::-1], "E", ViewPosition="RL")
    return root


ARGUMENTS = {"size": 40, "num_workers": 1, "fractions": "1/0/0", "real_radiographs": True, "max_skipped": 0.5}


@pytest.fixture(scope="module")
def prepared(examined: Path) -> tuple[Path, str]:
    ran = run("prepare", examined / "out", input=examined / "in", output=examined / "out", **ARGUMENTS)
    assert ran.code == 0, ran.text
    return examined / "out", ran.text


@pytest.mark.slow
def test_a_frontal_and_a_lateral_are_found_whatever_their_headers_say(prepared: tuple[Path, str]) -> None:
    output, text = prepared
    case = one_case(output)
    assert case["patient_id"] == "A" and case["views"] == ["pa", "lat"]
    films = case["provenance"]["films"]
    assert [(film["path"], film["days_after_ct"], film["view_position"]) for film in films] == [
        ("cr/1.dcm", 0, "AP"), ("cr/2.dcm", 2, "PA"),
    ]  # fmt: skip
    reasons = {one["path"]: one["reason"] for one in case["provenance"]["left_out"]}
    assert reasons["cr/3.dcm"] == "another frontal: cr/1.dcm is nearer in time to the CT"
    assert reasons["cr/4.dcm"].startswith("fits the CT with certainty neither as a frontal nor as a lateral")
    assert "cr/2.dcm is a lateral, its header says PA" in text
    assert all(f"left out {path}" in text and reason in text for path, reason in reasons.items())
    assert "cr/5.dcm: fits the CT with certainty neither" in text and "no frontal radiograph of this patient" in text
    assert "--single_view True" in text
    assert sum("cr/5.dcm" in line for line in text.splitlines()) == 1


@pytest.mark.slow
def test_cameras_stand_where_the_radiographs_were_taken_from(prepared: tuple[Path, str]) -> None:
    """The AP is not mirrored as displayed, so it is by its camera, whose source is in front of the patient."""
    case = one_case(prepared[0])
    frontal, lateral = (Camera.from_dict(camera) for camera in case["cameras"])
    assert [one["transform"] for one in case["orientation"]] == ["flip_columns", "identity"]
    assert frontal.source is not None and frontal.source[1] > 1300
    assert lateral.source is not None and lateral.source[0] > 1300
    for camera, turn in ((frontal, 1), (lateral, 2)):
        assert camera.pixel_spacing == pytest.approx((2.0, 2.0), rel=0.02)
        angle = (torch.rand(1, generator=torch.Generator().manual_seed(turn)).item() - 0.5) * 6
        nominal = torch.tensor([0.0, -1.0, 0.0] if camera is frontal else [-1.0, 0.0, 0.0])
        turned = torch.rad2deg(torch.acos(torch.tensor(camera.normal) @ nominal))
        assert float(turned) < abs(angle) + 3.5
    assert max(one["error_mm"] for one in case["orientation"]) < 2.5


@pytest.mark.slow
def test_the_data_set_is_as_any_other_and_holds_no_name_and_no_day(prepared: tuple[Path, str], examined: Path) -> None:
    output, _ = prepared
    assert run("check", output, datalist=output / "datalist.json").code == 0
    (case,) = load_datalist(output / "datalist.json", "training", near="clinic")
    loaded = LoadRadiographsd(size=64, geometry="clinic", near_cameras=True)(case)
    assert loaded["image"].shape == (2, 64, 64) and bool(loaded["calibrated"].all())
    content = files_of(output)
    assert not any(word in file for file in content.values() for word in (b"Doe", b"20000110", b"2000-01"))
    assert str(examined).encode() not in content["datalist.json"]
    with Image.open(output / case["image"][0]) as picture:
        assert picture.size == (190, 200)
    assert not any(read_radiograph(Path(file)).exposed for file in case["image"]) and not loaded["exposed"].any()
    assert json.loads(content["datalist.json"])["geometry"] == "measured"


@pytest.mark.slow
def test_what_is_done_is_not_registered_again(prepared: tuple[Path, str], examined: Path) -> None:
    output, _ = prepared
    name = one_case(output)["case_id"]
    shard = next(part for part in ("1/2", "2/2") if in_shard(name, part))

    def times() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (output / name).iterdir()}

    before = times()
    run("prepare", output, input=examined / "in", output=output, **{**ARGUMENTS, "shard": shard})
    assert times() == before


@pytest.mark.slow
def test_one_view_is_kept_if_asked_for(examined: Path) -> None:
    alone = examined / "alone"
    shutil.copytree(examined / "in" / "ct" / "e", alone / "ct")
    (alone / "cr").mkdir()
    shutil.copy(examined / "in" / "cr" / "6.dcm", alone / "cr" / "6.dcm")
    prepare_of_library(str(alone), str(examined / "one"), single_view=True, **{**ARGUMENTS, "num_workers": 0})
    case = one_case(examined / "one")
    camera = Camera.from_dict(case["cameras"][0])
    assert case["views"] == ["lat"] and camera.source is not None and camera.source[0] < -1300
    assert case["orientation"][0]["transform"] == "identity" and case["provenance"]["left_out"] == []
