"""Losses that MONAI lacks: of (input, target), volumes in [0, 1], to a scalar."""

from trct_monai.losses.adversarial import LeastSquaresAdversarialLoss, LogitAdversarialLoss
from trct_monai.losses.deep_supervision import DeepSupervisionLoss
from trct_monai.losses.edge import EdgeLoss
from trct_monai.losses.emphasis import EmphasisLoss
from trct_monai.losses.frequency import FrequencyLoss
from trct_monai.losses.laplace import LaplaceNLLLoss
from trct_monai.losses.perceptual import PerceptualLoss, perceptual_if_used
from trct_monai.losses.projection import ProjectionLoss
from trct_monai.losses.psnr import PSNRLoss
from trct_monai.losses.ssim import SSIMLoss
from trct_monai.losses.weighted_sum import WeightedSumLoss

__all__ = [
    "DeepSupervisionLoss",
    "EdgeLoss",
    "EmphasisLoss",
    "FrequencyLoss",
    "LaplaceNLLLoss",
    "LeastSquaresAdversarialLoss",
    "LogitAdversarialLoss",
    "PSNRLoss",
    "PerceptualLoss",
    "ProjectionLoss",
    "SSIMLoss",
    "WeightedSumLoss",
    "perceptual_if_used",
]
