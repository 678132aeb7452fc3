"""Networks that turn radiographs (B, V, H, W) into a volume (B, 1, X, Y, Z) in [0, 1]."""

from trct_monai.networks.direct_regression import DirectRegression

__all__ = ["DirectRegression"]
