"""Registration: how a radiograph is oriented, measured against projections of a CT, never assumed."""

from trct_monai.registration.orientation import Match, measure

__all__ = ["Match", "measure"]
