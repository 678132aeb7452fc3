"""The second table of a leaderboard: what each method shows of planted spheres."""

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.datasets.plant import plant
from trct_monai.evaluation.leaderboard import leaderboard
from trct_monai.io.datalist import load_datalist
from trct_monai.io.files import read_csv

SPHERES = {"diameters": "50/80", "contrasts": "300/600", "num_workers": 0}


def predict(folder: Path, datalist: Path, with_lesions: bool) -> None:
    """Predictions that are 30 HU too high, with the lesions or without."""
    folder.mkdir()
    cases = {case["case_id"]: case for case in load_datalist(datalist, "test")}
    for name, case in cases.items():
        shown = case if with_lesions or not case.get("planted") else cases[case["planted"]["base"]]
        image = nibabel.load(shown["label"])
        hu = image.get_fdata().astype(np.float32) + 30
        nibabel.save(nibabel.Nifti1Image(hu, image.affine), folder / f"{name}.nii.gz")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two baselines, a method that shows lesions, one that does not, and one without predictions of planted cases."""
    folder = tmp_path_factory.mktemp("lesions")
    main, planted = (folder / name / "datalist.json" for name in ("data", "planted"))
    make_phantoms(str(main.parent), size=16, radiograph_size=32, split="4/0/3", num_workers=0)
    plant(datalist=str(main), output=str(planted.parent), cases=2, **SPHERES)
    for name in ("sees", "blind", "unknown"):
        predict(folder / name, main, True)
    predict(folder / "sees_planted", planted, True)
    predict(folder / "blind_planted", planted, False)
    run(folder)
    return folder


def run(folder: Path, **options: Any) -> None:
    leaderboard(
        **{
            "datalist": str(folder / "data" / "datalist.json"),
            "output": str(folder / "out"),
            "methods": ",".join(f"{name}={folder / name}" for name in ("sees", "blind", "unknown")),
            "planted": str(folder / "planted" / "datalist.json"),
            "planted_methods": f"sees={folder / 'sees_planted'},blind={folder / 'blind_planted'}",
            "baselines": "mean_volume,backprojection",
            "num_workers": 0,
            **options,
        }
    )


def table(folder: Path) -> dict[str, dict[str, str]]:
    return {row["method"]: row for row in read_csv(folder / "out" / "detectability.csv")}


def test_a_method_that_shows_lesions_is_told_from_one_that_does_not(board: Path) -> None:
    rows = table(board)
    assert set(rows) == {"sees", "blind", "unknown", "mean_volume", "backprojection"}
    for sphere in ("d50_c300", "d80_c600"):
        sees, blind = rows["sees"], rows["blind"]
        assert float(sees[f"recovered_contrast.{sphere}"]) == pytest.approx(1.0)
        assert float(sees[f"size_ratio.{sphere}"]) == pytest.approx(1.0)
        assert float(sees[f"place_error_mm.{sphere}"]) == pytest.approx(0.0, abs=1e-6)
        assert float(sees[f"auc.{sphere}"]) == 1.0
        assert float(blind[f"recovered_contrast.{sphere}"]) == 0.0 and blind[f"place_error_mm.{sphere}"] == ""
        assert float(rows["mean_volume"][f"recovered_contrast.{sphere}"]) == 0.0
        assert 0 < float(rows["backprojection"][f"recovered_contrast.{sphere}"]) < 0.5
        assert rows["unknown"][f"recovered_contrast.{sphere}"] == ""


def test_the_printed_table_has_the_middle_contrast_and_dashes_where_nothing_is_known(board: Path) -> None:
    text = (board / "out" / "detectability.md").read_text(encoding="utf-8")
    titles, _, *lines = text.splitlines()
    assert "contrast recovered, 80 mm 600 HU" in titles and "300 HU" not in titles
    (unknown,) = (line for line in lines if line.startswith("| unknown |"))
    assert unknown.startswith("| unknown | - | - | - |") and "| 0.70 |" in unknown  # the Dice is known
    main = (board / "out" / "leaderboard.md").read_text(encoding="utf-8").splitlines()[2:]
    assert [line.split(" | ")[0] for line in lines] == [line.split(" | ")[0] for line in main]


def test_complete_predictions_of_planted_cases_are_not_made_again(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in board.glob("out/planted/predictions/*/*.nii.gz")}
    capsys.readouterr()
    run(board)
    printed = capsys.readouterr().out
    assert "fitting" not in printed and "contrast recovered, 80 mm 600 HU" in printed and "detectability.csv" in printed
    assert {path: path.stat().st_mtime_ns for path in board.glob("out/planted/predictions/*/*.nii.gz")} == before
    assert len(before) == 2 * 2 * 5


def test_a_planted_set_of_other_cases_is_refused(board: Path, tmp_path: Path) -> None:
    data, planted = board / "data", board / "planted"
    other = tmp_path / "other"
    make_phantoms(str(other), size=16, radiograph_size=32, split="0/0/2", num_workers=0, seed=7)
    changed = Path(shutil.copytree(planted, tmp_path / "changed")) / "datalist.json"
    content = json.loads(changed.read_text(encoding="utf-8"))
    content["test"][0]["image"] = content["test"][0]["image"][::-1]  # the views are exchanged
    changed.write_text(json.dumps(content), encoding="utf-8")
    for options, message in (
        ({"planted": str(data / "datalist.json"), "planted_methods": None}, "holds no planted spheres; make it with"),
        (
            {"datalist": str(other / "datalist.json"), "methods": None, "planted_methods": None},
            "spheres are planted in",
        ),
        ({"planted": str(changed)}, "its radiographs of .* are not those of .*datalist.json; make it with plant"),
        ({"planted_methods": f"nobody={board / 'sees_planted'}"}, "must be among methods, got nobody"),
        ({"planted_methods": "sees"}, "planted_methods must be name=FOLDER"),
        ({"planted": None}, "give their datalist with --planted"),
        ({"planted_methods": f"sees={board / 'sees'}"}, "8 of 10 predictions are missing"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            run(board, output=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()
