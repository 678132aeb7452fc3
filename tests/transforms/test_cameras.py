"""Views: which, how many, and where they claim to be."""

from math import degrees

import numpy as np
import pytest
import torch

from trct_monai.geometry import preset, projection_matrices
from trct_monai.transforms import CameraMatricesd, PrepareViews, RandPosed, SelectViewsd


def test_matrices_are_those_of_the_case() -> None:
    cameras = preset("circle-3")
    case = {"cameras": [camera.to_dict() for camera in cameras]}
    assert torch.equal(CameraMatricesd()(case)["matrices"], projection_matrices(cameras))
    assert CameraMatricesd(geometry="x2ct")({})["matrices"].shape == (2, 3, 4)
    with pytest.raises(ValueError, match="case p1 has no cameras"):
        CameraMatricesd()({"case_id": "p1"})


def test_views_are_selected_together() -> None:
    item = {"image": torch.arange(4.0)[:, None, None].expand(4, 2, 2), "matrices": torch.arange(4), "case_id": "a"}
    result = SelectViewsd(["image", "matrices"], [2, 0])(item)
    assert result["image"][:, 0, 0].tolist() == [2, 0] and result["matrices"].tolist() == [2, 0]
    assert SelectViewsd("image")(item)["image"] is item["image"]
    with pytest.raises(ValueError, match=r"case a has 4 views, views \[4\] were asked for"):
        SelectViewsd("image", [4])(item)
    with pytest.raises(ValueError, match="indices from 0 on"):
        SelectViewsd("image", [-1])


def batch() -> dict[str, torch.Tensor]:
    """Radiographs whose values, and matrices whose entries, are the number of the view."""
    number = torch.arange(8.0).expand(3, 8)
    return {
        "image": number[..., None, None].expand(3, 8, 4, 4),
        "matrices": number[..., None, None].expand(3, 8, 3, 4),
        "label": torch.zeros(3, 1, 2, 2, 2),
    }


def test_training_draws_numbers_and_subsets_and_keeps_cameras_with_their_views() -> None:
    torch.manual_seed(0)
    prepare, numbers, subsets = PrepareViews(min_views=2), set(), set()
    for _ in range(60):
        image, label, args, kwargs = prepare(batch(), "cpu", False)
        assert args == () and label is not None
        assert torch.equal(image[:, :, 0, 0], kwargs["matrices"][:, :, 0, 0])
        rows = [row.tolist() for row in image[:, :, 0, 0].unbind()]
        assert all(len(set(row)) == len(row) for row in rows)
        numbers.add(image.shape[1])
        subsets |= {tuple(row) for row in rows}
    assert numbers == set(range(2, 9)) and len(subsets) > 60
    with pytest.raises(ValueError, match="min_views must be 1 to the data's 8 views"):
        PrepareViews(9)(batch(), "cpu", False)


def test_known_exposures_stay_with_their_views() -> None:
    image = torch.arange(4.0)[None, :, None, None].expand(2, 4, 3, 3)
    batch = {"image": image, "matrices": torch.rand(1, 4, 3, 4).expand(2, -1, -1, -1)}
    exposed = torch.tensor([[True, False, True, False]] * 2)
    assert "exposed" not in PrepareViews()(batch, "cpu", False)[3]
    torch.manual_seed(0)
    for _ in range(10):
        found, _, _, named = PrepareViews(min_views=1)({**batch, "exposed": exposed}, "cpu", False)
        assert torch.equal(named["exposed"], found[:, :, 0, 0] % 2 == 0)


def test_evaluation_takes_all_views_with_or_without_a_label() -> None:
    image, label, _, kwargs = PrepareViews()(batch(), "cpu", False)
    assert image.shape[1] == 8 and label is not None and kwargs["matrices"].shape == (3, 8, 3, 4)
    without = {key: value for key, value in batch().items() if key != "label"}
    image, label, _, kwargs = PrepareViews()(without, "cpu", False)
    assert image.shape[1] == 8 and label is None and "matrices" in kwargs


def test_pose_jitter_has_the_stated_spread_and_none_when_off() -> None:
    matrices = projection_matrices(preset("x2ct"))
    assert torch.equal(
        RandPosed(rotation_deg=0, translation_mm=0, prob=1)({"matrices": matrices})["matrices"], matrices
    )
    jitter = RandPosed(rotation_deg=2, translation_mm=0, prob=1).set_random_state(0)
    isocenter = torch.tensor([0.0, 0.0, 0.0, 1.0])
    angles = []
    for _ in range(300):
        changed = jitter({"matrices": matrices})["matrices"]
        torch.testing.assert_close(changed @ isocenter, matrices @ isocenter, atol=1e-3, rtol=1e-4)
        rotation = torch.linalg.lstsq(matrices[0, :, :3].double(), changed[0, :, :3].double()).solution
        angles.append(degrees(float(torch.arccos(((rotation.trace() - 1) / 2).clamp(-1, 1)))))
    assert np.sqrt(np.mean(np.square(angles))) == pytest.approx(2, rel=0.15)
    with pytest.raises(ValueError, match="must not be negative"):
        RandPosed(rotation_deg=-1)
