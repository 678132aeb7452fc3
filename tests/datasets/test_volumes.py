"""Any CT in, the changed CT out on its own grid: shape, affine, axes and HU."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tests.datasets.test_phases import save, thorax
from trct_monai.datasets.volumes import find_volumes, without_results
from trct_monai.transforms.load import LoadCTd
from trct_monai.transforms.save import SaveChangedCTd

OBLIQUE = np.array([[1.9, 0.3, 0.0, -30.0], [-0.3, 1.9, 0.2, 12.0], [0.0, -0.2, 2.9, 5.0], [0.0, 0.0, 0.0, 1.0]])
AFFINES = {
    "RAS": np.diag([2.0, 2.0, 3.0, 1.0]),
    "LPS": np.diag([-2.0, -2.0, 3.0, 1.0]),
    "SPR": np.array([[0.0, 0.0, 2.0, 4.0], [0.0, -2.0, 0.0, 5.0], [3.0, 0.0, 0.0, 6.0], [0.0, 0.0, 0.0, 1.0]]),
    "oblique": OBLIQUE,
}


@pytest.mark.parametrize("axes", AFFINES)
def test_what_was_changed_comes_back_where_it_was(axes: str, tmp_path: Path) -> None:
    """A change of the upper half in RAS order is one of the upper half in the file's order, and of nothing else."""
    volume, affine = thorax(0, (15, 12, 11)), AFFINES[axes]
    save(tmp_path / "a.nii.gz", volume, affine)
    item = LoadCTd("image")({"case_id": "a", "image": str(tmp_path / "a.nii.gz"), "source": str(tmp_path / "a.nii.gz")})
    upper = torch.zeros_like(item["image"])
    upper[..., item["image"].shape[-1] // 2 + 1 :] = 0.1
    changed = (item["image"] + upper).clamp(0, 1)
    SaveChangedCTd("image", tmp_path / "out")({**item, "image": changed})
    written = nibabel.load(tmp_path / "out" / "a.nii.gz")
    assert written.shape == volume.shape and written.get_data_dtype() == np.int16
    np.testing.assert_allclose(written.affine, affine, atol=1e-5)
    expected = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume, affine)).get_fdata()
    expected[..., expected.shape[2] // 2 + 1 :] += 250
    np.testing.assert_allclose(nibabel.as_closest_canonical(written).get_fdata(), expected, atol=0.51)


def test_values_beyond_the_window_are_kept(tmp_path: Path) -> None:
    """Metal above it, a scanner's padding below it: where nothing was changed the numbers are the file's."""
    volume = thorax(0)
    volume[0, 0, 0], volume[5, 5, 5] = -2000, 3000
    save(tmp_path / "a.nii", volume)
    item = LoadCTd("image")({"case_id": "a", "image": str(tmp_path / "a.nii"), "source": str(tmp_path / "a.nii")})
    assert item["image"].min() == 0 and item["image"].max() == 1
    SaveChangedCTd("image", tmp_path / "out")(item)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "out" / "a.nii.gz").get_fdata(), volume)


def test_nothing_is_written_of_nan(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", thorax(0))
    item = LoadCTd("image")({"case_id": "a", "image": str(tmp_path / "a.nii"), "source": str(tmp_path / "a.nii")})
    with pytest.raises(
        ValueError, match="a.nii.gz: the volume holds values that are not finite .*; nothing was written"
    ):
        SaveChangedCTd("image", tmp_path / "out")({**item, "image": item["image"] * torch.nan})
    assert not (tmp_path / "out").exists()


def test_a_folder_goes_on_past_what_cannot_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("anna", "bert", "torn"):
        save(tmp_path / "in" / f"{name}.nii.gz", thorax(0))
    torn = tmp_path / "in" / "torn.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-40])
    save(tmp_path / "in" / "long.nii.gz", np.stack([thorax(0)] * 2, axis=-1))
    cases = find_volumes(str(tmp_path / "in"))
    assert [case["case_id"] for case in cases] == ["anna", "bert"]
    text = capsys.readouterr().out
    assert "torn.nii.gz: damaged NIfTI" in text and "long.nii.gz: a CT has three dimensions" in text
    made_by = {"checkpoint": "", "num_slices": 3}
    assert without_results(cases, tmp_path / "out", made_by) == cases
    save(tmp_path / "out" / "anna.nii.gz", thorax(0))
    assert [case["case_id"] for case in without_results(cases, tmp_path / "out", made_by)] == ["bert"]
    assert "1 of 2 are in" in capsys.readouterr().out
    moved = tmp_path / "moved.nii.gz"
    moved.write_bytes(Path(cases[0]["image"]).read_bytes())
    assert without_results([{**cases[0], "image": str(moved)}], tmp_path / "out", made_by) == []
    save(tmp_path / "other" / "anna.nii.gz", thorax(1))
    changed = {**cases[0], "image": str(tmp_path / "other" / "anna.nii.gz")}
    for other, sources in (({**made_by, "num_slices": 5}, cases), (made_by, [changed])):
        with pytest.raises(ValueError, match="holds results of another model or of other CTs"):
            without_results(sources, tmp_path / "out", other)


def test_paths_without_a_ct_and_equal_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such CT or folder of CTs"):
        find_volumes(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="found no CT to work on"):
        find_volumes(str(tmp_path))
    for place in ("one", "two"):
        save(tmp_path / place / "a.nii", thorax(0))
    with pytest.raises(ValueError, match="have one name; give each its own --output_dir"):
        find_volumes([str(tmp_path / "one"), str(tmp_path / "two")])
