"""The law that a table cannot replace: on unseen tiny phantoms every method beats the mean of the training volumes.

Each training ends as soon as the law holds, so that a test takes as long as its method needs.
"""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from tests.test_contracts import NETWORKS
from trct_monai.baselines import MeanVolume
from trct_monai.geometry import DEFAULT_EXTENT, preset
from trct_monai.intensity import hu_to_attenuation, hu_to_unit
from trct_monai.networks import SliceUNet
from trct_monai.phantoms import phantom_series, thorax_phantom
from trct_monai.projector import project

pytestmark = pytest.mark.slow

SIZE, TRAINING, UNSEEN, MARGIN = 16, 48, 12, 0.5  # MARGIN in dB


def learns(
    network: torch.nn.Module, lr: float, steps: int, loss: Callable[[], torch.Tensor], wrong: Callable[[], str]
) -> None:
    """Train, and judge every 50 steps: `wrong` says what does not hold yet. It must hold within so many steps."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr)
    reason = ""
    for step in range(1, steps + 1):
        value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            network.eval()
            with torch.no_grad():
                reason = wrong()
            network.train()
            if not reason:
                return
    pytest.fail(f"after {steps} steps {reason}")


@pytest.fixture(scope="module")
def cases() -> tuple[torch.Tensor, torch.Tensor]:
    """Radiographs (N, 2, 32, 32) and volumes (N, 1, 16, 16, 16) in [0, 1] of healthy phantoms."""
    volumes = [torch.from_numpy(thorax_phantom(seed, SIZE, findings=()).ct_hu) for seed in range(TRAINING + UNSEEN)]
    hu = torch.stack(volumes)[:, None]
    return project(hu_to_attenuation(hu), preset("x2ct", 32), DEFAULT_EXTENT / SIZE), hu_to_unit(hu)


def psnr(prediction: torch.Tensor, truth: torch.Tensor) -> float:
    return float(-10 * (prediction - truth).square().mean(dim=(1, 2, 3, 4)).log10().mean())


@pytest.mark.parametrize("name", NETWORKS)
def test_beats_the_mean_volume_on_unseen_phantoms(name: str, cases: tuple[torch.Tensor, torch.Tensor]) -> None:
    image, label = cases
    baseline = MeanVolume(SIZE).fit(label[:TRAINING])
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = NETWORKS[name](SIZE).train()
    if hasattr(network, "start_from"):
        network.start_from(baseline.volume)
    if hasattr(network, "linear_start"):
        network.linear_start.fit(label[:TRAINING])
    mean = psnr(baseline(image[TRAINING:]), label[TRAINING:])

    def loss() -> torch.Tensor:
        chosen = torch.randperm(TRAINING, generator=generator)[:8]
        return F.l1_loss(network(image[chosen]), label[chosen])

    def wrong() -> str:
        own, shuffled = (psnr(network(x), label[TRAINING:]) for x in (image[TRAINING:], image[TRAINING:].roll(1, 0)))
        if own <= mean + MARGIN:
            return f"{own:.2f} dB against {mean:.2f} dB of the mean volume"
        if own <= shuffled + MARGIN:
            return f"another patient's radiographs give {shuffled:.2f} of {own:.2f} dB: the input is ignored"
        return ""

    learns(network, 2e-3, 200, loss, wrong)


def test_the_phase_generator_beats_the_identity_where_it_moves_and_does_no_harm() -> None:
    """On unseen breathing phantoms, with the kind of loss that the bundle has."""
    series = [torch.from_numpy(phantom_series(seed, 32, 2, findings=())) for seed in range(20)]
    average, phase = (
        hu_to_unit(torch.stack(volumes)).permute(0, 3, 1, 2).flatten(0, 1)[:, None]
        for volumes in ([each.mean(dim=0) for each in series], [each[0] for each in series])
    )  # (20 * 32, 1, 32, 32)
    training, generator = 16 * 32, torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = SliceUNet(1, (16, 32, 64)).train()
    identity = 2500 * (average[training:] - phase[training:]).abs()
    moves = identity > 50
    still_air = (average[training:] < 0.03) & ~moves  # below -950 HU

    def loss() -> torch.Tensor:
        chosen = torch.randperm(training, generator=generator)[:32]
        return F.smooth_l1_loss(network(average[chosen]), phase[chosen], beta=0.1)

    def wrong() -> str:
        own = 2500 * (network(average[training:]) - phase[training:]).abs()
        if own[moves].mean() >= 0.8 * identity[moves].mean():
            return f"{own[moves].mean():.1f} of {identity[moves].mean():.1f} HU where it moves"
        if own[~moves].mean() >= identity[~moves].mean() + 10:
            return f"{own[~moves].mean():.1f} HU where nothing moves"
        harm = float((own - identity)[still_air].abs().quantile(0.99))
        return f"{harm:.1f} HU in still air" if harm >= 5 else ""

    learns(network, 3e-3, 800, loss, wrong)
