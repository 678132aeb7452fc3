"""CT volumes from a few radiographs: X-ray physics, data, networks and MONAI bundles."""

from trct_monai import moved

__version__ = "0.1.0"

moved.install()
