"""The contract of every reconstruction network and baseline: radiographs (B, V, H, W) in, volume in [0, 1] out."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from trct_monai.baselines import Backprojection, MeanVolume, NearestNeighbour, RidgePCA, TotalVariation
from trct_monai.networks import (
    AnyView,
    DIFNet,
    DirectRegression,
    HybridCNNViT,
    MultiScaleCNN,
    PatchViT,
    TRCTGenerator,
    X2CTGenerator,
)


def training_cases(size: int) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        {
            "image": 5 * torch.rand(2, 32, 32, generator=generator),
            "label": torch.rand(1, *(size,) * 3, generator=generator),
        }
        for _ in range(4)
    ]


# A new method adds its line here: volume size -> module for two 32 x 32 radiographs.
NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "direct_regression": lambda size: DirectRegression(
        size, encoder_channels=(4, 8, 16), hidden_size=32, num_layers=2, patch_size=4, decoder_channels=(16, 8)
    ),
    "direct_regression, two scales": lambda size: DirectRegression(
        size,
        encoder_channels=(4, 8),
        hidden_size=16,
        num_layers=1,
        patch_size=2,
        decoder_channels=(8,),
        finer_channels=(4,),
    ),
    "patch_vit": lambda size: PatchViT(
        size,
        image_size=32,
        patch_size=8,
        hidden_size=32,
        num_layers=2,
        num_heads=2,
        grid_size=size // 4,
        decoder_channels=(8,),
        finer_channels=(4,),
    ),
    "multi_scale_cnn": lambda size: MultiScaleCNN(
        size, encoder_channels=(4, 8, 16), decoder_channels=(16, 8), skip_channels=4, num_scales=2
    ),
    "hybrid_cnn_vit": lambda size: HybridCNNViT(
        size, encoder_channels=(4, 8, 16), channels=(4, 8), num_heads=4, window_size=2, num_exchange_layers=1
    ),
    "x2ct_gan": lambda size: X2CTGenerator(
        size, stem_channels=4, dense_layers=(1, 2), growth_rate=4, decoder_channels=(8, 4, 4)
    ),
    "x2ct_gan, half": lambda size: X2CTGenerator(
        size, stem_channels=4, dense_layers=(2, 1), growth_rate=4, decoder_channels=(8, 4)
    ),
    "any_view": lambda size: AnyView(
        size,
        encoder_channels=(4, 8, 16),
        decoder_channels=(16, 8),
        num_blocks=1,
        view_channels=4,
        step_channels=8,
        step_size=16,
    ),
    "dif_net": lambda size: DIFNet(
        size, encoder_channels=(4, 8, 16), feature_channels=8, hidden_size=16, num_layers=1, chunk_size=1000
    ),
    "trct_gan": lambda size: TRCTGenerator(
        size, encoder_channels=(4, 8, 16), hidden_size=32, num_layers=2, num_heads=4, decoder_channels=(16, 8)
    ),
}
BASELINES: dict[str, Callable[[int], nn.Module]] = {
    "mean_volume": lambda size: MeanVolume(size).fit([torch.full((1, size, size, size), 0.25)]),
    "nearest_neighbour": lambda size: NearestNeighbour(size).fit(training_cases(size)),
    "ridge_pca": lambda size: RidgePCA(size).fit(training_cases(size)),
    "backprojection": lambda size: Backprojection(size),
    "filtered_backprojection": lambda size: Backprojection(size, filtered=True),
    "total_variation": lambda size: TotalVariation(size, num_iterations=10),
}
METHODS = NETWORKS | BASELINES


def radiographs(batch: int = 2, seed: int = 0) -> torch.Tensor:
    return 5 * torch.rand(batch, 2, 32, 32, generator=torch.Generator().manual_seed(seed))


def perturbed(network: nn.Module) -> nn.Module:
    """Zero-initialised gates and heads opened a little, so that every path carries something."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("size", [8, 16])
@pytest.mark.parametrize("name", METHODS)
def test_output_is_a_volume_in_the_unit_range(name: str, size: int) -> None:
    volume = perturbed(METHODS[name](size)).eval()(radiographs())
    assert isinstance(volume, torch.Tensor) and volume.shape == (2, 1, size, size, size)
    assert volume.dtype == torch.float32 and 0 <= volume.min() and volume.max() <= 1


@pytest.mark.parametrize("name", METHODS)
def test_eval_is_deterministic_and_independent_of_the_batch(name: str) -> None:
    network, image = perturbed(METHODS[name](8)).eval(), radiographs()
    with torch.no_grad():
        together, again = network(image), network(image)
        alone = torch.cat([network(case[None]) for case in image])
    assert torch.equal(together, again)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_state_dict_round_trip(name: str) -> None:
    network, other = perturbed(METHODS[name](8)).eval(), METHODS[name](8).eval()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        assert torch.equal(network(radiographs()), other(radiographs()))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradient_reaches_every_parameter_and_the_radiographs(name: str) -> None:
    network, image = perturbed(NETWORKS[name](8)).train(), radiographs().requires_grad_()
    network(image).square().mean().backward()
    without = [
        key for key, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert not without
    assert image.grad is not None and image.grad.flatten(2).any(dim=2).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_output_depends_on_every_view(name: str) -> None:
    network, image = perturbed(NETWORKS[name](8)).eval(), radiographs()
    with torch.no_grad():
        for view in range(2):
            changed = image.clone()
            changed[:, view] += 1
            assert not torch.equal(network(image), network(changed))


@pytest.mark.parametrize("name", NETWORKS)
def test_bfloat16_autocast_is_finite_and_close(name: str) -> None:
    network, image = perturbed(NETWORKS[name](8)).eval(), radiographs()
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network(image).float()
    assert torch.isfinite(half).all() and (half - exact).abs().mean() < 0.02


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 2, 33, 32)])
@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_radiographs_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image must be \(B, (2|1 to \d+), H, W\)|need the matrices of 3 cameras"):
        NETWORKS[name](8)(torch.zeros(shape))
