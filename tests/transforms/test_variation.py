"""From a CT's file to a box, another patient, and a label with radiographs that belong together."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from tests.devices.accelerator import ACCELERATOR, accelerator
from tests.files import save_nifti, save_series
from trct_monai.datasets import ct_cases, hold_out
from trct_monai.geometry import preset, projection_matrices
from trct_monai.intensity import unit_to_hu
from trct_monai.phantoms import Phantom
from trct_monai.preprocessing import CTPreprocessing
from trct_monai.projector import project_hu
from trct_monai.transforms import (
    CutCubed,
    LoadPatientd,
    OtherShapesd,
    RandScanLimitsd,
    RandSurroundingsd,
    RandTissued,
    RandWarpd,
    RenderViews,
)

SPACING = 10.0


def random_transforms(prob: float = 1.0) -> Compose:
    return Compose(
        [
            RandWarpd(spacing=SPACING, prob=prob),
            RandTissued(spacing=SPACING, prob=prob),
            RandSurroundingsd(spacing=SPACING, prob=prob),
            RandScanLimitsd(spacing=SPACING, prob=prob),
            CutCubed(size=16, spacing=SPACING),
        ]
    )


def loaded(ct_folder: Path) -> dict[str, torch.Tensor]:
    result: dict[str, torch.Tensor] = LoadPatientd(spacing=SPACING)(ct_cases(ct_folder)[0])
    return result


def test_a_box_holds_the_cube_in_its_middle(ct_folder: Path, phantom: Phantom) -> None:
    case = loaded(ct_folder)
    assert case["patient"].shape == (1, 44, 36, 40) and case["patient"].dtype == torch.int16
    label = CutCubed(size=16, spacing=SPACING)(case)["label"]
    ct = torch.from_numpy(phantom.ct_hu + 1)[None].float()
    expected = CTPreprocessing(32).cubes(ct, [32], torch.from_numpy(phantom.affine))[0].as_tensor().clamp(-1024, 1476)
    means = expected.unfold(1, 2, 2).unfold(2, 2, 2).unfold(3, 2, 2).mean(dim=(-3, -2, -1))
    torch.testing.assert_close(unit_to_hu(label), means, atol=1.0, rtol=0)


def test_without_chance_nothing_changes(ct_folder: Path) -> None:
    case = loaded(ct_folder)
    changed = random_transforms(0.0)(case)
    assert torch.equal(changed["patient"], case["patient"].float())


def test_another_patient_each_time_and_the_same_from_the_same_seed(ct_folder: Path) -> None:
    case = loaded(ct_folder)
    one = random_transforms().set_random_state(3)
    first, second = one(case), one(case)
    again = random_transforms().set_random_state(3)(case)
    assert not torch.equal(first["label"], second["label"]) and torch.equal(first["label"], again["label"])
    assert case["patient"].dtype == torch.int16  # what is cached stays as it is
    for result in (first, second):
        assert result["label"].shape == (1, 16, 16, 16) and 0 <= result["label"].min() <= result["label"].max() <= 1


def test_radiographs_show_the_patient_whole_or_the_cube_alone(ct_folder: Path) -> None:
    case = CutCubed(size=16, spacing=SPACING)(loaded(ct_folder))
    box = case["patient"].float()
    box[:, :4] = 0.0  # a wall of water at the patient's left, outside the cube
    batch = {"patient": box[None], "label": case["label"][None]}
    cameras = list(preset("x2ct", 32))
    for share, volume in ((1.0, box), (0.0, box[:, 6:-6, 2:-2, 4:-4])):
        image, label, _, named = RenderViews(radiograph_size=32, spacing=SPACING, whole_share=share)(
            batch, "cpu", False
        )
        torch.testing.assert_close(image[0], project_hu(volume, cameras, SPACING), atol=1e-4, rtol=1e-4)
        assert label is not None and torch.equal(label, batch["label"]) and bool(named["exposed"].all())
        torch.testing.assert_close(named["matrices"][0], projection_matrices(cameras))


def test_a_batch_with_a_patient_needs_the_spacing(ct_folder: Path) -> None:
    case = CutCubed(size=16, spacing=SPACING)(loaded(ct_folder))
    with pytest.raises(ValueError, match="a batch with 'patient' needs the spacing"):
        RenderViews(radiograph_size=32)({name: case[name][None] for name in ("patient", "label")}, "cpu", False)


def test_a_box_of_broken_voxels_is_refused() -> None:
    with pytest.raises(ValueError, match="spacing must divide the cube of 320 mm into whole voxels, got 3"):
        LoadPatientd(spacing=3)


def test_a_box_whose_cube_is_not_in_the_middle_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a volume of \(33, 36, 40\) voxels has no cube of 32 in its middle"):
        CutCubed(size=16, spacing=SPACING)({"patient": torch.zeros(1, 33, 36, 40)})


def test_patients_stay_on_their_device(ct_folder: Path) -> None:
    box = loaded(ct_folder)["patient"]
    with accelerator():
        result = random_transforms()({"patient": box.to(ACCELERATOR)})
        assert result["patient"].device == result["label"].device == ACCELERATOR


def test_cts_are_found_named_and_held_out_by_patient(ct_folder: Path, phantom: Phantom, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    save_nifti(other / "p3.nii.gz", phantom.ct_hu, phantom.affine)
    cases = ct_cases(f"{ct_folder},{other}")
    assert [case["case_id"] for case in cases] == ["p1", "p2", "p3"]
    same_patient = [dict(case, patient_id="a" if case["case_id"] != "p3" else "b") for case in cases]
    training, held_out = hold_out(same_patient, "p1")
    assert [case["case_id"] for case in held_out] == ["p1", "p2"] and len(training) == 1
    assert hold_out(cases)[1] == []
    numbered = [dict(case, patient_id=str(100 + index)) for index, case in enumerate(cases)]
    assert (
        [case["case_id"] for case in hold_out(numbered, 101)[1]]
        == ["p2"]
        == [hold_out(numbered, (101,))[1][0]["case_id"]]
    )
    with pytest.raises(ValueError, match="no such folder of CTs"):
        ct_cases(str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no CT found"):
        ct_cases([str(tmp_path / "empty")])
    save_nifti(other / "p1.nii.gz", phantom.ct_hu, phantom.affine)
    with pytest.raises(ValueError, match="two CTs are called p1"):
        ct_cases(f"{ct_folder},{other}")


def test_a_ct_without_lungs_is_named(tmp_path: Path) -> None:
    ct = np.full((50, 40, 60), -1000, np.int16)
    ct[10:40, 10:30] = 40
    save_nifti(tmp_path / "leg.nii.gz", ct, np.diag([8.0, 8.0, 8.0, 1.0]))
    with pytest.raises(ValueError, match="leg.nii.gz: no lungs found .* give a CT of the chest, or center body"):
        LoadPatientd()(ct_cases(tmp_path)[0])
    assert LoadPatientd(spacing=SPACING, center="body")(ct_cases(tmp_path)[0])["patient"].shape == (1, 44, 36, 40)


def test_a_patient_goes_some_of_the_way_to_the_shapes_of_others(ct_folder: Path) -> None:
    cases = ct_cases(ct_folder)
    own, other = OtherShapesd(others=cases, spacing=SPACING), OtherShapesd(others=cases[:1], spacing=SPACING)
    shapes = own(cases[0])["shapes"]
    assert len(shapes) == len(cases) - 1 and own(cases[0])["shapes"] is shapes
    assert len(OtherShapesd(others=cases, number=0, spacing=SPACING)(cases[0])["shapes"]) == 0
    none = other(cases[0])["shapes"]
    assert none.shape == (0, *shapes.shape[1:])

    box = loaded(ct_folder)["patient"]
    still = {name: 0.0 for name in ("rotation_deg", "shear", "scale", "shift_mm", "breath_mm", "habitus", "outline")}
    warp = RandWarpd(
        spacing=SPACING, strengths={**still, "elastic_mm": (0.0, 0.0)}, prob=1.0, shape_prob=1.0
    ).set_random_state(0)
    assert warp({"patient": box, "shapes": none}).keys() == {"patient"}
    torch.testing.assert_close(warp({"patient": box, "shapes": none})["patient"], box.float(), atol=0.01, rtol=0)
    far = torch.zeros_like(shapes)
    far[:, 0] = SPACING
    moved = warp({"patient": box, "shapes": far})["patient"]
    expected = [(1 - share) * box.float()[:, 5:-5] + share * box.float()[:, 6:-4] for share in (0.0, 1.0)]
    low, high = torch.minimum(*expected), torch.maximum(*expected)
    assert bool(((moved[:, 5:-5] > low - 0.1) & (moved[:, 5:-5] < high + 0.1)).all())
    assert float((moved - box).abs().max()) > 50


def test_series_of_one_folder_have_shapes_of_their_own(tmp_path: Path, phantom: Phantom) -> None:
    for number in (1, 2):
        for path in save_series(tmp_path / str(number), phantom.ct_hu, phantom.affine, uid=f"1.2.{number}"):
            (tmp_path / "both").mkdir(exist_ok=True)
            path.rename(tmp_path / "both" / f"{number}_{path.name}")
    cases = ct_cases(tmp_path / "both")
    shapes = OtherShapesd(others=cases, spacing=SPACING)
    assert len(cases) == 2 and cases[0]["patient"] == cases[1]["patient"]
    assert [len(shapes(case)["shapes"]) for case in cases] == [1, 1]
