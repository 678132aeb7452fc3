"""The phase generator's U-Net: the identity before training, any size, as large as it says."""

from pathlib import Path

import pytest
import torch

from trct_monai.io.weights import load_state, save_state, ship_weights
from trct_monai.networks import PatchDiscriminator, SliceUNet
from trct_monai.training.inferers import SliceContextInferer, with_neighbours

SMALL = (4, 8, 8)


def trained(num_slices: int = 1) -> SliceUNet:
    """A network that does something."""
    torch.manual_seed(0)
    network = SliceUNet(num_slices, SMALL).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.mark.parametrize("num_slices", [1, 3, 5])
@pytest.mark.parametrize("size", [(64, 64), (33, 50), (5, 7)])
def test_an_untrained_network_is_the_identity_to_the_bit(num_slices: int, size: tuple[int, int]) -> None:
    image = torch.rand(2, num_slices, *size)
    network = SliceUNet(num_slices, SMALL)
    for mode in (True, False):
        torch.testing.assert_close(network.train(mode)(image), image[:, num_slices // 2][:, None], atol=0, rtol=0)


def test_small_corrections_vanish_in_evaluation_alone() -> None:
    network, image = SliceUNet(1, SMALL, min_change=0.02), 0.3 + 0.4 * torch.rand(1, 1, 32, 32)
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with torch.no_grad():
        correction, kept = network.train()(image) - image, network.eval()(image) - image
    assert correction.abs().max() > 0.02 and (correction != 0).all()
    expected = (image + correction.sign() * (correction.abs() - 0.02).clamp(min=0)).clamp(0, 1) - image
    torch.testing.assert_close(kept, expected, atol=1e-6, rtol=0)
    assert (kept.abs() < 1e-6).any()


def test_parameters_are_as_many_as_stated() -> None:
    count = sum(parameter.numel() for parameter in SliceUNet().parameters())
    assert round(count / 1e6, 1) == 35.3
    pair = PatchDiscriminator(2, 2, norm="instance", last_stride=1, head_size=4)
    assert round(sum(parameter.numel() for parameter in pair.parameters()) / 1e6, 1) == 2.8


def test_a_score_of_the_discriminator_sees_70_pixels() -> None:
    """Without the norm, which sees all: the gradient of one score reaches 70 x 70 pixels."""
    torch.manual_seed(0)
    image = torch.rand(1, 2, 160, 160, requires_grad=True)
    scores = PatchDiscriminator(2, 2, (4, 4, 4, 4), last_stride=1, head_size=4)(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    assert image.grad is not None
    reached = image.grad[0].abs().sum(dim=0) > 0
    assert [int(reached.any(dim=axis).sum()) for axis in (0, 1)] == [70, 70]


def test_all_slices_and_the_whole_correction_learn() -> None:
    network = trained(3).train()
    image = torch.rand(2, 3, 32, 32, requires_grad=True)
    network(image).square().sum().backward()
    assert image.grad is not None and (image.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in network.named_parameters() if "conv.bias" not in n
    )


def test_weights_in_eight_bits_are_taken_as_load_state_reads_them(tmp_path: Path) -> None:
    save_state(tmp_path / "trained.pt", trained().state_dict())
    ship_weights(tmp_path / "trained.pt", tmp_path / "model.pt", eight_bits=["*.weight"])
    read, expected = torch.load(tmp_path / "model.pt", weights_only=True), load_state(tmp_path / "model.pt")
    assert torch.int8 in {value.dtype for value in read.values()}
    network = SliceUNet(1, SMALL)
    network.load_state_dict(read)  # MONAI's CheckpointLoader reads the file itself
    assert all(torch.equal(value, expected[name]) for name, value in network.state_dict().items())


def test_other_numbers_of_slices_are_refused() -> None:
    with pytest.raises(ValueError, match="num_slices must be odd and positive, got 2"):
        SliceUNet(2)
    with pytest.raises(ValueError, match=r"image must be \(B, 3, X, Y\), got shape \(1, 1, 8, 8\)"):
        SliceUNet(3, SMALL)(torch.rand(1, 1, 8, 8))
    with pytest.raises(ValueError, match="num_slices must be odd"):
        SliceContextInferer(4)


def test_a_volume_is_its_slices() -> None:
    """The inferer's volume equals the network on each slice and its neighbours, the ends repeated."""
    network, volume = trained(3), torch.rand(1, 1, 20, 17, 6)
    with torch.no_grad():
        whole = SliceContextInferer(3, sw_batch_size=4)(volume, network)
        for z in range(6):
            around = [max(z - 1, 0), z, min(z + 1, 5)]
            slices = volume[0, 0, ..., around].movedim(-1, 0)[None]
            torch.testing.assert_close(whole[0, 0, ..., z], network(slices)[0, 0], atol=1e-5, rtol=1e-5)
    assert with_neighbours(volume, 5).shape == (1, 5, 20, 17, 6)


def test_windows_keep_what_the_identity_keeps() -> None:
    """Slices larger and smaller than the window: untrained, what comes out is what went in."""
    network = SliceUNet(3, SMALL).eval()
    for size in ((50, 37), (9, 40)):
        volume = torch.rand(1, 1, *size, 4)
        with torch.no_grad():
            torch.testing.assert_close(SliceContextInferer(3, roi_size=(16, 16))(volume, network), volume)
