"""The camera and the orientation of a radiograph: measured against projections of a CT, never assumed."""

from trct_monai.registration.camera import Registration, register, verify
from trct_monai.registration.orientation import Match, find_camera, measure
from trct_monai.registration.prior import Prior

__all__ = ["Match", "Prior", "Registration", "find_camera", "measure", "register", "verify"]
