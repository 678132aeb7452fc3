"""Bundles: where they are, which files make a method, what is checked before one runs, and how one is exported."""

from trct_monai.bundles.checks import check_inference, check_run, check_training
from trct_monai.bundles.find import bundle_files, find_bundle

__all__ = ["bundle_files", "check_inference", "check_run", "check_training", "find_bundle"]
