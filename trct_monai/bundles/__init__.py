"""Bundles: where they are, which files make a method, and how one is exported."""

from trct_monai.bundles.find import bundle_files, find_bundle

__all__ = ["bundle_files", "find_bundle"]
