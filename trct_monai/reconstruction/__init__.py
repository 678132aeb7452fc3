"""From radiographs to a CT in HU with its intervals."""

from trct_monai.reconstruction.inputs import View, read_views
from trct_monai.reconstruction.method import Method, Result, load_method, solve

__all__ = ["Method", "Result", "View", "load_method", "read_views", "solve"]
