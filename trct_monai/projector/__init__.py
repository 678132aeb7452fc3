"""Line integrals of a volume along the rays of any cameras, and the exact adjoint."""

from trct_monai.projector.operators import Projector, backproject, is_traced, project, project_hu, untraced
from trct_monai.projector.polyenergetic import project_polyenergetic

__all__ = [
    "Projector",
    "backproject",
    "is_traced",
    "project",
    "project_hu",
    "project_polyenergetic",
    "untraced",
]
