"""Predictions of others beside the truth: on one grid, or refused in one line."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from trct_monai.evaluation.predictions import load_pair, load_quantiles, load_truth, prediction_file
from trct_monai.io.datalist import load_datalist
from trct_monai.metrics.uncertainty import quantiles_from_std


@pytest.fixture
def case(phantoms: Path) -> dict:
    return load_datalist(phantoms, "test")[0]


def save(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a/a_trans.nii.gz", "a/whatever.nii"])
def test_the_file_of_a_case_is_found(tmp_path: Path, name: str) -> None:
    for other in ("b.nii.gz", "a_std.nii.gz", "a/a_quantiles.nii.gz", "a_d20_c500.nii.gz"):
        save(tmp_path / other, np.zeros((2, 2, 2)), np.eye(4))
    path = save(tmp_path / name, np.zeros((2, 2, 2)), np.eye(4))
    assert prediction_file(tmp_path, "a") == path
    with pytest.raises(FileNotFoundError, match=r"no prediction of c: expected .*c.nii.gz or c/\*.nii.gz"):
        prediction_file(tmp_path, "c")
    save(tmp_path / "a" / "second.nii.gz", np.zeros((2, 2, 2)), np.eye(4))
    with pytest.raises(ValueError, match="case a has 2 predictions"):
        prediction_file(tmp_path, "a")


def test_a_prediction_on_the_grid_is_not_resampled(case: dict, tmp_path: Path) -> None:
    label = nibabel.load(case["label"])
    path = save(tmp_path / "a.nii.gz", label.get_fdata() + 5, label.affine)
    prediction, truth = load_pair(case, path)
    assert prediction.shape == truth.shape == (1, 16, 16, 16)
    torch.testing.assert_close(prediction.as_tensor(), truth.as_tensor() + 5)


@pytest.mark.parametrize("axes", ["LPS", "ASR", "SLP"])
def test_the_order_of_a_files_axes_does_not_matter(case: dict, tmp_path: Path, axes: str) -> None:
    label = nibabel.load(case["label"])
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(label.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    turned = label.as_reoriented(turn)
    path = save(tmp_path / "a.nii.gz", turned.get_fdata(), turned.affine)
    prediction, truth = load_pair(case, path)
    torch.testing.assert_close(prediction.as_tensor(), truth.as_tensor())
    assert torch.allclose(prediction.affine, truth.affine)


def test_a_finer_prediction_is_averaged_down_and_a_truth_too(case: dict, tmp_path: Path) -> None:
    label = nibabel.load(case["label"])
    fine = np.kron(label.get_fdata(), np.ones((2, 2, 2)))
    affine = label.affine @ np.diag([0.5, 0.5, 0.5, 1])
    affine[:3, 3] = label.affine[:3, 3] - np.diag(label.affine)[:3] / 4
    path = save(tmp_path / "a.nii.gz", fine, affine)
    prediction, truth = load_pair(case, path, resample=True)
    torch.testing.assert_close(prediction.as_tensor(), truth.as_tensor(), atol=1e-3, rtol=0)
    coarse = load_truth(case, 8)
    assert coarse.shape == (1, 8, 8, 8)
    blocks = truth.as_tensor().unfold(1, 2, 2).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2, -3))
    torch.testing.assert_close(coarse.as_tensor(), blocks, atol=1e-2, rtol=0)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((16, 16, 16), np.nan), "not finite"),
        (np.zeros((16, 16)), r"expected one volume \(X, Y, Z\) in HU, got shape \(16, 16\)"),
        (np.zeros((16, 16, 16, 2)), r"got shape \(16, 16, 16, 2\)"),
        (np.zeros((16, 16, 12)), r"got shape \(16, 16, 12\)"),
    ],
    ids=["NaN", "2-D", "4-D", "another shape"],
)
def test_a_prediction_that_is_not_a_ct_is_refused(case: dict, tmp_path: Path, values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_pair(case, save(tmp_path / "a.nii.gz", values, nibabel.load(case["label"]).affine))


def test_a_cut_file_is_refused(case: dict, tmp_path: Path) -> None:
    whole = Path(case["label"]).read_bytes()
    path = tmp_path / "a.nii.gz"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged NIfTI"):
        load_pair(case, path)


def test_intervals_are_read_from_beside_the_prediction(case: dict, tmp_path: Path) -> None:
    label = nibabel.load(case["label"])
    path = save(tmp_path / "a.nii.gz", label.get_fdata(), label.affine)
    prediction, _ = load_pair(case, path)
    assert load_quantiles(path, prediction) is None
    std = np.full((16, 16, 16), 10.0)
    save(tmp_path / "a_std.nii.gz", std, label.affine)
    expected = quantiles_from_std(prediction[0].numpy(), std)
    np.testing.assert_allclose(load_quantiles(path, prediction), expected, rtol=1e-6)
    save(tmp_path / "a_quantiles.nii.gz", expected + 1, label.affine)
    np.testing.assert_allclose(load_quantiles(path, prediction), expected + 1, rtol=1e-4)
    save(tmp_path / "a_quantiles.nii.gz", expected[:8], label.affine)
    with pytest.raises(ValueError, match=r"expected \(16, 16, 16, 4\) numbers on the grid of the prediction"):
        load_quantiles(path, prediction)
