"""Cameras of radiographs without a CT: measured by what chests look like."""

from trct_monai.registration.chests.model import ChestModel
from trct_monai.registration.chests.regions import Regions, find_regions
from trct_monai.registration.chests.search import Found, Picture, explain, find_together, find_view

__all__ = ["ChestModel", "Found", "Picture", "Regions", "explain", "find_regions", "find_together", "find_view"]
