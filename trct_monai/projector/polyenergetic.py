"""Radiographs of a CT in a beam of many energies."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.camera import Camera
from trct_monai.physics import kramers_spectrum, polyenergetic, split_water_bone
from trct_monai.projector.operators import project


def project_polyenergetic(
    volume_hu: Float[Tensor, "1 X Y Z"], cameras: Sequence[Camera], voxel_spacing: float, kvp: float
) -> Float[Tensor, "V H W"]:
    """Line integrals of a CT as a beam of a tube voltage measures them: -ln of the share of the signal that is left.

    The CT is split into water and bone, which attenuate each energy in their own way; see `trct_monai.physics`. What
    `project_hu` gives is the same for one energy, `trct_monai.physics.REFERENCE_KEV`.

    Args:
        volume_hu: CT numbers in HU, axes in RAS order, centred on the isocentre.
        cameras: The views, of one size.
        voxel_spacing: Voxel side in mm.
        kvp: Tube voltage in kV, above 20 and at most 150.

    Raises:
        ValueError: If the tube voltage is out of its range.
    """
    spectrum = kramers_spectrum(kvp)
    fractions = torch.stack(split_water_bone(volume_hu.as_subclass(Tensor).float()))
    water_mm, bone_mm = project(fractions, cameras, voxel_spacing)
    return polyenergetic(water_mm, bone_mm, spectrum)
