"""Rigid motions of the world."""

import torch
from jaxtyping import Float
from torch import Tensor


def rigid_motion(
    rotation: Float[Tensor, "*batch 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Matrices that rotate about the origin, then translate.

    Args:
        rotation: Rotation vectors: axis times angle in radians.
        translation: In mm.
    """
    zero = torch.zeros_like(rotation[..., 0])
    x, y, z = rotation.unbind(-1)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).reshape(*rotation.shape[:-1], 3, 3)
    motion = torch.eye(4, dtype=rotation.dtype).expand(*rotation.shape[:-1], 4, 4).clone()
    motion[..., :3, :3] = torch.linalg.matrix_exp(skew)
    motion[..., :3, 3] = translation
    return motion
