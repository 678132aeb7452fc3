"""Losses on volumes (B, 1, X, Y, Z) in [0, 1]; all take `input, target`."""

from trct_monai.losses.weighted_sum import WeightedSumLoss

__all__ = ["WeightedSumLoss"]
