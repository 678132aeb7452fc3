"""The refiner: exact where untrained, the same in windows as in one piece, for volumes of any shape."""

import pytest
import torch
import torch.nn.functional as F

from trct_monai.networks import VolumeRefiner
from trct_monai.training.inferers import InterpolatingInferer, RefinementInferer, TwoStageInferer


def volume(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(seed))


def trained(doublings: int = 2) -> VolumeRefiner:
    """A refiner whose heads are open."""
    torch.manual_seed(3)
    refiner = VolumeRefiner(doublings, features=8, growth=4)
    for head in refiner.heads:
        torch.nn.init.normal_(head.weight, std=0.05)  # type: ignore[arg-type]
    return refiner.eval()


@pytest.mark.parametrize("doublings", [1, 2])
def test_untrained_it_returns_the_interpolation_to_the_bit(doublings: int) -> None:
    refiner, coarse = VolumeRefiner(doublings, features=8, growth=4).eval(), volume(9, 12, 10)
    expected = F.interpolate(coarse, scale_factor=float(2**doublings), mode="trilinear")
    with torch.no_grad():
        assert torch.equal(refiner(coarse), expected)
        assert torch.equal(refiner.train()(coarse), expected)
        assert torch.equal(RefinementInferer(8)(coarse, refiner.eval()), expected)


def test_one_window_is_the_whole_volume() -> None:
    refiner, coarse = trained(), volume(12, 12, 12)
    with torch.no_grad():
        torch.testing.assert_close(RefinementInferer(12)(coarse, refiner), refiner(coarse), atol=1e-6, rtol=1e-6)


def test_a_volume_smaller_than_a_window_is_not_filled_up_with_air() -> None:
    refiner, coarse = trained(1), F.avg_pool3d(volume(20, 20, 12), 5, 1)
    with torch.no_grad():
        whole, windows = refiner(coarse), RefinementInferer(40)(coarse, refiner)
    torch.testing.assert_close(windows, whole, atol=1e-6, rtol=1e-6)


@pytest.mark.slow
def test_windows_leave_no_seams() -> None:
    """Away from the borders windows and whole agree, and no plane of voxels jumps more than in the whole."""
    refiner, coarse = trained(1), F.avg_pool3d(volume(44, 44, 44), 5, 1)  # smooth, 40 voxels
    with torch.no_grad():
        whole, windows = refiner(coarse), RefinementInferer(24, overlap=0.5)(coarse, refiner)
        residual = whole - F.interpolate(coarse, scale_factor=2.0, mode="trilinear")
    inside = (..., *(slice(16, -16),) * 3)
    assert residual[inside].std() > 1e-3
    assert (windows - whole)[inside].std() < 0.03 * residual[inside].std()
    for axis in (2, 3, 4):
        jumps = [v[inside].diff(dim=axis).abs().mean(dim=[d for d in range(5) if d != axis]) for v in (windows, whole)]
        assert (jumps[0] / jumps[1]).max() < 1.01


def test_what_stands_in_one_corner_does_not_change_another() -> None:
    refiner, coarse = trained(1), volume(40, 12, 12)
    changed = coarse.clone()
    changed[:, :, :4] = 0
    with torch.no_grad():
        one, other = refiner(coarse), refiner(changed)
    assert not torch.equal(one[:, :, :8], other[:, :, :8]) and torch.equal(one[:, :, -8:], other[:, :, -8:])


def test_deep_supervision_gives_every_doubling() -> None:
    refiner = trained(2)
    refiner.deep_supervision = True
    sizes = [tuple(v.shape[2:]) for v in refiner.train()(volume(8, 10, 12))]
    assert sizes == [(32, 40, 48), (16, 20, 24)]


def test_gradients_reach_everything_also_with_checkpoints() -> None:
    gradients = []
    for use_checkpoint in (False, True):
        refiner = trained().train()
        refiner.use_checkpoint = use_checkpoint
        refiner(volume(8, 8, 8)).square().mean().backward()
        assert all(p.grad is not None and p.grad.any() for p in refiner.parameters())
        gradients.append([p.grad for p in refiner.parameters()])
    torch.testing.assert_close(*gradients)


def test_parameters_are_as_the_docs_say() -> None:
    counts = [sum(p.numel() for p in VolumeRefiner(2, *sizes).parameters()) for sizes in ((32, 16, 1), (64, 32, 3))]
    assert 0.67e6 < counts[0] < 0.69e6 and 7.0e6 < counts[1] < 7.1e6


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="features a multiple of"):
        VolumeRefiner(3, features=12)
    with pytest.raises(ValueError, match="size must be 1 or more"):
        InterpolatingInferer(0)


def test_the_pipeline_is_one_after_the_other() -> None:
    refiner, network = trained(1), torch.nn.Conv3d(1, 1, 1)
    pipeline = TwoStageInferer(refiner, RefinementInferer(8))
    with torch.no_grad():
        expected = RefinementInferer(8)(network(volume(8, 8, 8)), refiner)
        assert torch.equal(pipeline(volume(8, 8, 8), network), expected)
        assert InterpolatingInferer(4)(volume(8, 8, 8), network).shape == (1, 1, 4, 4, 4)


def test_the_pipeline_refines_as_often_as_asked_and_quantiles_keep_their_distance() -> None:
    refiner, network = trained(1), torch.nn.Conv3d(1, 1, 1)
    with torch.no_grad():
        once = TwoStageInferer(refiner, RefinementInferer(8))(volume(8, 8, 8), network)
        twice = TwoStageInferer(refiner, RefinementInferer(8), times=2)(volume(8, 8, 8), network)
        assert torch.equal(twice, RefinementInferer(8)(once, refiner)) and twice.shape[-1] == 32
        with_quantiles = torch.cat([volume(8, 8, 8), volume(8, 8, 8) - 0.05, volume(8, 8, 8) + 0.1], dim=1)
        inferer = TwoStageInferer(refiner, RefinementInferer(8))
        fine, low, high = inferer.refine(with_quantiles).split(1, dim=1)
        assert torch.equal(fine, inferer.refine(volume(8, 8, 8)))
        torch.testing.assert_close(low, (fine - 0.05).clamp(0, 1))
        torch.testing.assert_close(high, (fine + 0.1).clamp(0, 1))
    with pytest.raises(ValueError, match="times must be positive, got 0"):
        TwoStageInferer(refiner, RefinementInferer(8), times=0)
