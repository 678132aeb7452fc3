"""Random points of a label: the field is trained on what the label is there."""

import pytest
import torch
from monai.data.utils import set_rnd

from trct_monai.geometry import DEFAULT_EXTENT, preset, projection_matrices, voxel_centers
from trct_monai.transforms import PrepareViews, RenderViews, SamplePoints


def batch(size: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(2, 2, 16, 16, generator=generator),
        "label": torch.rand(2, 1, *(size,) * 3, generator=generator),
        "matrices": projection_matrices(preset("x2ct")).expand(2, -1, -1, -1),
    }


def test_the_label_is_its_values_at_points_within_the_cube() -> None:
    """Of a ramp in mm along each axis the value at a point is its place, but within half a voxel of the face."""
    ramp = voxel_centers((16,) * 3, DEFAULT_EXTENT / 16).float()
    for axis in range(3):
        given = batch() | {"label": ramp[..., axis].expand(2, 1, -1, -1, -1)}
        image, values, args, named = SamplePoints(PrepareViews(), 500)(given, "cpu", False)
        assert torch.equal(image, given["image"]) and args == ()
        assert torch.equal(named["matrices"], given["matrices"])
        points = named["points"]
        assert points.shape == (500, 3) and values.shape == (2, 1, 500) and points.dtype == torch.float32
        assert points.abs().max() <= DEFAULT_EXTENT / 2 and points.abs().max() > 0.45 * DEFAULT_EXTENT
        expected = points[:, axis].clamp(float(ramp.min()), float(ramp.max()))
        torch.testing.assert_close(values, expected.expand(2, 1, -1), atol=1e-3, rtol=0)


def test_points_follow_from_the_seed_and_no_two_batches_have_the_same() -> None:
    sample = SamplePoints(PrepareViews(min_views=1), 10)
    torch.manual_seed(3)
    drawn = [sample(batch(), "cpu", False)[3]["points"] for _ in range(2)]
    torch.manual_seed(3)
    again = [sample(batch(), "cpu", False)[3]["points"] for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(drawn, again))
    assert not torch.equal(*drawn)


def test_what_it_wraps_is_seeded_with_it() -> None:
    """As a training does at each epoch's start: radiographs that are rendered meanwhile are the same after a stop."""
    sample = SamplePoints(RenderViews(radiograph_size=16, augmentation=1.0), 10)
    images = []
    for _ in range(2):
        torch.manual_seed(0)
        set_rnd(sample, 5)
        images.append(sample(batch(), "cpu", False)[0])
    assert torch.equal(*images)


def test_no_points_are_refused() -> None:
    with pytest.raises(ValueError, match="num_points must be positive, got 0"):
        SamplePoints(PrepareViews(), 0)
