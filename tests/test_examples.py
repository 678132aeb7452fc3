"""The Deploy example: what it takes from a folder; with the SDK in the environment, all of it."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tests.files import save_dx

PIXELS = np.full((8, 6), 100, dtype=np.uint16)
PATIENT = {"t0010_0020": "P1", "t0020_000d": "1.2.3"}


@pytest.fixture(scope="module")
def radiographs(repository: Path) -> ModuleType:
    """The module of the example that needs no SDK."""
    spec = importlib.util.spec_from_file_location("radiographs", repository / "examples" / "deploy" / "radiographs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_header_comes_before_name(radiographs: ModuleType, tmp_path: Path) -> None:
    save_dx(tmp_path / "chest_pa.dcm", PIXELS, t0018_5101="LL", **PATIENT)
    save_dx(tmp_path / "b.dcm", PIXELS, t0008_103e="Chest frontal", **PATIENT)
    (tmp_path / "notes.txt").write_text("pa", encoding="utf-8")
    assert radiographs.find_radiographs(tmp_path) == {"pa": tmp_path / "b.dcm", "lat": tmp_path / "chest_pa.dcm"}


def test_png_go_by_name(radiographs: ModuleType, tmp_path: Path) -> None:
    for name in ("case_1_pa_drr.png", "case_1_lateral.png", "pale.png"):
        (tmp_path / name).touch()
    found = radiographs.find_radiographs(tmp_path)
    assert {view: path.name for view, path in found.items()} == {
        "pa": "case_1_pa_drr.png",
        "lat": "case_1_lateral.png",
    }


@pytest.mark.parametrize("description", ["AP supine", "pa and lateral", "skull", ""])
def test_words_that_do_not_settle_the_view_are_not_guessed_from(
    radiographs: ModuleType, tmp_path: Path, description: str
) -> None:
    save_dx(tmp_path / "a.dcm", PIXELS, t0008_103e=description, **PATIENT)
    with pytest.raises(ValueError, match="no radiograph"):
        radiographs.find_radiographs(tmp_path)


def test_two_patients_are_refused(radiographs: ModuleType, tmp_path: Path) -> None:
    save_dx(tmp_path / "a.dcm", PIXELS, t0018_5101="PA", **PATIENT)
    save_dx(tmp_path / "b.dcm", PIXELS, t0018_5101="LL", **PATIENT | {"t0010_0020": "P2"})
    with pytest.raises(ValueError, match="differ in PatientID"):
        radiographs.find_radiographs(tmp_path)


def test_two_of_one_view_are_refused(radiographs: ModuleType, tmp_path: Path) -> None:
    for name in ("a.dcm", "b.dcm"):
        save_dx(tmp_path / name, PIXELS, t0018_5101="PA", **PATIENT)
    with pytest.raises(ValueError, match="both view 'pa'"):
        radiographs.find_radiographs(tmp_path)


def test_application_writes_one_volume_twice(repository: Path, phantoms: Path, tmp_path: Path) -> None:
    """Needs an environment with examples/deploy/requirements.txt."""
    if importlib.util.find_spec("holoscan") is None:
        pytest.skip("the MONAI Deploy App SDK is not installed")
    import itk

    case = next(path for path in sorted(phantoms.parent.iterdir()) if path.is_dir())
    app = repository / "examples" / "deploy" / "app.py"
    subprocess.run([sys.executable, str(app), "--input", str(case), "--output", str(tmp_path / "out")], check=True)
    names = itk.GDCMSeriesFileNames.New(Directory=str(tmp_path / "out" / "dicom"))
    series = itk.imread(list(names.GetFileNames(names.GetSeriesUIDs()[0])), itk.F)
    nifti = itk.imread(str(tmp_path / "out" / "ct.nii.gz"), itk.F)
    assert list(series.GetSpacing()) == list(nifti.GetSpacing()) == [5.0] * 3
    # ITK keeps DICOM's axes (to the left and back) and NIfTI's (to the right and front).
    np.testing.assert_array_equal(itk.array_from_image(series), itk.array_from_image(nifti)[:, ::-1, ::-1])
    assert list(series.GetOrigin()) == list(nifti.TransformIndexToPhysicalPoint([63, 63, 0]))
