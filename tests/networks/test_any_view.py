"""AnyView with a coarser start than its volume."""

import pytest
import torch
import torch.nn.functional as F

from trct_monai.networks import AnyView
from trct_monai.projector import Projector

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
        start = network.linear(image, network.project_modes(network.matrices[None], 1)).volume
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


def test_a_known_exposure_is_told_to_the_linear_start() -> None:
    torch.manual_seed(0)
    network = AnyView(16, **SMALL).eval()
    network.linear_start.fit(0.3 + 0.4 * torch.rand(4, 1, 16, 16, 16))
    image = 2 * torch.rand(1, 2, 32, 32)
    known = torch.ones(1, 2, dtype=torch.bool)
    with torch.no_grad():
        one, other = (network(image, exposed=exposed) for exposed in (known, ~known))
        assert torch.equal(other, network(image)) and not torch.allclose(one, other)
        corrected = network.linear(image, network.project_modes(network.matrices[None], 1), known).image
    assert torch.equal(corrected, image)


@torch.no_grad()
def test_every_model_has_its_own_initial_volume() -> None:
    torch.manual_seed(0)
    network = AnyView(16, num_models=2, **SMALL).eval()
    for model, level in enumerate((0.3, 0.6)):
        volumes = level + 0.1 * torch.rand(4, 1, 16, 16, 16)
        network.start_from(volumes.mean(dim=0, keepdim=True), model=model)
        network.linear_start.fit(volumes, model=model)
    projections = network.project_modes(network.matrices[None], 1)
    known = torch.ones(1, 2, dtype=torch.bool)
    for level in (0.3, 0.6):
        truth = torch.full((1, 1, 16, 16, 16), level + 0.05)
        image = network._project(truth, Projector(network.cameras(network.matrices[None], 1), (16,) * 3, 20.0))
        image = F.interpolate(image * network.image_scale + network.image_mean, size=(32, 32), mode="bilinear")
        start = network.linear(image, projections, known).volume
        assert abs(float(start.mean()) - level - 0.05) < 0.02
    network.initial_volume[0] += 1  # what belongs to the other model changes nothing
    assert abs(float(network.linear(image, projections, known).volume.mean()) - 0.65) < 0.03


def test_weights_of_one_model_are_the_first_of_two() -> None:
    torch.manual_seed(0)
    one, two = AnyView(16, **SMALL).eval(), AnyView(16, **{**SMALL, "num_modes": 3}, num_models=2).eval()
    one.linear_start.fit(torch.rand(4, 1, 16, 16, 16))
    one.start_from(torch.rand(1, 1, 16, 16, 16))
    two.start_from_coarser(one.state_dict())
    image = 2 * torch.rand(1, 2, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(two(image), one(image), atol=1e-5, rtol=1e-4)
    assert two.linear_start.fitted.tolist() == [True, False] and two.linear_start.last == 0


def with_a_pyramid_for_each() -> tuple[AnyView, torch.Tensor]:
    """A network of two models and pyramids, dark and bright, and radiographs of a dark and two bright volumes."""
    torch.manual_seed(0)
    network = AnyView(16, num_models=2, num_pyramids=2, **SMALL)
    for model, level in enumerate((0.2, 0.7)):
        volumes = level + 0.1 * torch.rand(4, 1, 16, 16, 16)
        network.start_from(volumes.mean(dim=0, keepdim=True), model=model)
        network.linear_start.fit(volumes, model=model)
    for pyramid in network.pyramids:
        for head in pyramid.heads:
            torch.nn.init.normal_(head.conv_block.weight, std=0.1)
    image = torch.stack([torch.full((2, 32, 32), level) for level in (1.3, 4.1, 4.0)])
    return network, image + 0.1 * torch.rand(3, 2, 32, 32)


def test_every_case_goes_through_the_pyramid_of_its_model() -> None:
    network, image = with_a_pyramid_for_each()
    network.eval()
    with torch.no_grad():
        model = network.linear(image, network.project_modes(network.matrices[None], 3)).model
        whole, alone = network(image), torch.cat([network(case[None]) for case in image])
        turned, back = network(image[[1, 0, 2]]), [1, 0, 2]
        assert model.tolist() == [0, 1, 1]
        torch.testing.assert_close(whole, alone, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(turned[back], whole, atol=1e-5, rtol=1e-4)
        torch.nn.init.zeros_(network.pyramids[1].heads[0].conv_block.weight)
        changed = (network(image) - whole).abs().amax(dim=(1, 2, 3, 4))
    assert changed[0] == 0 and changed[1:].min() > 0
    network.train()
    network(image[:1]).mean().backward()
    assert [pyramid.heads[0].conv_block.weight.grad is not None for pyramid in network.pyramids] == [True, False]


def test_a_trace_has_the_pyramids_of_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = with_a_pyramid_for_each()
    network.eval()
    with torch.no_grad():
        expected = network(image)
        monkeypatch.setattr("trct_monai.networks.any_view.is_traced", lambda: True)
        torch.testing.assert_close(network(image), expected, atol=1e-5, rtol=1e-4)


def test_the_pyramid_of_a_model_without_a_fit_begins_as_that_of_the_last_one_with_it() -> None:
    network, image = with_a_pyramid_for_each()
    one = AnyView(16, **SMALL).eval()
    one.linear_start.fit(torch.rand(4, 1, 16, 16, 16))
    torch.nn.init.normal_(one.pyramids[0].heads[0].conv_block.weight)
    before_0_2 = {name.removeprefix("pyramids.0."): value for name, value in one.state_dict().items()}
    network.start_from_coarser(before_0_2)
    for pyramid in network.pyramids:
        for name, value in one.pyramids[0].state_dict().items():
            assert torch.equal(pyramid.state_dict()[name], value)
    one.load_state_dict(before_0_2)
    with pytest.raises(ValueError, match="num_pyramids must be 1 or num_models, 3, got 2"):
        AnyView(16, num_models=3, num_pyramids=2, **SMALL)


def test_some_batches_train_without_the_steps() -> None:
    torch.manual_seed(0)
    network = AnyView(16, step_share=0.5, deep_supervision=True, **SMALL)
    image = torch.rand(1, 2, 32, 32)
    lengths = [len(network(image)) for _ in range(20)]
    assert set(lengths) == {2, 3}
    network.deep_supervision = False
    assert {tuple(network(image).shape) for _ in range(20)} == {(1, 1, 16, 16, 16)}
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
    with pytest.raises(ValueError, match=r"step_share must lie in \(0, 1\], got 0"):
        AnyView(16, step_share=0, **SMALL)
