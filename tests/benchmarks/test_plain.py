"""The plain networks are the same architectures: the same parameters give the same volumes, and gradients."""

from typing import Any

import pytest
import torch
import training
from plain import inputs, plain
from torch import Tensor, nn
from torch.utils.data import default_collate

from tests.bundles.miniature import MINIATURE
from tests.bundles.sources import SHIPPED, name

SIZES = {"volume_size": 16, "radiograph_size": 32}
SLICES = {"slice_size": 16, "num_slices": 3, "channels": [4, 8, 8], "discriminator_channels": [4, 8]}


def tiny(bundle: str) -> Any:
    """A bundle's configuration in miniature."""
    changes = SLICES if bundle == "ct_phase_pix2pix" else SIZES | MINIATURE[bundle]
    return training.configure(bundle, ["small"], {**changes, "batch_size": 2})


def perturb(network: nn.Module) -> None:
    """Parameters that are zero before training would hide what stands before them."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        for key, buffer in network.named_buffers():
            if key in ("linear_start.mean", "linear_start.modes"):
                buffer += 0.05 * torch.randn_like(buffer)


def gradient(network: nn.Module, volumes: list[Tensor]) -> Tensor:
    """Of all parameters in a row."""
    network.zero_grad()
    torch.stack([volume.square().mean() for volume in volumes]).sum().backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])


@pytest.mark.parametrize("bundle", [bundle.name for bundle in SHIPPED], ids=name)
def test_plain_network_is_the_same_architecture(bundle: str) -> None:
    torch.manual_seed(0)
    parser = tiny(bundle)
    network = parser.get_parsed_content("network").train()
    perturb(network)
    batch = inputs(network, default_collate([parser["train"]["dataset"][index] for index in range(2)]))

    torch.manual_seed(1)  # of a dropout
    result = network(*batch)
    ours = [result] if isinstance(result, Tensor) else result
    expected = gradient(network, ours)
    torch.manual_seed(1)
    theirs = plain(network)(*batch)

    for volume, other in zip(theirs, ours, strict=True):
        torch.testing.assert_close(volume, other, atol=1e-4, rtol=0)
    assert (gradient(network, theirs) - expected).norm() < 1e-3 * expected.norm()
