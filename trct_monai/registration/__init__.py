"""The camera and the orientation of a radiograph: measured against projections of a CT, never assumed."""

from trct_monai.registration.camera import Registration, register, verify
from trct_monai.registration.orientation import Match, find_camera, measure

__all__ = ["Match", "Registration", "find_camera", "measure", "register", "verify"]
