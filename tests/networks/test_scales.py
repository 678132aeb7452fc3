"""Networks of several scales: a finer one never starts below the interpolation of a coarser one."""

import inspect

import pytest
import torch

from tests.test_contracts import NETWORKS, perturbed, radiographs
from trct_monai.networks import AnyView, DirectRegression, MultiScaleCNN, PatchViT, TRCTGenerator
from trct_monai.networks.reconstruction import ReconstructionNetwork
from trct_monai.resampling import resize_cube


def regression(size: int, **options: object) -> DirectRegression:
    sizes = {"encoder_channels": (4, 8), "hidden_size": 16, "num_layers": 1, "patch_size": 2, "decoder_channels": (8,)}
    return DirectRegression(size, **{**sizes, **options})  # type: ignore[arg-type]


def test_a_finer_network_starts_at_the_interpolated_coarser_one() -> None:
    coarse = perturbed(regression(8)).eval()
    fine = regression(32, finer_channels=(4, 2)).eval()
    fine.start_from_coarser(coarse.state_dict())
    with torch.no_grad():
        correction = coarse.train()(radiographs()) - coarse.initial_volume
        expected = (resize_cube(coarse.initial_volume, 32) + resize_cube(resize_cube(correction, 16), 32)).clamp(0, 1)
        torch.testing.assert_close(fine(radiographs()), expected, atol=1e-5, rtol=1e-5)


def test_the_multi_scale_network_grows_too_and_others_say_that_they_do_not() -> None:
    options = {"encoder_channels": (4, 8, 8), "skip_channels": 2}
    coarse = perturbed(MultiScaleCNN(16, decoder_channels=(8, 4), num_scales=2, **options)).train()  # type: ignore[arg-type]
    fine = MultiScaleCNN(32, decoder_channels=(8, 4, 4), num_scales=3, **options).eval()  # type: ignore[arg-type]
    fine.start_from_coarser(coarse.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(
            fine(radiographs()), resize_cube(coarse(radiographs()), 32).clamp(0, 1), atol=1e-5, rtol=1e-5
        )
    other = MultiScaleCNN(32, decoder_channels=(8, 4, 4), num_scales=2, **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not the weights of a coarser MultiScaleCNN"):
        other.start_from_coarser(coarse.state_dict())
    with pytest.raises(ValueError, match="a coarser HybridCNNViT is not a part of a finer one"):
        NETWORKS["hybrid_cnn_vit"](16).start_from_coarser(coarse.state_dict())  # type: ignore[operator]


def test_image_columns_of_the_patch_vit_lie_where_the_patient_does() -> None:
    """Column 0 of a frontal radiograph is the patient's right, +x; row 0 is superior, +z."""
    network = PatchViT(
        8,
        image_size=32,
        patch_size=8,
        hidden_size=8,
        num_layers=1,
        num_heads=1,
        grid_size=4,
        decoder_channels=(1,),
        finer_channels=(),
    )
    seen = []
    network.decoder[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    network.to_depth = torch.nn.Linear(8, 4, bias=False)
    marked = torch.zeros(1, 16, 8)
    marked[:, 0] = 1.0  # the patch in row 0 and column 0
    network.encoder.forward = lambda image: (marked, [])  # type: ignore[method-assign,assignment]
    torch.nn.init.ones_(network.to_depth.weight)
    network.eval()(torch.zeros(1, 2, 32, 32))
    place = seen[0][0, 0].sum(dim=1).nonzero()
    assert place.tolist() == [[3, 3]]


def test_more_steps_start_where_fewer_ended() -> None:
    sizes = {
        "encoder_channels": (4, 8),
        "decoder_channels": (8, 4),
        "num_blocks": 1,
        "view_channels": 4,
        "step_size": 16,
    }
    fewer = perturbed(AnyView(8, num_steps=0, **sizes)).eval()  # type: ignore[arg-type]
    more = AnyView(8, num_steps=2, num_rounds=0, **sizes).eval()  # type: ignore[arg-type]
    more.start_from_coarser(fewer.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(more(radiographs()), fewer(radiographs()), atol=1e-6, rtol=1e-6)


def test_weights_of_another_network_and_paths_are_refused() -> None:
    for state in (perturbed(regression(8, hidden_size=32)).state_dict(), {"weight": torch.zeros(1)}):
        with pytest.raises(ValueError, match="these are not the weights of a coarser DirectRegression: "):
            regression(16, finer_channels=(4,)).start_from_coarser(state)
    with pytest.raises(TypeError, match="start_from_coarser takes weights, not 'model.pt'"):
        unchecked = inspect.unwrap(ReconstructionNetwork.start_from_coarser)
        unchecked(regression(16, finer_channels=(4,)), "model.pt")


@pytest.mark.parametrize("name", [name for name in NETWORKS if len(getattr(NETWORKS[name](16), "sizes", ())) > 1])
def test_a_coarser_output_is_the_same_network_without_its_finer_scales(name: str) -> None:
    network = perturbed(NETWORKS[name](16)).train()
    assert isinstance(network, ReconstructionNetwork)
    coarsest = network.sizes[0]
    network.deep_supervision = True
    volumes = network(radiographs())
    assert [volume.shape[-1] for volume in volumes] == list(reversed(network.sizes))
    network.output_size = coarsest
    assert torch.equal(network(radiographs())[0], volumes[-1])
    network.deep_supervision = False
    assert torch.equal(network(radiographs()), volumes[-1])
    result = network.eval()(radiographs())
    initial = network.initial_volume
    expected = resize_cube(initial, 16) + resize_cube(volumes[-1] - resize_cube(initial, coarsest), 16)
    torch.testing.assert_close(result, expected.clamp(0, 1), atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match=r"output_size must be one of"):
        network.output_size = 5


def test_deep_supervision_changes_nothing_in_evaluation() -> None:
    network = perturbed(
        MultiScaleCNN(16, encoder_channels=(4, 8), decoder_channels=(8, 4), skip_channels=2, num_scales=2)
    )
    expected = network.eval()(radiographs())
    network.deep_supervision = True
    assert torch.equal(network(radiographs()), expected)


def test_parameters_are_as_the_docs_say() -> None:
    def millions(network: torch.nn.Module) -> float:
        return sum(parameter.numel() for parameter in network.parameters()) / 1e6

    assert 25.5 < millions(MultiScaleCNN()) < 25.7
    assert 15.2 < millions(DirectRegression()) < 15.4
    assert 15.2 < millions(DirectRegression(256, finer_channels=(16, 8))) < 15.5


def test_sizes_that_do_not_halve_are_refused() -> None:
    with pytest.raises(ValueError, match="patch_size must be a power of two"):
        regression(12, finer_channels=(4, 2), patch_size=2)
    with pytest.raises(ValueError, match="num_scales must be at most"):
        MultiScaleCNN(16, encoder_channels=(4, 8), decoder_channels=(8, 4), num_scales=3)
    assert TRCTGenerator(
        16, encoder_channels=(4, 8, 16), decoder_channels=(16, 8), hidden_size=8, num_layers=1
    ).sizes == (16,)
