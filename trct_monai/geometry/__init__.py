"""Frames, cameras and geometry presets. This docstring states the conventions of the whole library.

World
    Right-handed RAS+ millimetres as in nibabel and MONAI: x grows to the patient's right, y to anterior, z to
    superior. The origin of all camera coordinates is the isocentre: the centre of the volume unless a case
    has another.

Volume
    Tensor (B, 1, X, Y, Z). Voxel (i, j, k) has its centre at (index - (n - 1) / 2) * voxel_spacing from the
    isocentre (`voxel_to_world`); an affine of one's own may turn and shift it.

View
    The azimuth is DICOM's Positioner Primary Angle: the direction from the isocentre to the detector, 0 deg =
    detector anterior of the patient (a PA beam), +90 deg = detector on the patient's left (left lateral). The
    elevation is the secondary angle, cranial positive.

Detector
    Pixel (r, c) has its centre at (c - (W - 1) / 2) * width along the column axis and (r - (H - 1) / 2) * height
    along the row axis, from the detector centre. Row 0 is superior. Columns run to the patient's left at 0 deg (the
    viewer faces the patient: the patient's right is on the left of the image) and to posterior at +90 deg
    (anterior is on the left of the image).

Where a voxel is projected to, from the image centre (the nearer to the detector, the less it is magnified):

    ==================  =====================  =====================
    voxel               ``pa`` (0 deg)         ``lat`` (+90 deg)
    ==================  =====================  =====================
    patient's left      to the right           near the detector
    anterior            near the detector      to the left
    superior            up                     up
    ==================  =====================  =====================

Grid
    `torch.nn.functional.grid_sample` wants coordinates in (z, y, x) order of a (X, Y, Z) tensor, in [-1, 1] with
    align_corners=False. `world_to_grid` alone makes that order.
"""

from trct_monai.geometry.camera import Camera, make_camera, projection_matrices
from trct_monai.geometry.grids import voxel_centers, voxel_to_world, world_to_grid
from trct_monai.geometry.motion import rigid_motion
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.geometry.presets import DEFAULT_EXTENT, follows_preset, is_near_preset, preset

__all__ = [
    "Camera",
    "DEFAULT_EXTENT",
    "ORIENTATIONS",
    "follows_preset",
    "is_near_preset",
    "make_camera",
    "orient",
    "preset",
    "projection_matrices",
    "rigid_motion",
    "voxel_centers",
    "voxel_to_world",
    "world_to_grid",
]
