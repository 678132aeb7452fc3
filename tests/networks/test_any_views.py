"""Networks for any number of views: order does not matter, a missing view is no view, and rays run where they do."""

import pytest
import torch

from tests.test_contracts import NETWORKS, perturbed
from trct_monai.geometry import make_camera, preset, projection_matrices, voxel_centers
from trct_monai.intensity import unit_to_attenuation
from trct_monai.networks import HybridCNNViT
from trct_monai.networks.agreement import AgreementStep
from trct_monai.networks.cross_view import voxel_directions
from trct_monai.networks.reconstruction import ReconstructionNetwork
from trct_monai.projector import project

ANY_VIEWS = [name for name in NETWORKS if getattr(NETWORKS[name](8), "max_views", None)]
MATRICES = projection_matrices(preset("circle-8"))[None]


def network(name: str) -> ReconstructionNetwork:
    torch.manual_seed(0)
    made = perturbed(NETWORKS[name](8)).eval()
    assert isinstance(made, ReconstructionNetwork)
    return made


def radiographs(views: int = 8) -> torch.Tensor:
    return 5 * torch.rand(1, views, 32, 32, generator=torch.Generator().manual_seed(4))


def test_there_is_one() -> None:
    assert "hybrid_cnn_vit" in ANY_VIEWS


@pytest.mark.parametrize("name", ANY_VIEWS)
def test_the_order_of_the_views_does_not_matter(name: str) -> None:
    order = torch.tensor([3, 0, 7, 5])
    with torch.no_grad():
        expected = network(name)(radiographs()[:, order], MATRICES[:, order])
        turned = network(name)(radiographs()[:, order.flip(0)], MATRICES[:, order.flip(0)])
        wrong = network(name)(radiographs()[:, order], MATRICES[:, order.flip(0)])
    torch.testing.assert_close(turned, expected, atol=1e-5, rtol=1e-5)
    assert (wrong - expected).abs().max() > 1e-3


@pytest.mark.parametrize("name", ANY_VIEWS)
def test_a_missing_view_is_as_if_it_had_not_been_taken(name: str) -> None:
    image = radiographs()[:, :3].clone()
    image[:, 1] = torch.nan
    with torch.no_grad():
        missing = network(name)(image, MATRICES[:, :3])
        without = network(name)(image[:, [0, 2]], MATRICES[:, [0, 2]])
        none = network(name)(torch.full_like(image, torch.nan), MATRICES[:, :3])
    torch.testing.assert_close(missing, without, atol=1e-5, rtol=1e-5)
    assert none.isfinite().all()


@pytest.mark.parametrize("name", ANY_VIEWS)
@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_every_number_of_views_is_taken_and_each_view_counts(name: str, views: int) -> None:
    image, matrices = radiographs()[:, :views].requires_grad_(), MATRICES[:, :views]
    result = network(name)(image, matrices)
    assert result.shape == (1, 1, 8, 8, 8)
    result.sum().backward()
    assert image.grad is not None and image.grad.flatten(2).any(dim=2).all()


@pytest.mark.parametrize("name", ANY_VIEWS)
def test_too_many_views_and_views_without_cameras_are_refused(name: str) -> None:
    most = network(name).max_views or 0
    more = projection_matrices(preset(f"circle-{most + 1}"))[None]
    with pytest.raises(ValueError, match=rf"image must be \(B, 1 to {most}, H, W\) .* got shape \(1, {most + 1}, 32"):
        network(name)(radiographs(most + 1), more)
    with pytest.raises(ValueError, match="4 radiographs need the matrices of 4 cameras, got none"):
        network(name)(radiographs(4))
    with pytest.raises(ValueError, match="4 radiographs need the matrices of 4 cameras, got 8"):
        network(name)(radiographs(4), MATRICES)


@pytest.mark.parametrize("azimuth", [0.0, 40.0, 90.0, 200.0])
def test_voxel_directions_point_away_from_the_source(azimuth: float) -> None:
    camera = make_camera("x", azimuth, elevation_deg=10, sod=541, sdd=949, detector_extent=(500, 500), size=(8, 8))
    centers = voxel_centers((3, 4, 5), 40.0)
    directions = voxel_directions(camera.world_to_detector()[None], centers)[0]
    expected = torch.nn.functional.normalize(centers - torch.tensor(camera.source, dtype=torch.float64), dim=-1)
    torch.testing.assert_close(directions.double(), expected, atol=1e-6, rtol=0)


def test_parallel_rays_have_one_direction() -> None:
    directions = voxel_directions(projection_matrices(preset("parallel")), voxel_centers((3, 3, 3), 40.0))
    torch.testing.assert_close(directions[0], torch.tensor([0.0, 1.0, 0.0]).expand(3, 3, 3, 3), atol=1e-6, rtol=0)


def test_parameters_are_as_the_docs_say() -> None:
    def millions(made: HybridCNNViT) -> float:
        return sum(parameter.numel() for parameter in made.parameters()) / 1e6

    assert 84.5 < millions(HybridCNNViT()) < 85.0
    small = HybridCNNViT(
        64,
        encoder_channels=(16, 32, 64, 64),
        channels=(16, 32, 64),
        growth=0.25,
        num_swin_levels=1,
        num_heads=4,
        num_exchange_layers=1,
    )
    assert 1.7 < millions(small) < 1.9


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="must be multiples of num_heads 8"):
        HybridCNNViT(16, encoder_channels=(8, 12), channels=(8, 8))
    with pytest.raises(ValueError, match="channels must be at most as many as encoder_channels"):
        HybridCNNViT(16, encoder_channels=(8,), channels=(8, 8))


def test_a_step_brings_the_projections_closer_to_the_radiographs_that_it_trusts() -> None:
    cameras, centers = preset("circle-8", (32, 32)), voxel_centers((16,) * 3, 20.0).float()
    start = torch.full((1, 1, 16, 16, 16), 0.2)
    inside = centers.norm(dim=-1) < 100
    truth = start + 0.4 * inside
    step = AgreementStep(1, num_rounds=4)
    for parameter in step.parameters():  # the features are left as they come
        torch.nn.init.zeros_(parameter)
    features, present = inside[None, None].float(), torch.ones(1, 8, dtype=torch.bool)

    def seen(volume: torch.Tensor) -> torch.Tensor:
        return project(unit_to_attenuation(volume), cameras, 20.0)

    def integrate(volume: torch.Tensor) -> torch.Tensor:
        return seen(start + volume) - seen(start)

    def errors() -> list[float]:
        with torch.no_grad():
            added = step(features, start, seen(truth), seen, integrate, MATRICES, present, centers)[1]
        pairs = (seen(start + added), seen(truth)), (start + added, truth)
        return [float((a - b).square().mean().sqrt()) for a, b in pairs]

    step.num_rounds = 0
    before = errors()
    step.num_rounds = 4  # as it was published: an untrained gate is the same everywhere
    after = errors()
    assert after[0] < 0.25 * before[0] and after[1] < 0.5 * before[1]
    step.gate.weight.data.fill_(20.0)
    step.gate.bias.data.fill_(-10.0)  # the features tell where the volume is wrong
    gated = errors()
    assert gated[1] < 0.5 * after[1]
    step.trust.bias.data.fill_(-50.0)
    assert errors() == pytest.approx(before)
