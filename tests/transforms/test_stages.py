"""What stage 2 sees: results of stage 1, and patches of two volumes at the same places."""

import pytest
import torch
import torch.nn.functional as F

from trct_monai.transforms import ApplyNetworkd, RandTwoScaleCropd


def test_patches_are_of_the_same_places() -> None:
    fine = torch.rand(1, 24, 16, 20, generator=torch.Generator().manual_seed(0))
    coarse = F.avg_pool3d(fine, 2)
    crop = RandTwoScaleCropd("coarse", "fine", roi_size=4, num_samples=8).set_random_state(0)
    samples = crop({"coarse": coarse, "fine": fine, "case_id": "a"})
    assert len(samples) == 8 and {sample["case_id"] for sample in samples} == {"a"}
    for sample in samples:
        assert sample["coarse"].shape == (1, 4, 4, 4) and sample["fine"].shape == (1, 8, 8, 8)
        torch.testing.assert_close(F.avg_pool3d(sample["fine"], 2), sample["coarse"])
    assert len({float(sample["coarse"].sum()) for sample in samples}) > 4


def test_volumes_that_do_not_fit_are_refused() -> None:
    crop = RandTwoScaleCropd("coarse", "fine", roi_size=4)
    for shape in ((1, 8, 8, 7), (1, 3, 4, 4)):
        with pytest.raises(ValueError, match="'fine' must be a whole multiple of 'coarse', and that at least 4"):
            crop({"coarse": torch.zeros(shape), "fine": torch.zeros(1, 8, 8, 8)})


def test_a_network_in_training_is_refused() -> None:
    network = torch.nn.Conv2d(2, 1, 1)
    with pytest.raises(ValueError, match="evaluation mode"):
        ApplyNetworkd("image", network)
    result = ApplyNetworkd("image", network.eval())({"image": torch.ones(2, 4, 4), "case_id": "a"})
    assert result["image"].shape == (1, 4, 4) and not result["image"].requires_grad and result["case_id"] == "a"
