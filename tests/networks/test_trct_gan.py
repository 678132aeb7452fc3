"""What TRCT-GAN promises beyond the contract of every network."""

import pytest
import torch

from trct_monai.geometry import DEFAULT_EXTENT, preset, projection_matrices, voxel_centers
from trct_monai.networks import PatchDiscriminator, TRCTGenerator
from trct_monai.networks.attention_in_attention import AttentionInAttention
from trct_monai.networks.dense_encoder import DenseEncoder
from trct_monai.networks.lifting import detector_coordinates

SMALL = {"encoder_channels": (8, 16), "hidden_size": 32, "num_layers": 2, "num_heads": 4, "decoder_channels": (16, 8)}


def tiny(**changes: object) -> TRCTGenerator:
    return TRCTGenerator(16, **{**SMALL, "skip_channels": 4, **changes})


def opened(network: torch.nn.Module) -> torch.nn.Module:
    """Zero-initialised gates and heads opened, so that every path carries something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return network


def count(network: torch.nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def test_untrained_generator_returns_its_initial_volume_to_the_bit() -> None:
    network, volume = tiny(), torch.rand(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    network.start_from(volume)
    assert torch.equal(network(torch.rand(1, 2, 16, 16)), volume)


def test_sizes_have_the_parameters_that_are_stated() -> None:
    full, opponent = TRCTGenerator(), PatchDiscriminator()
    reduced = TRCTGenerator(
        encoder_channels=(32, 64, 128, 256),
        hidden_size=256,
        num_layers=4,
        decoder_channels=(256, 128, 64, 32),
        skip_channels=16,
    )
    assert count(full) == pytest.approx(102.9, abs=0.1) and count(reduced) == pytest.approx(24.2, abs=0.1)
    assert count(opponent) == pytest.approx(11.0, abs=0.05)


def near_the_rays(place: torch.Tensor, pixels: int, reach: float) -> torch.Tensor:
    """Pixels (V, n, n) of a detector that lie near the shadows of a place, within a share of half the detector."""
    seen = detector_coordinates(place[None], projection_matrices(preset("x2ct")))[:, 0]  # (V, 2), u and v
    centers = (2 * torch.arange(pixels) + 1) / pixels - 1
    across, down = ((centers - seen[:, i : i + 1]).abs() < reach for i in range(2))
    return down[:, :, None] & across[:, None, :]


@pytest.mark.parametrize("voxel", [(3, 8, 12), (12, 4, 5), (8, 13, 3)])
def test_a_voxel_depends_on_the_pixels_that_its_rays_hit(voxel: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    image = (5 * torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(1))).requires_grad_()
    opened(tiny()).eval()(image)[(0, 0, *voxel)].backward()
    assert image.grad is not None
    strength = image.grad[0].abs()
    place = voxel_centers((16,) * 3, DEFAULT_EXTENT / 16).float()[voxel]
    own, opposite = (near_the_rays(p, 64, 0.15) for p in (place, -place))
    assert strength[own].mean() > 1.5 * strength[opposite].mean()
    assert strength[own].mean() > 1.5 * strength[~own].mean()


def test_the_depth_bridge_alone_has_no_place_and_the_volume_bridge_has() -> None:
    """The bridges without the decoder's lifted features: one voxel's gradient, near its rays and elsewhere."""
    shares = {}
    for kind in ("volume", "depth"):
        torch.manual_seed(0)
        bridge = opened(tiny(queries=kind).bridge)
        features = torch.randn(1, 2, 16, 16, 16, generator=torch.Generator().manual_seed(2)).requires_grad_()
        cells = bridge(features, projection_matrices(preset("x2ct"))[None])
        assert cells.shape == (1, 32, 4, 4, 4)
        if kind == "depth":
            assert (cells == cells[:, :, :1, :, :1]).all()  # the same all over a coronal plane
        cells[0, :, 0, 1, 3].sum().backward()
        assert features.grad is not None
        strength = features.grad[0].abs().sum(dim=1)  # (V, 16, 16)
        strength = (strength - strength.flatten(1).min(dim=1).values[:, None, None]).clamp(
            min=0
        )  # the common condition
        near = near_the_rays(voxel_centers((4,) * 3, DEFAULT_EXTENT / 4).float()[0, 1, 3], 16, 0.4)
        shares[kind] = float(strength[near].sum() / strength.sum() / near.float().mean())
    assert shares["volume"] > 1.5 * shares["depth"], shares


def test_attention_in_attention_mixes_two_branches_beside_the_identity() -> None:
    for dims in (2, 3):
        block = opened(AttentionInAttention(dims, 8))
        x = torch.randn(3, 8, *(6,) * dims, generator=torch.Generator().manual_seed(0))
        weights = block.weights(x)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
        assert not torch.allclose(weights[0], weights[1])  # the features decide
        torch.nn.init.zeros_(block.out.weight)
        torch.nn.init.zeros_(block.out.bias)
        assert torch.equal(block(x), x)


def test_dense_encoder_halves_at_each_scale() -> None:
    features = DenseEncoder(1, (8, 12, 16), num_layers=2)(torch.rand(2, 1, 32, 48))
    assert [tuple(f.shape) for f in features] == [(2, 8, 16, 24), (2, 12, 8, 12), (2, 16, 4, 6)]


@pytest.mark.parametrize("switch", ["use_checkpoint", "channels_last"])
def test_memory_switches_change_no_gradient(switch: str) -> None:
    image = 5 * torch.rand(1, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    gradients = []
    for use in (False, True):
        torch.manual_seed(0)
        network = opened(tiny(**{switch: use})).train()
        network(image).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-3)


def test_matrices_of_each_case_replace_the_preset_and_nearest_upsampling_works() -> None:
    network = opened(tiny(upsampling="nearest")).eval()
    image = 5 * torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(0))
    own, other = (projection_matrices(preset(name)).expand(2, -1, -1, -1) for name in ("x2ct", "clinic"))
    with torch.no_grad():
        torch.testing.assert_close(network(image, own), network(image))
        assert not torch.allclose(network(image, other), network(image))


def test_without_lifted_features_a_depth_bridge_knows_no_place_in_the_plane() -> None:
    """Its decoder has only zero padding to tell one column from the next, next to nothing in the middle."""
    image = 5 * torch.rand(1, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    spread = {}
    for kind in ("volume", "depth"):
        torch.manual_seed(0)
        network = opened(
            TRCTGenerator(32, **{**SMALL, "decoder_channels": (8, 8), "skip_channels": 0, "queries": kind})
        ).eval()
        with torch.no_grad():
            network.initial_volume.zero_().add_(0.5)
            plane = network(image)[0, 0, 12:20:2, 16, 12:20:2]  # every other voxel: the same place in its cell
        spread[kind] = float(plane.std() / (plane - 0.5).abs().mean())
    assert spread["volume"] > 5 * spread["depth"], spread


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="volume_size must be a multiple of 2"):
        TRCTGenerator(18, **SMALL)
    with pytest.raises(ValueError, match="hidden_size must be a multiple of num_heads"):
        tiny(num_heads=5)


@pytest.mark.parametrize("norm", ["spectral", "group"])
def test_discriminator_scores_patches(norm: str) -> None:
    discriminator = PatchDiscriminator(3, 1, (8, 16, 16), norm=norm)
    assert discriminator(torch.rand(2, 1, 32, 32, 32)).shape == (2, 1, 4, 4, 4)
    assert PatchDiscriminator(2, 2, (8, 16), norm=norm)(torch.rand(2, 2, 32, 32)).shape == (2, 1, 8, 8)


def test_spectral_norm_bounds_every_convolution() -> None:
    torch.manual_seed(0)
    discriminator = PatchDiscriminator(3, 1, (8, 16)).train()
    with torch.no_grad():
        for parameter in discriminator.parameters():
            parameter *= 100
        for _ in range(50):
            discriminator(torch.rand(1, 1, 16, 16, 16))
    for layer in discriminator.layers:
        if isinstance(layer, torch.nn.Conv3d):
            assert float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)) == pytest.approx(1.0, abs=0.05)
