"""A field of intensities: a volume is what the field is at its voxels' centres, however many there are."""

import pytest
import torch
from torch import Tensor

from tests.test_contracts import perturbed, radiographs
from trct_monai.geometry import DEFAULT_EXTENT, preset, projection_matrices, voxel_centers
from trct_monai.networks import DIFNet
from trct_monai.resampling import resize_cube

MATRICES = projection_matrices(preset("circle-10"))[None]


def untrained(size: int, chunk_size: int = 100) -> DIFNet:
    sizes = {"hidden_size": 16, "num_layers": 1, "start_size": 8, "chunk_size": chunk_size}
    return DIFNet(size, encoder_channels=(4, 8), feature_channels=8, **sizes).eval()


def network(size: int = 8, chunk_size: int = 100) -> DIFNet:
    torch.manual_seed(0)
    made = perturbed(untrained(size, chunk_size))
    assert isinstance(made, DIFNet)
    return made


def views(number: int, batch: int = 1) -> Tensor:
    return 5 * torch.rand(batch, number, 32, 32, generator=torch.Generator().manual_seed(number))


def centers(size: int) -> Tensor:
    return voxel_centers((size,) * 3, DEFAULT_EXTENT / size).float().flatten(0, 2)


@torch.no_grad()
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [8, 16])
def test_a_volume_is_the_field_at_its_voxels(size: int, training: bool) -> None:
    made = network(size).train(training)
    volume = made(radiographs())
    assert volume.shape == (2, 1, size, size, size)
    values = made.field(radiographs(), None, centers(size))
    torch.testing.assert_close(values.view_as(volume), volume, atol=1e-5, rtol=1e-5)
    assert torch.equal(made(radiographs(), points=centers(size)), values)


@torch.no_grad()
def test_weights_give_any_finer_volume_of_the_same_field() -> None:
    coarse, fine = network(8), untrained(20)
    fine.load_state_dict(coarse.state_dict())
    volume = fine(radiographs())
    torch.testing.assert_close(volume.flatten(2), coarse.field(radiographs(), None, centers(20)), atol=1e-5, rtol=1e-5)
    assert (volume - resize_cube(coarse(radiographs()), 20)).abs().max() > 1e-3


@torch.no_grad()
def test_a_voxel_is_the_same_in_every_grid_that_has_its_centre() -> None:
    """The middle one of each three in a row has the centre of the voxel that they fill."""
    coarse, fine = network(8), untrained(24)
    fine.load_state_dict(coarse.state_dict())
    torch.testing.assert_close(fine(radiographs())[..., 1::3, 1::3, 1::3], coarse(radiographs()), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_before_training_the_field_is_the_initial_volume() -> None:
    made = untrained(16)
    mean = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    made.start_from(mean)
    torch.testing.assert_close(made(radiographs()), resize_cube(mean, 16).expand(2, -1, -1, -1, -1))
    far = torch.tensor([[1000.0, 1000.0, 1000.0]])
    torch.testing.assert_close(made.field(radiographs(), None, far)[0, 0, 0], mean[0, 0, 7, 7, 7])


@torch.no_grad()
@pytest.mark.parametrize("chunk_size", [7, 511, 512, 10**6])
def test_the_size_of_the_chunks_does_not_matter(chunk_size: int) -> None:
    with torch.enable_grad():  # which puts them together in another way
        expected = network(8)(radiographs()).detach()
    torch.testing.assert_close(network(8, chunk_size=chunk_size)(radiographs()), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_a_point_knows_nothing_of_the_others() -> None:
    points = centers(8)[torch.randperm(512, generator=torch.Generator().manual_seed(0))]
    together = network().field(views(3), MATRICES[:, :3], points)
    some = network().field(views(3), MATRICES[:, :3], points[:7])
    torch.testing.assert_close(some, together[:, :, :7], atol=1e-6, rtol=1e-6)


def test_each_of_ten_views_counts() -> None:
    image = views(10).requires_grad_()
    network()(image, MATRICES).sum().backward()
    assert image.grad is not None and image.grad.flatten(2).any(dim=2).all()


@torch.no_grad()
def test_each_case_has_its_own_cameras_and_missing_views() -> None:
    image, matrices = views(3, batch=2), torch.cat([MATRICES[:, :3], MATRICES[:, 4:7]])
    image[1, 2] = torch.nan
    together = network()(image, matrices)
    torch.testing.assert_close(together[:1], network()(image[:1], matrices[:1]), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(together[1:], network()(image[1:, :2], matrices[1:, :2]), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_half_precision_does_not_move_the_points() -> None:
    """Features and perceptron may be rounded, by a little; a place that was would read another pixel."""
    exact = network().field(views(2), MATRICES[:, :2], centers(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network().field(views(2), MATRICES[:, :2], centers(8))
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0)


def test_no_weight_depends_on_the_size_of_the_volume() -> None:
    names = {name: value.shape for name, value in network(8).state_dict().items()}
    assert names == {name: value.shape for name, value in network(64).state_dict().items()}
    assert DIFNet(8, start_size=64, encoder_channels=(4,)).initial_volume.shape[-1] == 8


def test_parameters_are_as_the_docs_say() -> None:
    def millions(made: DIFNet) -> float:
        return sum(parameter.numel() for parameter in made.parameters()) / 1e6

    assert 21.9 < millions(DIFNet(start_size=64)) < 22.0
    small = DIFNet(
        64, encoder_channels=(24, 48, 96, 128), feature_channels=48, hidden_size=96, num_layers=2, start_size=32
    )
    assert 0.68 < millions(small) < 0.70


def test_no_points_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match="chunk_size must be positive, got 0"):
        network(chunk_size=0)
