"""Spheres in CT and radiographs alike."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.datasets.plant import plant
from trct_monai.datasets.spheres import choose_place, chord_lengths, find_lung_tissue
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.geometry import make_camera, preset
from trct_monai.intensity import MU_WATER
from trct_monai.io.datalist import load_datalist
from trct_monai.metrics.anatomy import find_lungs
from trct_monai.metrics.sphere import Sphere
from trct_monai.projector import project
from trct_monai.transforms import LoadRadiographsd

OPTIONS = {"diameters": "30/60", "contrasts": "500", "cases": 2, "num_workers": 0}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    make_phantoms(str(folder / "data"), size=32, radiograph_size=48, split="1/0/3", num_workers=0)
    plant(datalist=str(folder / "data" / "datalist.json"), output=str(folder / "out"), **OPTIONS)
    return folder / "out" / "datalist.json"


def tilted() -> list:
    options = {"sod": 541.0, "sdd": 949.0, "detector_extent": (500.0, 500.0), "size": (40, 44)}
    return [make_camera("a", 30.0, elevation_deg=12.0, **options)]


@pytest.mark.parametrize(
    "cameras", [preset("x2ct", 40), preset("parallel", 40), tilted()], ids=["cone", "parallel", "tilt"]
)
def test_the_shadow_of_a_sphere_is_that_of_its_voxels(cameras) -> None:
    sphere = Sphere((40.0, -25.0, 60.0), 60.0, 1.0)
    volume = torch.from_numpy(sphere.share((128, 128, 128), 2.5)).float()[None, None]
    shadows = torch.stack([chord_lengths(sphere, camera) for camera in cameras])
    fine = [camera.resized((4 * camera.size[0], 4 * camera.size[1])) for camera in cameras]
    expected = torch.nn.functional.avg_pool2d(project(volume, fine, 2.5), 4)[0]
    assert (shadows - expected).norm() < 0.02 * expected.norm()
    assert shadows.max() == pytest.approx(60.0, rel=0.03)


@pytest.mark.parametrize(
    "cameras", [preset("x2ct", 40), preset("parallel", 40), tilted()], ids=["cone", "parallel", "tilt"]
)
def test_the_shadow_is_where_the_camera_projects_the_sphere(cameras) -> None:
    sphere = Sphere((40.0, -25.0, 60.0), 30.0, 1.0)
    for camera in cameras:
        u, v, w = (camera.world_to_detector() @ torch.tensor([*sphere.center_mm, 1.0], dtype=torch.float64)).tolist()
        shadow, (rows, columns) = chord_lengths(sphere, camera).double(), camera.size
        row = float((shadow.sum(1) * torch.arange(rows)).sum() / shadow.sum())
        column = float((shadow.sum(0) * torch.arange(columns)).sum() / shadow.sum())
        assert row == pytest.approx((v / w + 1) * rows / 2 - 0.5, abs=0.1)
        assert column == pytest.approx((u / w + 1) * columns / 2 - 0.5, abs=0.1)


def test_ct_and_radiographs_show_one_sphere(planted: Path) -> None:
    cases = {case["case_id"]: case for case in load_datalist(planted, "test")}
    assert len(cases) == 2 * 3
    load = LoadRadiographsd()
    for case in cases.values():
        if "planted" not in case:
            continue
        base = cases[case["planted"]["base"]]
        assert case["patient_id"] == base["patient_id"] and case["cameras"] == base["cameras"]
        truth, without = (nibabel.load(c["label"]).get_fdata() for c in (case, base))
        diameter, spacing = case["planted"]["diameter_mm"], 10.0
        added = truth - without
        assert added.sum() * spacing**3 == pytest.approx(500 * np.pi / 6 * diameter**3, rel=0.02)
        assert find_lungs(without, spacing)[added > 400].mean() > 0.5
        images, others = (load({"image": c["image"]})["image"] for c in (case, base))
        sphere = Sphere(tuple(case["planted"]["center_mm"]), diameter, 500.0)
        cameras = preset("x2ct", 48)
        shadows = torch.stack([chord_lengths(sphere, camera) for camera in cameras]) * MU_WATER / 2
        torch.testing.assert_close(images - others, shadows, atol=5e-4, rtol=0)


def test_the_same_place_for_all_sizes_and_another_for_another_seed() -> None:
    lungs = np.zeros((20, 20, 20), dtype=bool)
    lungs[4:14, 4:14, 4:14] = True
    place = choose_place(lungs, 10.0, 20.0, "a", 0)
    assert place == choose_place(lungs, 10.0, 20.0, "a", 0)
    assert len({choose_place(lungs, 10.0, 20.0, "a", seed) for seed in range(10)}) > 5
    index = (np.array(place) / 10 + 9.5).round().astype(int)
    assert ((index >= 5) & (index <= 12)).all()
    lungs[4:14, 4:14, 14:] = True  # the cube cuts these lungs: there is no place at its top
    assert max(choose_place(lungs, 10.0, 40.0, "a", seed)[2] for seed in range(50)) <= 100.0 - 40.0
    choose_place(lungs, 10.0, 500.0, "a", 0)  # where it fits nowhere, the place with the most room
    with pytest.raises(ValueError, match="a has no lungs"):
        choose_place(np.zeros((4, 4, 4), dtype=bool), 10.0, 5.0, "a", 0)


def test_airways_are_no_place_and_noise_is_no_airway() -> None:
    body = np.zeros((40, 40, 40))
    body[5:35, 5:35, 5:35] = -800.0
    body[18:24, 18:24, 5:35] = -1000.0
    noise = np.random.default_rng(0).normal(size=body.shape)
    tissue = find_lung_tissue(body + 60.0 * noise, 2.5)
    assert not tissue[19:23, 19:23, 8:32].any()
    assert tissue[8:16, 8:32, 8:32].all()


def test_a_stopped_run_goes_on_and_other_options_write_anew(planted: Path, tmp_path: Path) -> None:
    source = str(planted.parents[1] / "data" / "datalist.json")
    plant(datalist=source, output=str(tmp_path), **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    lost = sorted(before)[3]
    lost.unlink()
    plant(datalist=source, output=str(tmp_path), **OPTIONS)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nii.gz")}
    assert [path for path in before if after[path] != before[path]] == [lost]
    same = {path.relative_to(tmp_path): path.read_bytes() for path in tmp_path.rglob("*.nii.gz")}
    assert same == {path.relative_to(planted.parent): path.read_bytes() for path in planted.parent.rglob("*.nii.gz")}


def test_changed_radiographs_are_planted_anew(planted: Path, tmp_path: Path) -> None:
    shutil.copytree(planted.parents[1] / "data", tmp_path / "data")
    source = tmp_path / "data" / "datalist.json"
    plant(datalist=str(source), output=str(tmp_path / "out"), **OPTIONS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*/*.nii.gz")}
    changed = load_datalist(source, "test")[0]
    side_car = Path(changed["image"][0]).with_suffix(".json")
    content = json.loads(side_car.read_text(encoding="utf-8"))
    side_car.write_text(json.dumps(content | {"scale": content["scale"] * 1.5}), encoding="utf-8")
    plant(datalist=str(source), output=str(tmp_path / "out"), **OPTIONS)
    for path, time in before.items():
        assert (path.stat().st_mtime_ns != time) == path.name.startswith(changed["case_id"])


def test_evaluate_tells_which_spheres_a_method_shows(
    planted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "p").mkdir()
    for case in load_datalist(planted, "test"):
        (tmp_path / "p" / f"{case['case_id']}.nii.gz").write_bytes(Path(case["label"]).read_bytes())
    evaluate(
        predictions=str(tmp_path / "p"), datalist=str(planted), output=str(tmp_path / "out"), figures=0, num_workers=0
    )
    rows = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["detectability"]
    assert [(row["diameter_mm"], row["contrast_hu"]) for row in rows] == [(30.0, 500.0), (60.0, 500.0)]
    assert all(row["auc"] == 1.0 and row["recovered_contrast"] == pytest.approx(1.0) for row in rows)
    assert "| 30 | 500 | 1.00 | 1.00 | 0.000 | 0.0 | 1.00 |" in capsys.readouterr().out


def test_bad_arguments_are_refused(planted: Path, tmp_path: Path) -> None:
    source = str(planted.parents[1] / "data" / "datalist.json")
    for options, message in (
        ({"diameters": "10/-5"}, "diameters must be different positive numbers, got '10/-5'"),
        ({"contrasts": "5/5"}, "contrasts must be different positive numbers"),
        ({"diameters": "ten"}, "diameters must be numbers separated by /, such as 10/20/40, got 'ten'"),
        ({"diameters": "nan"}, "diameters must be numbers separated by /, .*, got 'nan'"),
        ({"contrasts": "inf"}, "contrasts must be numbers separated by /, .*, got 'inf'"),
        ({"section": "validation"}, "section 'validation' has no case"),
        ({"cases": -1}, "or cases is not positive"),
        ({"diameters": "400"}, "a sphere of 400 mm and 500 HU does not fit into the cube"),
        ({"diameters": "4"}, "a sphere of 4 mm and 500 HU does not show in voxels of 10 mm"),
        ({"contrasts": "0.3"}, "a sphere of 30 mm and 0.3 HU does not show"),
    ):
        with pytest.raises(ValueError, match=message):
            plant(datalist=source, output=str(tmp_path / "out"), **(OPTIONS | options))
    assert not (tmp_path / "out").exists()


def test_the_patients_are_not_written_over(planted: Path, tmp_path: Path) -> None:
    source = planted.parents[1] / "data" / "datalist.json"
    before = {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}
    content = json.loads(source.read_text(encoding="utf-8"))
    for case in content["test"]:
        case["label"] = str(source.parent / case["label"])
        case["image"] = [str(source.parent / image) for image in case["image"]]
    elsewhere = tmp_path / "datalist.json"
    elsewhere.write_text(json.dumps(content), encoding="utf-8")
    for datalist, output in ((source, source.parent), (elsewhere, source.parent), (elsewhere, tmp_path)):
        with pytest.raises(ValueError, match="holds the patients themselves"):
            plant(datalist=str(datalist), output=str(output), **OPTIONS)
    assert before == {path: path.read_bytes() for path in source.parent.rglob("*") if path.is_file()}


@pytest.mark.parametrize("gain", [None, 2.0])
def test_radiographs_that_are_not_quantitative_are_refused(planted: Path, tmp_path: Path, gain: float | None) -> None:
    source = planted.parents[1] / "data" / "datalist.json"
    content = json.loads(source.read_text(encoding="utf-8"))
    for one in content["test"][0]["intensity"]:
        one.update(quantitative=False, gain=gain, offset=gain and 0.0)
    datalist = source.with_name(f"gain_{gain}.json")
    datalist.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="1 of 2 patients refused; .* sphere: its radiographs are not quant"):
        plant(datalist=str(datalist), output=str(tmp_path), **OPTIONS)
    datalist.unlink()


def test_pairs_of_phases_take_no_sphere(phase_pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds pairs of phases, expected CTs with radiographs"):
        plant(datalist=str(phase_pairs), output=str(tmp_path / "out"), **OPTIONS)
