"""What direct regression promises beyond the contract of every network."""

import pytest
import torch

from trct_monai.geometry import preset, projection_matrices
from trct_monai.networks import DirectRegression


def tiny(**changes: object) -> DirectRegression:
    arguments = {"encoder_channels": (4, 8), "hidden_size": 32, "patch_size": 4, "decoder_channels": (16, 8)}
    return DirectRegression(16, **{**arguments, **changes})


def test_untrained_network_returns_its_initial_volume_to_the_bit() -> None:
    network, volume = tiny(), torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    network.start_from(volume)
    assert torch.equal(network(torch.rand(1, 2, 16, 16)), volume)


def test_full_size_has_the_parameters_of_the_reference() -> None:
    count = sum(parameter.numel() for parameter in DirectRegression().parameters())
    assert abs(count - 15.3e6) < 0.1e6


def test_the_nearest_rays_have_the_least_penalty() -> None:
    network = tiny(num_heads=4)
    _, bias, _ = network._read(torch.zeros(1, 2, 32, 32), network.matrices[None])
    assert bias.shape == (1, 4, 64, 128) and (bias <= 0).all()
    assert not bias[:, -1].any()  # the last head sees all rays alike
    # The cube at the left front top: among the PA view's rays the nearest runs right of centre and above it.
    corner = int((network.tokens.centers @ torch.tensor([-1.0, 1.0, 1.0])).argmax())
    row, column = divmod(int(bias[0, 0, corner, :64].argmax()), 8)
    assert row < 4 and column >= 4


def test_matrices_of_each_case_replace_the_preset() -> None:
    network = tiny().eval()
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    image = torch.rand(2, 2, 16, 16)
    matrices = projection_matrices(preset("x2ct")).expand(2, -1, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(network(image, matrices), network(image))
        other = projection_matrices(preset("clinic")).expand(2, -1, -1, -1)
        assert not torch.allclose(network(image, other), network(image))


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_size must be a power of two"):
        tiny(patch_size=3)
    with pytest.raises(ValueError, match="hidden_size must be a multiple of num_heads"):
        tiny(num_heads=5)
    with pytest.raises(ValueError, match="geometry must be one of"):
        tiny(geometry="x3ct")
