"""Predicted CTs are written in HU where the patient lies, whole or not at all."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from trct_monai.intensity import hu_to_unit
from trct_monai.transforms import SaveCTd, UnitToHUd


def write_label(path: Path, size: int) -> np.ndarray:
    affine = np.diag([320 / size] * 3 + [1.0])
    affine[:3, 3] = [-10.0, 20.0, -300.0]
    nibabel.save(nibabel.Nifti1Image(np.zeros((size,) * 3, np.int16), affine), path)
    return affine


def test_prediction_lands_in_the_cube_of_the_label_file_at_any_size(tmp_path: Path) -> None:
    affine = write_label(tmp_path / "label.nii.gz", 16)
    item = {"pred": torch.full((1, 8, 8, 8), 0.5), "label": str(tmp_path / "label.nii.gz"), "case_id": "patient.7"}
    SaveCTd("pred", tmp_path / "out")(UnitToHUd("pred")(item))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["patient.7.nii.gz"]
    image = nibabel.load(tmp_path / "out" / "patient.7.nii.gz")
    np.testing.assert_allclose(image.get_fdata(), 226.0)  # the middle of [-1024, 1476]
    # Both grids have the same faces: voxel index -0.5 is one and the same point.
    corner = np.array([-0.5, -0.5, -0.5, 1.0])
    np.testing.assert_allclose(image.affine @ corner, affine @ corner, atol=1e-3)
    np.testing.assert_allclose(image.affine[:3, :3], 2 * affine[:3, :3], atol=1e-4)


def test_bad_volumes_leave_nothing_behind(tmp_path: Path) -> None:
    save = SaveCTd("pred", tmp_path / "out")
    with pytest.raises(ValueError, match="put UnitToHUd before SaveCTd"):
        save({"pred": torch.zeros(1, 4, 4, 4)})
    nan = MetaTensor(torch.full((1, 4, 4, 4), torch.nan), meta={"filename_or_obj": "case"})
    with pytest.raises(ValueError, match="the reconstruction of case holds values that are not finite"):
        save({"pred": nan})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("axes", ["LPS", "LAS", "SPL"])
def test_a_prediction_is_placed_in_the_patient_whatever_the_axes_of_the_label(tmp_path: Path, axes: str) -> None:
    """Predictions are in RAS order: by the affine of a label in LAS they would be mirrored."""
    hu = torch.full((8, 8, 8), -1000.0)
    hu[1, 5, 6] = 300.0  # a bone on the patient's left, in front, above
    affine = np.diag([40.0, 40.0, 40.0, 1.0])
    affine[:3, 3] = [-133.0, -120.0, -420.0]
    ras = nibabel.Nifti1Image(hu.numpy(), affine)
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.orientations.axcodes2ornt(axes))
    nibabel.save(ras.as_reoriented(turn), tmp_path / "label.nii.gz")
    item = {"pred": hu_to_unit(hu)[None], "label": str(tmp_path / "label.nii.gz"), "case_id": "a"}
    SaveCTd("pred", tmp_path / "out")(UnitToHUd("pred")(item))
    saved = nibabel.load(tmp_path / "out" / "a.nii.gz")
    np.testing.assert_allclose(saved.affine, affine, atol=1e-4)
    bone = np.argwhere(saved.get_fdata() > 0)
    assert bone.tolist() == [[1, 5, 6]]
