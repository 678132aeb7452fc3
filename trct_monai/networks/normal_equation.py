"""The equation of a linear model with normal unknowns and white noise: its solution, and the evidence for the model."""

from math import log, pi
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class NormalEquation(NamedTuple):
    """The linear system of one case under one model, and its solution.

    Attributes:
        matrix: H^T H + noise^2.
        solution: Of all unknowns.
        evidence: Logarithm of the probability density of the counted pixels.
    """

    matrix: Tensor
    solution: Tensor
    evidence: Tensor


def normal_equation(
    h: Float[Tensor, "K N"], difference: Float[Tensor, " N"], mask: Tensor, noise: float
) -> NormalEquation:
    """The most probable c where difference = c h + noise, c being independent standard normal, and its evidence.

    c solves (h h^T + noise^2) c = h difference (Tarantola, Inverse Problem Theory, 2005, section 3.2). The evidence is
    the density of the difference with c integrated out: normal with covariance h^T h + noise^2.

    Args:
        h: What each unknown adds to each pixel; zero where a pixel does not count.
        difference: What is to be explained; zero there, too.
        mask: One for each pixel that counts, else zero, in any shape.
        noise: Standard deviation of the white noise.
    """
    matrix = h @ h.T + noise**2 * torch.eye(len(h), device=h.device)
    right = h @ difference
    solution, log_determinant = solve(matrix, right)
    misfit = (difference.square().sum() - right @ solution) / noise**2
    log_determinant = log_determinant + mask.sum() * log(2 * pi * noise**2) - len(h) * log(noise**2)  # of all pixels
    evidence = -0.5 * (misfit + log_determinant)
    return NormalEquation(matrix, solution, evidence)


def solve(matrix: Float[Tensor, "K K"], right: Float[Tensor, " K"]) -> tuple[Float[Tensor, " K"], Float[Tensor, ""]]:
    """The solution of a positive definite system, and the logarithm of its determinant.

    ONNX has no factorisation: there it is Gauss and Jordan's elimination.

    Raises:
        torch.linalg.LinAlgError: On the CPU, if it is singular; on a GPU, which is not waited for, the result is NaN.
    """
    if not torch.onnx.is_in_onnx_export():
        root = cholesky(matrix)
        return torch.cholesky_solve(right[:, None], root)[:, 0], 2 * root.diagonal().log().sum()
    both, one = torch.cat([matrix, right[:, None]], dim=1), torch.eye(len(matrix), device=matrix.device)
    log_determinant = both.new_zeros(())
    for k in range(len(matrix)):
        pivot = both[k : k + 1, k : k + 1]
        log_determinant = log_determinant + pivot[0, 0].log()
        both = both - (both[:, k : k + 1] - one[:, k : k + 1]) * (both[k : k + 1] / pivot)
    return both[:, -1], log_determinant


def cholesky(matrix: Float[Tensor, "K K"]) -> Float[Tensor, "K K"]:
    """The lower factor; raises and gives NaN as `solve` does."""
    root: Tensor
    root, info = torch.linalg.cholesky_ex(matrix, check_errors=matrix.device.type == "cpu")
    return root if root.device.type == "cpu" else root.where(info == 0, torch.nan)
