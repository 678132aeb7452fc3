"""Each patient is left out once, by every method, and a run that was stopped goes on."""

from pathlib import Path

import pytest

from benchmarks.leave_one_patient_out import leave_one_patient_out
from tests.files import save_nifti
from trct_monai.phantoms import Phantom

pytestmark = pytest.mark.slow

TINY = {
    "encoder_channels": [4, 8],
    "decoder_channels": [8, 4],
    "view_channels": 4,
    "num_modes": 4,
    "step_size": 16,
    "start_path": "",
    "fitted_warps": 2,
    "validation_phantoms": 1,
    "patient_spacing": 10.0,
}


def test_every_method_is_scored_on_every_patient_that_it_has_not_seen(
    ct_folder: Path, phantom: Phantom, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = tmp_path / "others"
    for number in (3, 4):
        save_nifti(others / f"p{number}.nii.gz", phantom.ct_hu, phantom.affine)

    def run(methods: str) -> str:
        leave_one_patient_out(
            str(tmp_path / "out"), str(ct_folder), str(phantoms), methods, also=str(others), warps=1,
            num_phantoms=2, epochs=1, size=16, radiograph_size=32, threads=1, **TINY,
        )  # fmt: skip
        return capsys.readouterr().out

    run("ridge_pca,linear_start")
    before = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")
    assert before.count("\n") == 1 + 2 * 2 * (2 + 2)  # two methods, two numbers of views, two patients and two others
    printed = run("ridge_pca,linear_start,any_view")
    after = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8")
    assert after.startswith(before.rstrip("\n")) and after.count("any_view") == 2 * (2 + 2)
    for method in ("ridge_pca", "linear_start", "any_view"):
        assert f"| {method} | 2 | 2 left out |" in printed and f"| {method} | 1 | 2 others |" in printed


def test_options_that_a_bundle_lacks_are_refused(ct_folder: Path, phantoms: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="p1, p2: in the folders of --cts and in those of --also"):
        leave_one_patient_out(str(tmp_path / "out"), str(ct_folder), also=str(ct_folder), threads=1)
    with pytest.raises(ValueError, match="no_such: no such options of any_view's training"):
        leave_one_patient_out(
            str(tmp_path / "out"),
            str(ct_folder),
            str(phantoms),
            "any_view",
            size=16,
            radiograph_size=32,
            threads=1,
            no_such=1,
        )
