"""Training the plain networks in a bare loop: the bundles' losses and optimisers, without an engine."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from monai.bundle import ConfigParser
from plain import inputs, plain
from plain_geometry import field_values, lift, project, slices_on_rays
from torch import Tensor, nn

from trct_monai.intensity import unit_to_attenuation

Batch = dict[str, Tensor]
Step = Callable[[Batch], Tensor]

ELSEWHERE = ("ssim_weight", "edge_weight", "frequency_weight", "perceptual_weight")
"""Terms of the loss that the plain code has not: the small sizes go without them."""

LARGEST = 6.0
"""Line integral that is one to X2CT-GAN's discriminator."""


def make_step(parser: ConfigParser) -> Step:
    """One training step of a batch, for the network that a configuration describes; it gives the network's loss."""
    unknown = [key for key in ELSEWHERE if parser.config.get(key)]
    if unknown:
        raise SystemExit(f"the plain code has no {', '.join(unknown)}: set them to 0")
    network, optimizer = (parser.get_parsed_content(key) for key in ("network", "optimizer"))
    model, config = plain(network).train(), parser.config
    if "discriminator_def" in config:
        discriminator, its_optimizer = (
            parser.get_parsed_content(key) for key in ("discriminator", "discriminator_optimizer")
        )
        return adversarial_step(model, optimizer, discriminator, its_optimizer, config)

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        if "num_points" in config:
            loss = field_loss(network, model, batch, config)
        else:
            loss = reconstruction_loss(model, model(*inputs(network, batch)), batch["label"], config)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def field_loss(network: nn.Module, model: nn.Module, batch: Batch, config: dict[str, Any]) -> Tensor:
    """Mean squared error at random points."""
    points = config["extent"] * (torch.rand(config["num_points"], 3) - 0.5)
    (values,) = model(*inputs(network, batch), points)
    return F.mse_loss(values, field_values(batch["label"], points, config["extent"]))


def adversarial_step(
    model: Any,
    optimizer: torch.optim.Optimizer,
    discriminator: nn.Module,
    its_optimizer: torch.optim.Optimizer,
    config: dict[str, Any],
) -> Step:
    """The generator's step, then the discriminator's, first on the label and then on the prediction."""

    def judge(batch: Batch, volume: Tensor) -> Tensor:
        volume, middle = volume.clamp(0, 1), batch["image"].shape[1] // 2
        if "slice_size" in config:  # pix2pix: the discriminator sees the slice to be corrected, too
            volume = torch.cat([batch["image"][:, middle : middle + 1], volume], dim=1)
        elif "lifted" in config:  # X2CT-GAN: it sees the radiographs along their rays, too
            unit = (batch["image"] / LARGEST).clamp(0, 1)[:, :, None]
            lifted = lift(unit, model.ours.matrices[None], volume.shape[-1], config["extent"])
            volume = torch.cat([lifted[:, :, 0], volume], dim=1)
        scores: Tensor = discriminator(volume)
        return scores

    def against(scores: Tensor, target: float) -> Tensor:
        loss = F.binary_cross_entropy_with_logits if "slice_size" in config else F.mse_loss
        return loss(scores, torch.full_like(scores, target))

    def step(batch: Batch) -> Tensor:
        optimizer.zero_grad()
        volumes = model(batch["image"])
        loss = reconstruction_loss(model, volumes, batch["label"], config)
        loss = loss + config["adversarial_weight"] * against(judge(batch, volumes[0]), 1.0)
        loss.backward()
        optimizer.step()

        its_optimizer.zero_grad()
        real = against(judge(batch, batch["label"]), 1.0)
        fake = against(judge(batch, volumes[0].detach()), 0.0)
        (0.5 * (real + fake)).backward()
        its_optimizer.step()
        return loss.detach()

    return step


def reconstruction_loss(model: Any, volumes: list[Tensor], target: Tensor, config: dict[str, Any]) -> Tensor:
    """The terms that have a weight."""
    difference = F.smooth_l1_loss(volumes[0], target, beta=config.get("l1_beta", 0.0))
    loss = config.get("l1_weight", 0.0 if "lifted" in config else 1.0) * difference
    if config.get("mse_weight"):
        loss = loss + config["mse_weight"] * F.mse_loss(volumes[0], target)
    deep = config.get("deep_weight", config.get("multi_scale_weight"))
    if deep:
        for scale, volume in enumerate(volumes):
            coarse = F.interpolate(target, size=volume.shape[2:], mode="area")
            loss = loss + deep * 0.5**scale * F.l1_loss(volume, coarse)
    if config.get("projection_weight"):
        loss = loss + config["projection_weight"] * projection_loss(model.ours, volumes[0], target, config["hu_window"])
    return loss


def projection_loss(network: Any, volume: Tensor, target: Tensor, hu_window: list[float]) -> Tensor:
    """Difference of the radiographs of two volumes, 64 x 64 pixels, in units of a beam through a cube of ones."""
    rays = slices_on_rays(network.matrices[None], 64, volume.shape[-1], network.extent)
    one, other = (project(unit_to_attenuation(unit, hu_window), *rays) for unit in (volume, target))
    beam = unit_to_attenuation(torch.ones(()), hu_window) * network.extent
    return F.l1_loss(one, other) / beam
