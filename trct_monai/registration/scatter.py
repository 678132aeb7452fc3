"""Scatter in small pictures: it bends the scale most where the patient is dense, so no one curve undoes it."""

import torch
from jaxtyping import Float
from torch import Tensor

SCATTER_SIGMA = 35.0
"""Standard deviation in mm, at the isocentre, of the blur that scatter is (Boone and Seibert, Med. Phys. 15, 1988)."""


def with_scatter(
    p: Float[Tensor, "N M S S"], sides: Float[Tensor, "N 2"], share: Float[Tensor, "N M"], sigma: Float[Tensor, " N"]
) -> Float[Tensor, "N M S S"]:
    """Line integrals as a detector sees them behind scatter; `trct_monai.physics.add_scatter` for many small pictures.

    Args:
        p: Line integrals.
        sides: Height and width of the pictures at the isocentre in mm.
        share: Scatter fraction of each.
        sigma: Standard deviation of the blur in mm at the isocentre.
    """
    signal = (-p).exp()
    rows, columns = (_blur(p.shape[-1], sigma / side * p.shape[-1])[:, None] for side in sides.unbind(1))
    veil = rows @ signal @ columns.transpose(2, 3)
    share = share[..., None, None]
    return -((1 - share) * signal + share * veil).clamp(min=1e-6).log()


def _blur(size: int, sigma: Float[Tensor, " N"]) -> Float[Tensor, "N S S"]:
    """A Gaussian as a matrix, with mirrored edges."""
    index = torch.arange(size, dtype=torch.float32)
    weights = torch.zeros(len(sigma), size, size)
    for other in (index, -1 - index, 2 * size - 1 - index):
        weights += (-((index[:, None] - other) / sigma[:, None, None]).square() / 2).exp()
    return weights / weights.sum(-1, keepdim=True)
