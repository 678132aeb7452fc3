"""AnyView with a coarser start than its volume."""

import torch

from trct_monai.networks import AnyView

SMALL = {
    "encoder_channels": [4, 4],
    "decoder_channels": [4, 4],
    "num_blocks": 1,
    "view_channels": 4,
    "num_modes": 2,
    "num_steps": 1,
    "step_channels": 4,
    "step_size": 16,
}


def test_a_coarser_start_is_interpolated() -> None:
    network = AnyView(16, start_size=8, **SMALL).eval()
    assert network.initial_volume.shape[-1] == 8 and network.linear_start.modes.shape[-1] == 4
    ramp = torch.linspace(0.2, 0.4, 8).expand(1, 1, 8, 8, 8)
    network.start_from(ramp)
    image = torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        start, _ = network.linear(image, network.project_modes(network.matrices[None], 1))
    assert start.shape[-3:] == (16, 16, 16)
    assert float(start.min()) >= 0.2 - 1e-6 and float(start.max()) <= 0.4 + 1e-6
    assert network(image).shape == (1, 1, 16, 16, 16)


def test_the_start_is_as_fine_as_the_volume_if_not_told_otherwise() -> None:
    shapes = [
        {name: value.shape for name, value in AnyView(16, start_size=size, **SMALL).state_dict().items()}
        for size in (None, 16)
    ]
    assert shapes[0] == shapes[1]


def test_components_of_cases_that_share_their_cameras_are_projected_once() -> None:
    network = AnyView(16, **SMALL).eval()
    shared, own = network.project_modes(network.matrices[None], 3), network.project_modes(network.matrices[None], 1)
    assert len({id(case) for case in shared}) == 1
    torch.testing.assert_close(shared[2].modes, own[0].modes)
