"""Each bundle's architecture in the plainest PyTorch, as a notebook would write it.

A class is built around the network of a bundle and shares its parameters: convolutions, linear layers and blocks that
are nothing but such are taken over, all else is written out. Attention is softmax(QK^T)V with all its weights in
memory, projections are one `grid_sample` of all points, nothing is checkpointed, fused or kept for the next step. There
are no absent views, no scales left out and no half precision. The results are those of our networks in training, a list
of volumes with the finest first; tests compare them.
"""

from math import log
from typing import Any

import torch
import torch.nn.functional as F
from monai.networks.utils import pixelunshuffle
from plain_geometry import (
    centers,
    directions,
    field_values,
    lift,
    lift_with_direction,
    project,
    slices_on_rays,
    sources,
)
from torch import Tensor, nn

from trct_monai.intensity import attenuation_per_unit, unit_to_attenuation


class Plain(nn.Module):
    """A network around one of ours."""

    def __init__(self, ours: nn.Module) -> None:
        super().__init__()
        self.ours: Any = ours

    def positions(self, size: int) -> Tensor:
        """Encoded positions of a grid's cells, (size, size, size, F)."""
        encoded: Tensor = self.ours.positions(centers(size, 2.0))
        return encoded

    def scaled(self, image: Tensor) -> Tensor:
        """Radiographs as the encoders take them."""
        return (image - self.ours.image_mean) / self.ours.image_scale


def resized(volume: Tensor, size: int) -> Tensor:
    """A cube, averaged or interpolated."""
    mode = "area" if volume.shape[-1] > size else "trilinear"
    return volume if volume.shape[-1] == size else F.interpolate(volume, size=(size,) * 3, mode=mode)


def pyramid(start: Tensor, residuals: list[Tensor]) -> list[Tensor]:
    """A volume with the residuals of all scales added up, the finest first."""
    correction, volumes = torch.zeros_like(residuals[0]), []
    for residual in residuals:
        correction = resized(correction, residual.shape[-1]) + residual
        volumes.append(resized(start, residual.shape[-1]) + correction)
    return volumes[::-1]


def attend(layer: Any, x: Tensor, context: Tensor, bias: Tensor | None = None) -> Tensor:
    """softmax(QK^T / sqrt(d) + bias) V with the three linear layers of our attention."""
    query = layer.query(x).unflatten(-1, (layer.num_heads, -1)).transpose(1, 2)
    key, value = layer.key_value(context).unflatten(-1, (2, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    logits = query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    result: Tensor = layer.out((weights @ value).transpose(1, 2).flatten(2))
    return result


def transformer_block(block: Any, x: Tensor, context: Tensor, condition: Tensor, bias: Tensor) -> Tensor:
    """Self-attention, cross-attention and MLP, modulated by a condition."""
    parts = block.modulation(condition)[:, None].chunk(9, dim=-1)
    y = block.norms[0](x) * (1 + parts[1]) + parts[0]
    x = x + parts[2] * attend(block.self_attention, y, y)
    y = block.norms[1](x) * (1 + parts[4]) + parts[3]
    x = x + parts[5] * attend(block.cross_attention, y, context, bias)
    y = block.norms[2](x) * (1 + parts[7]) + parts[6]
    return x + parts[8] * block.mlp(y)


def ray_tokens(layer: Any, matrices: Tensor, size: int, extent: float) -> tuple[Tensor, Tensor, Tensor]:
    """Embedded course of each ray (B, M, F), its point nearest to the isocentre and its direction (B, M, 3)."""
    rays = directions(matrices, size).flatten(2, 3)
    source = sources(matrices)[:, :, None]
    nearest = source - (source * rays).sum(dim=-1, keepdim=True) * rays
    steps = torch.linspace(-1, 1, 8)[:, None]
    course = nearest[..., None, :] / (extent / 2) + steps * rays[..., None, :]
    embedded = layer.ray_embedding(layer.positions(course).flatten(-2))
    return embedded.flatten(1, 2), nearest.flatten(1, 2), rays.flatten(1, 2)


def radiograph_tokens(layer: Any, features: Tensor, matrices: Tensor, grid_size: int) -> tuple[Tensor, Tensor]:
    """Feature maps as tokens, and the bias that falls with the squared distance between voxel and ray."""
    embedded, nearest, rays = ray_tokens(layer, matrices, features.shape[-1], layer.extent)
    tokens = layer.norm(features.permute(0, 1, 3, 4, 2).flatten(1, 3) + embedded)
    offset = centers(grid_size, layer.extent).view(1, -1, 1, 3) - nearest[:, None]
    distance = offset.square().sum(dim=-1) - (offset * rays[:, None]).sum(dim=-1).square()
    return tokens, -layer.slopes[:, None, None] * distance.clamp(min=0)[:, None]


class DirectRegression(Plain):
    """`trct_monai.networks.DirectRegression` without finer levels."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Radiographs to a volume."""
        net, x = self.ours, self.scaled(image)
        features = torch.stack([encoder(x[:, v : v + 1])[-1] for v, encoder in enumerate(net.encoders)], dim=1)
        context, bias = radiograph_tokens(net.tokens, features, net.matrices[None], net.grid_size)
        statistics = torch.stack([x.mean(dim=(2, 3)), x.std(dim=(2, 3))], dim=-1)
        condition = net.condition(torch.cat([features.mean(dim=(3, 4)), statistics], dim=-1).flatten(1))
        cells = net.patch_embedding(net.initial_volume).flatten(2).transpose(1, 2)
        cells = cells + net.position_embedding(self.positions(net.grid_size).flatten(0, 2))
        cells = cells.expand(len(image), -1, -1)
        for block in net.blocks:
            cells = transformer_block(block, cells, context, condition, bias)
        x = cells.transpose(1, 2).unflatten(2, (net.grid_size,) * 3)
        for level, block in enumerate(net.decoder):
            x = block(F.interpolate(x, scale_factor=2, mode="trilinear") if level else x)
        return [net.initial_volume + net.head(x)]


class TRCTGenerator(Plain):
    """`trct_monai.networks.TRCTGenerator` with queries of the volume's cells."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Radiographs to a volume."""
        net, x = self.ours, self.scaled(image)
        views = []
        for view, (encoder, attention) in enumerate(zip(net.encoders, net.attention)):
            *finer, coarsest = encoder(x[:, view : view + 1])
            views.append([attention(coarsest), *finer[::-1], (*finer, coarsest)[0]])
        x = self.bridge(torch.stack([features[0] for features in views], dim=1))
        for level, block in enumerate(net.levels):
            x = F.interpolate(x, scale_factor=2, mode=net.upsampling) if level else x
            reduced = [net.skips[level * len(views) + v](features[level]) for v, features in enumerate(views)]
            lifted = lift(torch.stack(reduced, dim=1), net.matrices[None], x.shape[-1], net.extent)
            x = block(torch.cat([x, lifted.flatten(1, 2)], dim=1))
        return [net.initial_volume + torch.tanh(net.head(x))]

    def bridge(self, features: Tensor) -> Tensor:
        """The coarsest features (B, V, F, h, w) to a coarse volume."""
        bridge = self.ours.bridge
        context, bias = radiograph_tokens(bridge.tokens, features, self.ours.matrices[None], bridge.grid_size)
        condition = bridge.condition(features.mean(dim=(3, 4)).flatten(1))
        place = bridge.position_embedding(bridge.positions(centers(bridge.grid_size, 2.0)).flatten(0, 2))
        x = (bridge.queries + place).expand(len(features), -1, -1)
        for block in bridge.blocks:
            x = transformer_block(block, x, context, condition, bias)
        return x.transpose(1, 2).unflatten(2, (bridge.grid_size,) * 3)


class X2CTGenerator(Plain):
    """`trct_monai.networks.X2CTGenerator` with two views."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Radiographs to a volume."""
        net, x = self.ours, self.scaled(image)
        scales, volumes = [], []
        for view, branch in enumerate(net.branches):
            *finer, last = branch.encoder(x[:, view : view + 1])
            scales.append([flat(features) for flat, features in zip(branch.flat, finer[::-1])])
            volumes.append(branch.volume(last))
        fused = mean = sum(volumes) / len(volumes)
        for level in range(len(scales[0])):
            volumes = []
            for view, branch in enumerate(net.branches):
                matrices = net.matrices[None, view : view + 1]
                lifted = lift(scales[view][level][:, None], matrices, 2 * mean.shape[-1], net.extent)[:, 0]
                volumes.append(self.joined(branch.decoder, level, mean, branch.links[level](lifted)))
            mean = sum(volumes) / len(volumes)
            fused = self.joined(net.fusion, level, fused, mean)
        return [net.initial_volume + net.head(fused)]

    def joined(self, decoder: Any, level: int, volume: Tensor, features: Tensor) -> Tensor:
        """A volume, doubled, with features of its new size."""
        doubled = F.interpolate(decoder.ups[level](volume), scale_factor=2, mode="trilinear")
        result: Tensor = decoder.blocks[level](torch.cat([doubled, features], dim=1))
        return result


class MultiScaleCNN(Plain):
    """`trct_monai.networks.MultiScaleCNN`: stage 1."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Radiographs to volumes of several scales."""
        net, x = self.ours, self.scaled(image)
        views = [encoder(x[:, v : v + 1])[::-1] for v, encoder in enumerate(net.encoders)]
        size = net.volume_size // 2 ** len(net.levels)
        x = self.positions(size).movedim(-1, 0).expand(len(image), -1, -1, -1, -1)
        residuals = []
        for level, block in enumerate(net.levels):
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            reduced = [net.skips[level * len(views) + v](features[level]) for v, features in enumerate(views)]
            lifted = lift(torch.stack(reduced, dim=1), net.matrices[None], x.shape[-1], net.extent)
            x = block(torch.cat([x, lifted.flatten(1, 2)], dim=1))
            if str(level) in net.heads:
                residuals.append(net.heads[str(level)](x))
        return pyramid(net.initial_volume, residuals)


class HybridCNNViT(Plain):
    """`trct_monai.networks.HybridCNNViT`."""

    def forward(self, image: Tensor, matrices: Tensor) -> list[Tensor]:
        """Radiographs and their cameras to volumes of several scales."""
        net, batch, views = self.ours, *image.shape[:2]
        scales = net.encoder(self.scaled(image).flatten(0, 1)[:, None])[-len(net.down) :]
        scales = [features.unflatten(0, (batch, views)) for features in scales]
        scales[-1] = self.exchange(scales[-1], matrices)
        skips: list[Tensor] = []
        for level, (merge, block) in enumerate(zip(net.views, net.down)):
            size = net.volume_size // 2 ** (level + 1)
            parts = [self.across_views(merge, scales[level], matrices, size)]
            if skips:
                parts.append(F.avg_pool3d(skips[-1], 2))
            if level == len(net.down) - 1:
                parts.append(self.positions(size).movedim(-1, 0).expand(batch, -1, -1, -1, -1))
            skips.append(block(torch.cat(parts, dim=1)))
        x = skips.pop()
        residuals = [net.heads[-1](x)]
        for level in reversed(range(len(net.up))):
            x = F.interpolate(x, scale_factor=2, mode="trilinear")
            x = net.up[level](torch.cat([net.gates[level](skips[level], x), x], dim=1))
            residuals.append(net.heads[level](x))
        return pyramid(net.initial_volume, residuals)

    def exchange(self, features: Tensor, matrices: Tensor) -> Tensor:
        """The coarsest features of all views attend to each other."""
        layer = self.ours.exchange
        embedded, _, _ = ray_tokens(layer, matrices, features.shape[-1], layer.extent)
        x = features.permute(0, 1, 3, 4, 2).flatten(1, 3) + embedded
        for attention, mlp, norm_1, norm_2 in zip(layer.attentions, layer.mlps, layer.norms[::2], layer.norms[1::2]):
            y = norm_1(x)
            x = x + attend(attention, y, y)
            x = x + mlp(norm_2(x))
        return x.view(*features.shape[:2], *features.shape[3:], -1).permute(0, 1, 4, 2, 3)

    def across_views(self, layer: Any, features: Tensor, matrices: Tensor, size: int) -> Tensor:
        """Attention over the views and the silent one at every voxel."""
        batch, views = features.shape[:2]
        reduced = layer.reduce(features.flatten(0, 1)).unflatten(0, (batch, views))
        lifted = lift_with_direction(reduced, matrices, size, self.ours.extent, layer.direction)
        mean = lifted.mean(dim=1)
        query = layer.query(mean).unflatten(1, (layer.num_heads, -1))
        silent = layer.silent.view(2, 1, 1, -1, 1, 1, 1).expand(-1, batch, 1, -1, size, size, size)
        pairs = layer.key_value(lifted.flatten(0, 1)).unflatten(0, (batch, views)).chunk(2, dim=2)
        key, value = (torch.cat(pair, dim=1).unflatten(2, (layer.num_heads, -1)) for pair in zip(pairs, silent))
        weights = (torch.einsum("bhdxyz,bvhdxyz->bvhxyz", query, key) * query.shape[2] ** -0.5).softmax(dim=1)
        attended = torch.einsum("bvhxyz,bvhdxyz->bhdxyz", weights, value).flatten(1, 2)
        number = torch.full_like(mean[:, :1], views / 8)
        result: Tensor = layer.merge(torch.cat([attended, mean, number], dim=1))
        return result


class DIFNet(Plain):
    """`trct_monai.networks.DIFNet`."""

    def forward(self, image: Tensor, matrices: Tensor, points: Tensor | None = None) -> list[Tensor]:
        """Radiographs and their cameras to a volume, or to the field's values (B, 1, N) at points (N, 3) in mm."""
        net, batch, views = self.ours, *image.shape[:2]
        whole = points is None
        points = centers(net.volume_size, net.extent).flatten(0, 2) if points is None else points
        maps = net.encoder(self.scaled(image).flatten(0, 1)[:, None])[-1]
        uvw = torch.einsum("bvij,nj->bvni", matrices[..., :3], points) + matrices[:, :, None, :, 3]
        grid = (uvw[..., :2] / uvw[..., 2:]).expand(batch, -1, -1, -1).reshape(batch * views, 1, -1, 2)
        lifted = F.grid_sample(maps, grid, align_corners=False)[:, :, 0].unflatten(0, (batch, views))
        rays = F.normalize(points - sources(matrices)[:, :, None], dim=-1)
        merged = F.silu(lifted + net.direction(rays).movedim(-1, 2)).amax(dim=1).transpose(1, 2)
        place = net.positions(points * 2 / net.extent).expand(batch, -1, -1)
        correction = net.decoder(torch.cat([merged, place], dim=2)).transpose(1, 2)
        values = field_values(net.initial_volume, points, net.extent) + correction
        return [values.unflatten(2, (net.volume_size,) * 3) if whole else values]


class AnyView(Plain):
    """`trct_monai.networks.AnyView`, for batches whose cases follow one model."""

    def forward(self, image: Tensor, matrices: Tensor) -> list[Tensor]:
        """Radiographs and their cameras to volumes of several scales and steps."""
        net, batch, views = self.ours, *image.shape[:2]
        share, added, image = self.linear_start(image, matrices)
        start = torch.einsum("mb,mcxyz->bcxyz", share, net.initial_volume) + added
        image = self.scaled(image)
        rays = slices_on_rays(matrices, net.step_size, net.volume_size, net.extent)
        residual = image - F.interpolate(self.projected(start, rays), size=image.shape[-2:], mode="bilinear")
        own = net.pyramids[int(share[:, 0].argmax()) if len(net.pyramids) > 1 else 0]
        encoded = own.encoder(torch.stack([image, residual], dim=2).flatten(0, 1))
        size = net.volume_size // 2 ** len(own.levels)
        x = own.positions(centers(size, 2.0)).movedim(-1, 0).expand(batch, -1, -1, -1, -1)
        residuals: list[Tensor] = []
        for level, block in enumerate(own.levels):
            x = own.carries[level](x)
            x = F.interpolate(x, scale_factor=2, mode="trilinear") if level else x
            known = pixelunshuffle(resized(2 * start - 1, 2 * x.shape[-1]), spatial_dims=3, scale_factor=2)
            features = encoded[level].unflatten(0, (batch, views))
            x = block(x + own.knowns[level](known) + self.merged(own.merges[level], features, matrices, x.shape[-1]))
            residuals.append(0.1 * own.heads[level](x))
        volumes = pyramid(start, residuals)
        measured = F.interpolate(image, size=(net.step_size,) * 2, mode="area")
        x = F.interpolate(own.finer(x), scale_factor=2, mode="trilinear")
        for step in own.steps:
            x, volume = self.agreement(step, x, volumes[0], measured, matrices, rays)
            volumes.insert(0, volume)
        return volumes

    @torch.no_grad()
    def linear_start(self, image: Tensor, matrices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Shares of the linear models, what they add, and radiographs without what they take for wrong exposure."""
        net, linear = self.ours, self.ours.linear_start
        size, views = linear.image_size, image.shape[1]
        low, high = image.amin((-2, -1), keepdim=True), image.amax((-2, -1), keepdim=True)
        counted = F.interpolate((image < high - 1e-4 * (high - low)).float(), size=(size,) * 2, mode="area") > 0.999
        measured = F.interpolate(image, size=(size,) * 2, mode="area")
        top = measured.amax((-2, -1), keepdim=True).clamp(min=1e-6)
        exposure = torch.tensor(linear.exposure).view(2, 1, 1)
        rays = slices_on_rays(matrices, size, linear.mean.shape[-1], net.extent)
        more, wrongs, evidences = [], [], []
        all_modes = linear.modes.unflatten(0, (len(linear.mean), -1))
        for mean, modes, noise in zip(linear.mean, all_modes, linear.noise):
            attenuation = attenuation_per_unit(net.hu_window) * modes
            both = torch.cat([unit_to_attenuation(mean[None], net.hu_window), attenuation]).movedim(1, 0)
            projected = project(both.expand(len(image), -1, -1, -1, -1), *rays)  # (B, 1 + K, V, h, w)
            own = projected[:, 0]
            terms = torch.stack([own, own.square() / top], dim=2) * exposure  # (B, V, 2, h, w)
            errors = torch.einsum("bvehw,vu->bveuhw", terms, torch.eye(views)).flatten(1, 2)
            h = (torch.cat([projected[:, 1:], errors], dim=1) * counted[:, None]).flatten(2)
            difference = ((measured - projected[:, 0]) * counted).flatten(1)
            system = h @ h.transpose(1, 2) + noise**2 * torch.eye(h.shape[1])
            right = (h @ difference[..., None])[..., 0]
            solution = torch.linalg.solve(system, right)
            added = torch.einsum("bk,kcxyz->bcxyz", solution[:, : len(modes)], modes)
            more.append(resized(added, net.volume_size))
            wrongs.append(solution[:, len(modes) :] * (modes.abs().amax() > 0))
            misfit = (difference.square().sum(dim=1) - (right * solution).sum(dim=1)) / noise**2
            pixels = counted.flatten(1).sum(dim=1) - h.shape[1]  # and the unknowns
            evidence = -0.5 * (misfit + torch.linalg.slogdet(system)[1] + pixels * log(noise**2))
            evidences.append(evidence.where(modes.abs().amax() > 0, -1e30 * len(more)))
        share = torch.stack(evidences).softmax(dim=0)
        fine = torch.stack([image, image.square() / top], dim=2) * exposure
        wrong = torch.einsum("mb,mbe->be", share, torch.stack(wrongs)).view(-1, views, 2, 1, 1)
        added = torch.einsum("mb,mbcxyz->bcxyz", share, torch.stack(more))
        return share, added, image - (wrong * fine).sum(dim=2)

    def projected(self, unit: Tensor, rays: tuple[Tensor, Tensor]) -> Tensor:
        """Radiographs of volumes in [0, 1], scaled as the encoder takes them."""
        return self.scaled(project(unit_to_attenuation(unit, self.ours.hu_window), *rays)[:, 0])

    def merged(self, layer: Any, features: Tensor, matrices: Tensor, size: int) -> Tensor:
        """Mean and maximum over the views at every voxel."""
        lifted = lift_with_direction(features, matrices, size, self.ours.extent, layer.direction)
        mean, number = lifted.mean(dim=1), torch.full_like(lifted[:, 0, :1], features.shape[1] / 8)
        result: Tensor = layer.merge(torch.cat([mean, lifted.amax(dim=1), number], dim=1))
        return result

    def agreement(
        self, step: Any, x: Tensor, volume: Tensor, measured: Tensor, matrices: Tensor, rays: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """A learned correction, then rounds of SIRT with gate and trust."""
        net, shape = self.ours, measured.shape[:2]
        size, extent = net.volume_size, net.extent
        residual = measured - self.projected(volume, rays)
        encoded = step.encode(torch.stack([residual, measured], dim=2).flatten(0, 1))
        lifted = lift(encoded.unflatten(0, shape), matrices, size, extent).mean(dim=1)
        x = step.block(x + step.known(2 * volume - 1) + lifted)
        volume = volume + 0.1 * step.head(x)
        gate = (10 * step.gate(x)).sigmoid()
        trust = 2 * (10 * step.trust(encoded)).sigmoid().unflatten(0, shape)
        length = project(gate * attenuation_per_unit(net.hu_window), *rays)[:, 0, :, None] / net.image_scale
        least = 0.1 * length.detach().amax(dim=(1, 2, 3, 4), keepdim=True)
        share = trust / length.maximum(least.clamp(min=1e-6))
        for _ in range(step.num_rounds):
            residual = (measured - self.projected(volume, rays))[:, :, None]
            volume = volume + gate * lift(share * residual, matrices, size, extent).mean(dim=1)
        return x, volume


class SliceUNet(Plain):
    """`trct_monai.networks.SliceUNet` with instance norm, for slices that need no padding."""

    def forward(self, image: Tensor) -> list[Tensor]:
        """Slices of the time average to the middle one's phase 0."""
        layers = list(self.ours.unet.modules())
        x, skips = 2 * image - 1, []
        for conv in (layer for layer in layers if isinstance(layer, nn.Conv2d)):
            x = F.leaky_relu(F.instance_norm(conv(x)), 0.2)
            skips.append(x)
        x = skips.pop()
        for conv in (layer for layer in layers if isinstance(layer, nn.ConvTranspose2d)):
            x = conv(torch.cat([skips.pop(), x], dim=1))
            x = F.leaky_relu(F.instance_norm(x), 0.2) if skips else torch.tanh(x)
        middle = image.shape[1] // 2
        return [image[:, middle : middle + 1] + x]


def plain(network: nn.Module) -> Plain:
    """The plain network around one of ours."""
    kinds = (DirectRegression, TRCTGenerator, X2CTGenerator, MultiScaleCNN, HybridCNNViT, DIFNet, AnyView, SliceUNet)
    return next(kind for kind in kinds if kind.__name__ == type(network).__name__)(network)


def inputs(network: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What a network takes of a batch: those for any views need the cameras."""
    return (batch["image"], batch["matrices"]) if getattr(network, "max_views", None) else (batch["image"],)
