"""The camera and the orientation of a radiograph: measured against projections of a CT, never assumed."""

from trct_monai.registration.orientation import Match, find_camera, measure

__all__ = ["Match", "find_camera", "measure"]
