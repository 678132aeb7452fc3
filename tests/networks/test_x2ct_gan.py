"""X2CT-GAN's generator: views fused in the patient's frame, levels beside scales, one view; what its opponent sees."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trct_monai.geometry import preset, projection_matrices, voxel_centers
from trct_monai.networks import LiftedRadiographs, PatchDiscriminator, X2CTGenerator
from trct_monai.networks.lifting import detector_coordinates

MINIATURE: dict[str, Any] = {"stem_channels": 4, "dense_layers": (1, 2), "growth_rate": 4}
SIZE = 16


def network(geometry: str = "x2ct", decoder_channels: tuple[int, ...] = (8, 4, 4)) -> X2CTGenerator:
    torch.manual_seed(0)
    made = X2CTGenerator(SIZE, geometry=geometry, decoder_channels=decoder_channels, **MINIATURE)
    with torch.no_grad():
        for parameter in made.head.parameters():
            parameter.normal_(std=0.1)
        made.initial_volume.fill_(0.5)
    return made.eval()


def radiographs(views: int = 2) -> Tensor:
    return 5 * torch.rand(1, views, 32, 32, generator=torch.Generator().manual_seed(1))


def matrices(geometry: str = "x2ct") -> Tensor:
    return projection_matrices(preset(geometry))[None]


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for name, parameter in module.named_parameters() if name != "initial_volume")


@torch.no_grad()
def test_branches_with_the_same_weights_are_fused_whatever_their_order() -> None:
    made, image, cameras = network(), radiographs(), matrices()
    made.branches[1].load_state_dict(made.branches[0].state_dict())
    one, other = made(image, cameras), made(image.flip(1), cameras.flip(1))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert (made(image, cameras) - made(image, cameras.flip(1))).abs().max() > 1e-3, "cameras have no influence"


@torch.no_grad()
def test_finest_level_sees_a_pixel_along_its_ray_alone() -> None:
    made, cameras = network(), matrices()
    level = len(made.branches[0].links) - 1
    centers = made.get_buffer(f"centers_{level + 1}")
    features = torch.zeros(1, 4, 32, 32)
    features[..., 20, 12] = 1.0
    seen: list[Tensor] = []
    made.branches[0].links[level].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    made.branches[0].join(level, torch.zeros(1, 4, 8, 8, 8), features, cameras[:, :1], centers)
    where = detector_coordinates(centers.flatten(0, 2), cameras[0, 0])
    pixel = ((where + 1) * 16 - 0.5).view(SIZE, SIZE, SIZE, 2)  # u runs along columns
    near = (pixel - torch.tensor([12.0, 20.0])).abs().amax(dim=-1) < 1
    assert torch.equal(seen[0][0, 0] != 0, near) and near.any()


def test_features_of_the_radiographs_resolution_reach_the_volumes_last_level() -> None:
    made = network()
    _, scales = made.branches[0].encode(radiographs(1))
    assert [scale.shape[-1] for scale in scales] == [16, 32], "half of both, and all of both"
    _, scales = network(decoder_channels=(8, 4)).branches[0].encode(radiographs(1))
    assert [scale.shape[-1] for scale in scales] == [16]


@torch.no_grad()
def test_one_view_needs_nothing_to_fuse_it() -> None:
    made = network("circle-1")
    assert made.fusion is None and len(made.branches) == 1
    assert made(radiographs(1)).shape == (1, 1, SIZE, SIZE, SIZE)
    with pytest.raises(ValueError, match=r"image must be \(B, 1, H, W\)"):
        made(radiographs(2))


def test_dropout_of_the_coarse_volume_is_off_in_evaluation() -> None:
    made = network()
    assert torch.equal(made(radiographs()), made(radiographs()))
    made.train()
    assert not torch.equal(made(radiographs()), made(radiographs()))


def test_parameters_of_the_published_sizes() -> None:
    both, single = X2CTGenerator(), X2CTGenerator(geometry="circle-1")
    discriminator = PatchDiscriminator(in_channels=3, norm="instance", last_stride=1, head_size=4)
    counts = [parameters(one) / 1e6 for one in (both, single, discriminator)]
    assert counts == pytest.approx([60.9, 28.9, 11.1], abs=0.05)


@pytest.mark.parametrize(
    "sizes", [{"volume_size": 18}, {"decoder_channels": (8,)}, {"decoder_channels": (8, 4, 4, 4)}], ids=str
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="volume_size must be a multiple of"):
        X2CTGenerator(**{"volume_size": SIZE, "decoder_channels": (8, 4, 4)} | MINIATURE | sizes)


def test_discriminator_is_shown_each_radiograph_along_its_rays() -> None:
    image = torch.zeros(1, 2, 32, 32)
    image[0, 1] = torch.linspace(0, 6, 32)[:, None]  # rows: the patient's height
    lifted = LiftedRadiographs(SIZE)(image, matrices())
    assert lifted.shape == (1, 2, SIZE, SIZE, SIZE) and not lifted[:, 0].any()
    heads_up = lifted[0, 1, SIZE // 2, SIZE // 2, 2:-2]  # the others project beyond the detector
    assert (heads_up.diff() < 0).all() and 0 <= heads_up.min() and heads_up.max() <= 1, "row 0 is the head's"
    centers = voxel_centers((SIZE,) * 3, 320 / SIZE).float().view(-1, 3)
    where = detector_coordinates(centers, matrices()[0, 1]).view(SIZE, SIZE, SIZE, 2)
    inside = where.abs().amax(dim=-1) < 0.95
    expected = ((where[..., 1] + 1) * 16 - 0.5) / 31
    torch.testing.assert_close(lifted[0, 1][inside], expected[inside], atol=1e-4, rtol=0)
