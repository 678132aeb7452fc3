"""Volumes whose line integrals are known in closed form, and how far a projector is from them."""

from typing import Any

import torch
from projector_methods import EXTENT_MM, ByAutograd, source_and_pixels
from torch import Tensor

from trct_monai.geometry import Camera


def shapes(profile: str) -> list[tuple[float, Tensor, Tensor, Tensor]]:
    """Attenuation (1/mm), centre, radii (mm) and precision matrix of eight ellipsoids or Gaussian blobs."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for _ in range(8):
        axes = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64, generator=generator))[0]
        radii = 15 + 35 * torch.rand(3, dtype=torch.float64, generator=generator)
        radii = radii if profile == "ellipsoids" else radii / 2  # of a blob: its standard deviations
        center = 100 * torch.rand(3, dtype=torch.float64, generator=generator) - 50
        weight = 0.01 + 0.02 * float(torch.rand(1, generator=generator))
        result.append((weight, center, radii, axes @ torch.diag(radii**-2) @ axes.T))
    return result


def phantom(size: int, profile: str) -> Tensor:
    """The volume of `shapes`; the edges of ellipsoids are averaged over 3^3 points a voxel."""
    volume = torch.zeros(size, size, size, dtype=torch.float64)
    spacing, fine = EXTENT_MM / size, 3 if profile == "ellipsoids" else 1
    for weight, center, radii, precision in shapes(profile):
        reach = float(radii.max()) * (1 if fine > 1 else 8) + spacing
        low = ((center - reach) / spacing + size / 2).floor().clamp(min=0).int().tolist()
        high = ((center + reach) / spacing + size / 2).ceil().clamp(max=size).int().tolist()
        box = tuple(slice(i, j) for i, j in zip(low, high))
        axes = [
            (torch.arange(i * fine, j * fine, dtype=torch.float64) - (size * fine - 1) / 2) * spacing / fine - c
            for i, j, c in zip(low, high, center)
        ]
        for i in range(low[0], high[0]):  # slice by slice: the fine grid is large
            x = axes[0][(i - low[0]) * fine : (i - low[0] + 1) * fine]
            offset = torch.stack(torch.meshgrid(x, axes[1], axes[2], indexing="ij"), dim=-1)
            form = ((offset @ precision) * offset).sum(-1)
            values = (form < 1).double() if fine > 1 else torch.exp(-form / 2)
            volume[i][box[1:]] += weight * torch.nn.functional.avg_pool3d(values[None], fine)[0, 0]
    return volume.float()


def closed_form(view: Camera, profile: str) -> Tensor:
    """The line integrals of `shapes`."""
    source, pixels = (x[0].double() for x in source_and_pixels(view))
    direction = torch.nn.functional.normalize(pixels - source, dim=-1)
    image = torch.zeros(len(direction), dtype=torch.float64)
    for weight, center, _, precision in shapes(profile):
        offset = source[0] - center
        a = torch.einsum("ni,ij,nj->n", direction, precision, direction)
        b = direction @ precision @ offset
        nearest = offset @ precision @ offset - b**2 / a  # the quadratic form's least value on the ray
        if profile == "ellipsoids":
            image += weight * 2 * ((1 - nearest).clamp(min=0) / a).sqrt()
        else:
            image += weight * torch.exp(-nearest / 2) * (2 * torch.pi / a).sqrt()
    return image.reshape(view.size)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def adjoint_mismatch(method: Any, volume: Tensor, image: Tensor) -> float | None:
    """|<Ax, y> - <x, A'y>| / (|Ax| |y|), sums in float64."""
    if isinstance(method, ByAutograd):
        projected, spread = method.forward_and_adjoint(volume, image)
    elif hasattr(method, "adjoint"):
        projected, spread = method.forward(volume), method.adjoint(image)
    else:
        return None
    projected, image, volume, spread = (x.double() for x in (projected, image, volume, spread))
    return float(abs((projected * image).sum() - (volume * spread).sum()) / projected.norm() / image.norm())
