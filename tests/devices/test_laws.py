"""Nothing makes a tensor on the wrong device, and a training step waits for the device only where it must.

There is no GPU in continuous integration; see `tests.devices.accelerator` for what stands in for one.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.devices.accelerator import ACCELERATOR, MAY_WAIT_IN_A_STEP, WrongDeviceError, accelerator
from tests.projector.setups import SETUPS, SHAPE, SIZE, setups
from tests.test_contracts import METHODS, NETWORKS
from trct_monai import losses, physics
from trct_monai.geometry import preset, projection_matrices
from trct_monai.metrics import HUMetric
from trct_monai.networks import PatchDiscriminator, VolumeRefiner
from trct_monai.projector import backproject, project, project_polyenergetic
from trct_monai.transforms import PrepareViews, RandPosed, RenderViews, UnitToHUd

LOSSES: dict[str, nn.Module] = {
    "deep supervision": losses.DeepSupervisionLoss(nn.L1Loss()),
    "edge": losses.EdgeLoss(),
    "frequency": losses.FrequencyLoss(),
    "perceptual": losses.PerceptualLoss("random", num_slices=1),
    "projection": losses.ProjectionLoss(size=8),
    "emphasis": losses.EmphasisLoss(torch.nn.L1Loss(), 1.0),
    "psnr": losses.PSNRLoss(),
    "ssim": losses.SSIMLoss(),
    "weighted sum": losses.WeightedSumLoss({"l1": nn.L1Loss(), "l2": nn.MSELoss()}, {"l1": 1.0, "l2": 2.0}),
}


def on_accelerator(*shape: int, **options: Any) -> Tensor:
    return torch.rand(*shape, device=ACCELERATOR, **options)


def test_the_accelerator_refuses_two_devices_and_sees_who_waits() -> None:
    with accelerator() as seen:
        x = on_accelerator(3, 3)
        for wrong in (lambda: x + torch.rand(3), lambda: x @ torch.rand(3, 3)):
            with pytest.raises(WrongDeviceError):
                wrong()
        assert not seen.waits
        free = x * torch.tensor(2.0) + torch.rand(3).to(ACCELERATOR, non_blocking=True)
        free[:, torch.zeros(1, dtype=torch.long, device=ACCELERATOR)].sum()
        assert not seen.waits
        waiting = (
            lambda: float(x.sum()),
            lambda: bool((x > 0).all()),
            lambda: x.cpu(),
            lambda: x.tolist(),
            lambda: x[x > 0],
            lambda: x.nonzero(),
            lambda: torch.rand(3).to(ACCELERATOR),
            lambda: torch.tensor([1.0], device=ACCELERATOR),
            lambda: x.new_tensor([1.0]),
            lambda: torch.linalg.solve(x, x),
        )
        for number, action in enumerate(waiting):
            action()
            assert len(seen.waits) > number, number


@pytest.mark.parametrize("method", METHODS)
def test_every_method_stays_on_the_device_of_its_radiographs(method: str) -> None:
    network = METHODS[method](8).to(ACCELERATOR).train()
    matrices = projection_matrices(preset("x2ct"))[None].expand(2, -1, -1, -1)
    with accelerator() as seen:
        image = on_accelerator(2, 2, 32, 32)
        result = network(image, matrices) if method == "any_view" else network(image)
        assert result.device == ACCELERATOR
        if method in NETWORKS:
            result.square().mean().backward()
            assert not seen.waits


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_stays_on_the_device_of_its_volumes(loss: str) -> None:
    module = LOSSES[loss].to(ACCELERATOR)
    with accelerator() as seen:
        module(on_accelerator(1, 1, 8, 8, 8, requires_grad=True), on_accelerator(1, 1, 8, 8, 8)).backward()
    assert not {wait.place for wait in seen.waits} - set(MAY_WAIT_IN_A_STEP)


@pytest.mark.parametrize("loss", [losses.LogitAdversarialLoss(), losses.LeastSquaresAdversarialLoss()], ids=repr)
def test_discriminator_and_adversarial_losses_do_not_wait(loss: nn.Module) -> None:
    discriminator = PatchDiscriminator(channels=(4, 8)).to(ACCELERATOR)
    with accelerator() as seen:
        scores = discriminator(on_accelerator(2, 1, 16, 16, 16))
        (loss(scores, True, True) + loss(scores, False, True)).backward()
    assert not seen.waits


def test_refiner_and_interval_likelihood_do_not_wait() -> None:
    refiner = VolumeRefiner(1, features=4, growth=2).to(ACCELERATOR)
    with accelerator() as seen:
        refiner(on_accelerator(1, 1, 8, 8, 8)).mean().backward()
        losses.LaplaceNLLLoss()(on_accelerator(1, 2, 4, 4, 4), on_accelerator(1, 1, 4, 4, 4))
    assert not seen.waits


@setups
@pytest.mark.parametrize("method", ["auto", "slab", "reference"])
def test_every_projector_stays_on_the_device_and_does_not_wait(
    cameras: Any, volume_kwargs: dict[str, Any], method: Any
) -> None:
    with accelerator() as seen:
        volume = on_accelerator(1, 1, *SHAPE, requires_grad=True)
        project(volume, cameras, method=method, **volume_kwargs).sum().backward()
        backproject(on_accelerator(1, len(cameras), *SIZE), cameras, SHAPE, method=method, **volume_kwargs)
    assert not seen.waits


def test_physics_stays_on_the_device() -> None:
    cameras, kwargs = SETUPS["x2ct"]
    with accelerator():
        integrals = project(on_accelerator(1, 1, *SHAPE), cameras, **kwargs)
        physics.degrade(integrals, (1.0, 1.0), scatter_fraction=0.2, photons=1e4, detector_sigma_mm=1.0)
        physics.harden(integrals, 120.0)
        project_polyenergetic(on_accelerator(1, 8, 8, 8), cameras, 20.0, 120.0)
        with pytest.raises(WrongDeviceError, match="generator of the CPU"):
            physics.degrade(integrals, (1.0, 1.0), photons=1e4, generator=torch.Generator())


def test_radiographs_are_rendered_and_changed_on_the_device_without_waiting() -> None:
    render = RenderViews(radiograph_size=16, augmentation=1.0, min_views=1)
    with accelerator() as seen:
        image, label, _, _ = render({"label": torch.rand(2, 1, 16, 16, 16)}, ACCELERATOR, non_blocking=True)
    assert image.device == label.device == ACCELERATOR
    assert not seen.waits


def test_metrics_and_transforms_stay_on_the_device() -> None:
    metric = HUMetric("ssim")
    with accelerator():
        matrices = projection_matrices(preset("x2ct")).to(ACCELERATOR)
        assert RandPosed("matrices", prob=1.0)({"matrices": matrices})["matrices"].device == ACCELERATOR
        volumes = [on_accelerator(1, 8, 8, 8) for _ in range(2)]
        case = UnitToHUd(["pred", "label"])(dict(zip(("pred", "label"), volumes)))
        metric.update(metric._output_transform([case]))
        assert case["pred"].device == ACCELERATOR


def test_drawn_views_do_not_wait_and_matrices_stay_where_cameras_are_read() -> None:
    prepare = PrepareViews(min_views=1)
    batch = {"image": torch.rand(2, 3, 4, 4), "label": torch.rand(2, 1, 4, 4, 4), "matrices": torch.rand(2, 3, 3, 4)}
    with accelerator() as seen:
        image, label, _, named = prepare(batch, ACCELERATOR, non_blocking=True)
    assert image.device == label.device == ACCELERATOR and named["matrices"].device.type == "cpu"
    assert not seen.waits
