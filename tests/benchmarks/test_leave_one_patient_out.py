"""Each patient is left out once, by every method, and a run that was stopped goes on."""

from pathlib import Path

import pytest
import torch

from benchmarks.leave_one_patient_out import leave_one_patient_out
from benchmarks.patient_intervals import patient_intervals
from tests.files import save_nifti
from trct_monai.io import load_state, save_state
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

    weights = tmp_path / "out" / "any_view" / "all" / "model.pt"
    patient_intervals(
        str(tmp_path / "out"), str(ct_folder), str(phantoms), str(weights), steps=5, num_phantoms=1, threads=1,
        volume_size=16, radiograph_size=32, batch_size=1, **TINY,
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert all(f"| {name} | " in printed for name in ("p1", "p2", "1 phantoms"))
    fitted = load_state(weights.with_name("intervals.pt"))
    assert fitted["head.conv_block.weight"].any() and not fitted["residual_power"].eq(0)
    assert (fitted["factors"] > 0).all() and (fitted["factors"][:, 1] > fitted["factors"][:, 0]).all()


def test_weights_that_have_seen_patients_are_refused(ct_folder: Path, phantoms: Path, tmp_path: Path) -> None:
    means = torch.zeros(2, 1, 8, 8, 8)
    for means[1], message in ((1.0, "model.pt has a model of patients"), (0.0, "no_such: no such options")):
        save_state(tmp_path / "model.pt", {"linear_start.mean": means})
        with pytest.raises(ValueError, match=message):
            leave_one_patient_out(
                str(tmp_path / "out"), str(ct_folder), str(phantoms), "any_view", size=16, radiograph_size=32,
                threads=1, start_path=str(tmp_path / "model.pt"), no_such=1,
            )  # fmt: skip


def test_a_part_of_the_folds_is_run(
    ct_folder: Path, phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(only: str) -> None:
        leave_one_patient_out(
            str(tmp_path / "out"), str(ct_folder), str(phantoms), "mean_volume", only=only, warps=1, num_phantoms=1,
            size=16, radiograph_size=32, threads=1,
        )  # fmt: skip

    run("p2")
    scores = (tmp_path / "out" / "scores.csv").read_text(encoding="utf-8").splitlines()
    assert [line.split(",")[0] for line in scores] == ["fold", "p2", "p2"]
    with pytest.raises(ValueError, match="p3: no such fold; there are p1, p2"):
        run("p3")


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
            start_path="",
            no_such=1,
        )
