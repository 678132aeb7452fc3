"""Losses that MONAI lacks: volumes in [0, 1], (input, target) in, a scalar out."""

from trct_monai.losses.perceptual import PerceptualLoss
from trct_monai.losses.projection import ProjectionLoss
from trct_monai.losses.weighted_sum import WeightedSumLoss

__all__ = ["PerceptualLoss", "ProjectionLoss", "WeightedSumLoss"]
