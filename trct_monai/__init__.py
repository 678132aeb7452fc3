"""CT volumes from a few radiographs: X-ray physics, data, networks and MONAI bundles."""

from trct_monai import moved

__version__ = "0.2.0"

moved.install()
