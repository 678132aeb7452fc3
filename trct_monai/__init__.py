"""CT volumes from a few radiographs: X-ray physics, data, networks and MONAI bundles."""

__version__ = "0.1.0"
