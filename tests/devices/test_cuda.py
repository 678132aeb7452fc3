"""What only a GPU can show: that it agrees with the CPU, in half precision too, and that nobody waits for it."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from tests.bundles.miniature import arguments, files, smoke, without_pictures
from tests.bundles.sources import RADIOGRAPHS, name
from tests.devices.test_laws import LOSSES
from tests.projector.setups import SHAPE, SIZE, random, setups
from tests.test_contracts import METHODS, NETWORKS, perturbed, radiographs
from tests.training.test_handlers import Run
from trct_monai.geometry import preset, projection_matrices
from trct_monai.losses import LaplaceNLLLoss, LeastSquaresAdversarialLoss, LogitAdversarialLoss
from trct_monai.metrics import HUMetric
from trct_monai.networks import IntervalNetwork, PatchDiscriminator, VolumeRefiner
from trct_monai.physics import degrade, harden
from trct_monai.projector import backproject, project
from trct_monai.transforms import RandRadiographd, UnitToHUd

pytestmark = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DEVICE = torch.device("cuda")

OTHERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "refiner": (VolumeRefiner(1, features=4, growth=2), (1, 1, 8, 8, 8)),
    "discriminator": (PatchDiscriminator(channels=(4, 8)), (2, 1, 16, 16, 16)),
}


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions in float32, not in TF32, which differs from the CPU by 1e-3."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def distance(one: Tensor, other: Tensor) -> float:
    """|one - other| / |other|."""
    a, b = (tensor.detach().double().cpu().flatten() for tensor in (one, other))
    return float((a - b).norm() / b.norm().clamp(min=1e-12))


def step(
    network: nn.Module, image: Tensor, device: torch.device, dtype: torch.dtype | None = None
) -> tuple[Tensor, Tensor]:
    """A network's volume and all gradients of its mean square, which is scaled as in half precision."""
    network = deepcopy(network).to(device).train()
    scale = 2.0**10
    with torch.autocast(device.type, enabled=dtype is not None, dtype=dtype):
        volume = network(image.to(device))
        loss = volume.float().square().mean()
    (scale * loss).backward()
    gradients = [p.grad.flatten() / scale for p in network.parameters() if p.grad is not None]
    return volume.detach().float().cpu(), torch.cat(gradients).cpu()


@pytest.mark.parametrize("method", NETWORKS)
def test_a_step_of_every_network_agrees_with_the_cpu(method: str) -> None:
    network, image = perturbed(NETWORKS[method](8)), radiographs()
    volume, gradient = step(network, image, torch.device("cpu"))
    on_gpu, gradient_on_gpu = step(network, image, DEVICE)
    assert distance(on_gpu, volume) < 1e-4 and distance(gradient_on_gpu, gradient) < 1e-2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_the_cpu(method: str) -> None:
    network, image = perturbed(METHODS[method](8)).eval(), radiographs()
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(network.to(DEVICE)(image.to(DEVICE)).cpu(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("method", NETWORKS)
def test_half_precision_is_finite_and_close_to_float32(method: str, dtype: torch.dtype) -> None:
    network, image = perturbed(NETWORKS[method](8)), radiographs()
    volume, gradient = step(network, image, DEVICE)
    half, half_gradient = step(network, image, DEVICE, dtype)
    assert half.isfinite().all() and half_gradient.isfinite().all()
    tolerance = {torch.bfloat16: 0.2, torch.float16: 0.05}[dtype]
    assert distance(half, volume) < 0.05 and distance(half_gradient, gradient) < tolerance


@pytest.mark.parametrize("part", OTHERS)
def test_refiner_and_discriminator_agree_with_the_cpu(part: str) -> None:
    (network, shape), generator = OTHERS[part], torch.Generator().manual_seed(0)
    image = torch.rand(shape, generator=generator)
    volume, gradient = step(network, image, torch.device("cpu"))
    on_gpu, gradient_on_gpu = step(network, image, DEVICE)
    assert distance(on_gpu, volume) < 1e-3 and distance(gradient_on_gpu, gradient) < 1e-2


def test_intervals_agree_with_the_cpu() -> None:
    network, image = IntervalNetwork(perturbed(NETWORKS["any_view"](8)), 4).eval(), radiographs()
    network.factors.fill_(1.0)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(network.to(DEVICE)(image.to(DEVICE)).cpu(), expected, atol=1e-3, rtol=1e-3)


def test_pictures_are_calibrated_as_on_the_cpu() -> None:
    network, image = NETWORKS["any_view"](8).eval(), radiographs()
    network.linear_start.fit([random(1, 8, 8, 8, dtype=torch.float32, seed=seed) for seed in range(4)])
    matrices = projection_matrices(preset("x2ct"))[None].expand(2, -1, -1, -1)
    calibrated = torch.tensor([[True, False], [False, True]])
    expected, _ = network.calibrate(image, matrices, calibrated)
    for given in (matrices, matrices.to(DEVICE)):
        on_gpu, _ = network.to(DEVICE).calibrate(image.to(DEVICE), given, calibrated)
        assert distance(on_gpu, expected) < 1e-3


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_agrees_with_the_cpu(loss: str) -> None:
    results = []
    for device in (torch.device("cpu"), DEVICE):
        torch.manual_seed(0)
        volume, target = (random(1, 1, 16, 16, 16, dtype=torch.float32, seed=s).to(device) for s in (0, 1))
        value = LOSSES[loss].to(device)(volume.requires_grad_(), target)
        value.backward()
        results.append((value, volume.grad))
    (value, gradient), (on_gpu, gradient_on_gpu) = results
    assert distance(on_gpu, value) < 1e-4 and distance(gradient_on_gpu, gradient) < 1e-2


def test_losses_of_scores_and_spreads_agree_with_the_cpu() -> None:
    scores, volumes, target = (
        random(*shape, dtype=torch.float32) for shape in ((2, 1, 3, 3, 3), (1, 2, 4, 4, 4), (1, 1, 4, 4, 4))
    )
    for loss in (LogitAdversarialLoss(), LeastSquaresAdversarialLoss()):
        assert distance(loss(scores.to(DEVICE), True, True), loss(scores, True, True)) < 1e-5
    volumes[:, 1] += 0.1
    assert distance(LaplaceNLLLoss()(volumes.to(DEVICE), target.to(DEVICE)), LaplaceNLLLoss()(volumes, target)) < 1e-5


@setups
@pytest.mark.parametrize("method", ["auto", "slab", "reference"])
def test_every_projector_agrees_with_the_cpu(cameras: Any, volume_kwargs: dict[str, Any], method: Any) -> None:
    volume, images = random(2, 1, *SHAPE), random(2, len(cameras), *SIZE, seed=1)
    expected = project(volume, cameras, method=method, **volume_kwargs)
    spread = backproject(images, cameras, SHAPE, method=method, **volume_kwargs)
    torch.testing.assert_close(project(volume.to(DEVICE), cameras, method=method, **volume_kwargs).cpu(), expected)
    on_gpu = backproject(images.to(DEVICE), cameras, SHAPE, method=method, **volume_kwargs)
    torch.testing.assert_close(on_gpu.cpu(), spread)


@pytest.mark.parametrize("metric", ["psnr", "ssim", "mae"])
def test_metrics_and_hu_of_a_gpu_agree_with_the_cpu(metric: Any) -> None:
    values = []
    for device in (torch.device("cpu"), DEVICE):
        unit = {
            key: random(1, 16, 16, 16, dtype=torch.float32, seed=s).to(device)
            for s, key in enumerate(("pred", "label"))
        }
        measured = HUMetric(metric)
        pred, label = measured._output_transform([UnitToHUd(["pred", "label"])(unit)])
        values.append(float(measured.metric_fn(pred, label)[0]))
    assert values[1] == pytest.approx(values[0], rel=1e-4)


def test_physics_of_radiographs_on_a_gpu() -> None:
    image = 2 * random(1, 2, 16, 16, dtype=torch.float32)
    for change in (
        lambda x: harden(x, 120.0),
        lambda x: degrade(x, (1.0, 1.0), scatter_fraction=0.2, detector_sigma_mm=1.0),
    ):
        assert distance(change(image.to(DEVICE)), change(image)) < 1e-5
    noisy = RandRadiographd(prob=1.0).set_random_state(0)({"image": image[0].to(DEVICE)})["image"]
    assert noisy.device.type == DEVICE.type and noisy.isfinite().all()


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_a_training_step_does_not_wait(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    """PyTorch itself says who waits; see `tests.devices.accelerator` for the same law without a GPU."""
    config = files(bundle, "train.json", smoke(bundle))
    parser = ConfigParser(ConfigParser.load_config_files(config))
    options = arguments(bundle, phantoms, tmp_path) | without_pictures(config)
    # MONAI's SSIM copies its window in each call.
    parser.update(options | {"ssim_weight": 0.0, "adversarial_start": 0, "device": f"$torch.device('{DEVICE.type}')"})
    trainer = parser.get_parsed_content("train::trainer")
    trainer.scaler = torch.amp.GradScaler(DEVICE.type, enabled=False)
    trainer.state.epoch, trainer.state.epoch_length = 1, 100
    batch = next(iter(parser.get_parsed_content("train::dataloader")))
    for trainer.state.iteration in (1, 2):
        trainer._iteration(trainer, batch)
    trainer.state.iteration = 3
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer._iteration(trainer, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_random_numbers_of_a_gpu_are_those_of_the_epoch(tmp_path: Path) -> None:
    """Dropout draws on the GPU: a resumed training draws there what one that was never stopped draws."""
    expected = Run(tmp_path / "whole", 4, device=DEVICE).weights()
    Run(tmp_path / "parts", 2, device=DEVICE).weights()
    assert torch.equal(Run(tmp_path / "parts", 4, resume=True, device=DEVICE).weights(), expected)
