"""One CT into one case: its cube and its radiographs, rendered or given."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from trct_monai.datasets.cases import CaseFolder, write_ct, write_radiographs
from trct_monai.datasets.driver import Product
from trct_monai.datasets.given import check_fits, write_given_radiographs
from trct_monai.datasets.real_radiographs import RealOptions, write_real_radiographs
from trct_monai.datasets.sources import LAYOUTS, Source
from trct_monai.geometry.camera import Camera
from trct_monai.geometry.presets import preset
from trct_monai.intensity import check_hu_window
from trct_monai.io.ct import read_ct
from trct_monai.io.dicom.writer import RESAMPLED, write_ct_series
from trct_monai.io.nifti import write_nifti
from trct_monai.physics import degrade, kramers_spectrum
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.projector import project_hu, project_polyenergetic
from trct_monai.registration.orientation import measure

MEASURED = "measured"
"""The geometry of radiographs that come with a CT, when no other is stated."""

RENDERED = "x2ct"
"""The geometry of those that are rendered, when no other is stated."""

RENDER_SPACING = 1.25
"""Voxel side in mm of the CT from which radiographs are rendered, unless it is coarser itself: finer than the label, or
the task were too easy."""


@dataclass(frozen=True)
class Options:
    """What makes a case; see `prepare` for each."""

    size: int
    extent: float
    geometry: str
    radiograph_size: int
    hu_window: tuple[float, float]
    remove_table: bool
    nifti: bool
    dicom: bool
    photons: float | None
    scatter_fraction: float
    min_correlation: float
    h5_axes: str
    kvp: float | None = None
    center: str = "lungs"
    whole: bool = False
    rescale: tuple[float, float] | None = None
    real: RealOptions | None = None

    def __post_init__(self) -> None:
        check_hu_window(self.hu_window)
        CTPreprocessing(center=self.center)
        self.cameras(self.radiograph_size)
        if self.size < 8 or self.radiograph_size < 8 or not (isfinite(self.extent) and self.extent > 0):
            raise ValueError(
                f"size, radiograph_size (at least 8) and extent must be positive, got {self.size}, "
                f"{self.radiograph_size} and {self.extent} mm"
            )
        degrade(torch.zeros(1, 1, 2, 2), (1.0, 1.0), **self.physics, generator=torch.Generator())
        if self.kvp is not None:
            kramers_spectrum(self.kvp)

    @property
    def recorded(self) -> dict[str, Any]:
        """What a case's stamp has of them: nothing of real radiographs where none are kept."""
        return {name: value for name, value in asdict(self).items() if name != "real" or value is not None}

    def cameras(self, size: int = 512) -> tuple[Camera, ...]:
        """The views: those of the geometry, or of `RENDERED` where cameras are to be measured."""
        return preset(RENDERED if self.geometry == MEASURED else self.geometry, size)

    @property
    def physics(self) -> dict[str, float]:
        """What is switched on in `degrade`."""
        return {
            "scatter_fraction": self.scatter_fraction,
            "photons": inf if self.photons is None else self.photons,
        }


def products(source: Source, options: Options, root: Path, output: Path) -> Iterator[Product]:
    """The case of a source, for the driver.

    Args:
        source: One CT, alone or with radiographs.
        options: How to make it.
        root: Folder to which recorded paths are relative.
        output: Folder of the cases.
    """
    make = partial(make_case, source, options, root, output / "refused")
    inputs = {**source.digests(root), "patient_id": source.patient_id}
    yield Product(CaseFolder(output / source.case_id), inputs, make)


def make_case(source: Source, options: Options, root: Path, refused: Path, folder: Path) -> dict[str, Any]:
    """Read one CT, make its cube and its radiographs, and write them.

    Args:
        source: One CT, alone or with radiographs.
        options: How to make the case.
        root: Folder to which recorded paths are relative.
        refused: Folder for the picture of a radiograph that does not fit the CT.
        folder: The case's folder.

    Returns:
        The fields of `Case` but for the digests of the files.

    Raises:
        ValueError: If the CT or a radiograph is refused.
    """
    ct = read_ct(source.path, source.files, options.h5_axes, options.rescale)
    where = partial(CTPreprocessing, extent=options.extent, remove_table=options.remove_table, center=options.center)
    protocol = where(options.size)
    rendered = not source.radiographs and not source.unsorted and source.format != "HDF5"
    fine_size = max(options.size, round(options.extent / max(RENDER_SPACING, min(ct.spacing))))
    in_cube = rendered and not options.whole
    try:
        cube, *fine = protocol.cubes(ct.ct_hu, [options.size, *([fine_size] if in_cube else [])], ct.affine)
        if rendered and options.whole:
            fine = [where(fine_size).box(ct.ct_hu, affine=ct.affine)]
    except ValueError as error:
        raise ValueError(f"{source.path}: {error}") from error
    label = write_ct(folder, source.case_id, cube, cube.affine, options.hu_window)
    if options.dicom:
        stored = cube[0].as_tensor().clamp(*options.hu_window).numpy()
        study = {"PatientID": source.patient_id}
        write_ct_series(stored, cube.affine.numpy(), folder / f"{source.case_id}_dicom", study, RESAMPLED)
    origin = {"radiographs": "rendered" if rendered else "given"}
    if options.real is not None:
        radiographs, origin = write_real_radiographs(
            source, ct, cube, folder, options=options.real, min_correlation=options.min_correlation, root=root,
            refused=refused,
        )  # fmt: skip
    elif rendered:
        images = render(fine[0], options.extent / fine_size, options, source.case_id)
        radiographs = _write_rendered(source, images, cube, options, refused, folder)
    else:
        radiographs = write_given_radiographs(
            source, ct, cube, folder, cameras=options.cameras(), measured=options.geometry == MEASURED,
            extent=options.extent, min_correlation=options.min_correlation, refused=refused,
        )  # fmt: skip
    provenance = {
        "path": source.location(root),
        "format": source.format,
        "layout": LAYOUTS[source.layout],
        "shape": list(ct.ct_hu.shape[1:]),
        "spacing_mm": [round(side, 6) for side in ct.spacing],
        **origin,
        **ct.header,
    }
    return {
        "case_id": source.case_id,
        "patient_id": source.patient_id,
        **label,
        **radiographs,
        "provenance": provenance,
    }


def render(fine: MetaTensor, spacing: float, options: Options, case_id: str) -> Float[Tensor, "V H W"]:
    """Radiographs of a CT as line integrals, with the physics that the options ask for.

    Args:
        fine: The case's cube (1, X, Y, Z) in HU, or all of the CT with that cube in its middle.
        spacing: Its voxel side in mm.
        options: How to make the case.
        case_id: The case: its name decides the noise.
    """
    cameras = options.cameras(options.radiograph_size)
    if options.kvp is None:
        images = project_hu(fine, cameras, spacing)
    else:
        images = project_polyenergetic(fine, cameras, spacing, options.kvp)
    generator = torch.Generator().manual_seed(int(hashlib.sha256(case_id.encode()).hexdigest()[:12], 16))
    return degrade(images[None], cameras[0].pixel_spacing, **options.physics, generator=generator)[0]


def _write_rendered(
    source: Source, images: Float[Tensor, "V H W"], cube: MetaTensor, options: Options, refused: Path, folder: Path
) -> dict[str, Any]:
    """Write rendered radiographs; their fields of `Case`."""
    cameras = options.cameras(options.radiograph_size)
    matches = [measure(image, cube, options.extent, camera) for image, camera in zip(images, cameras)]
    for match in matches:
        check_fits(source, match, options.min_correlation, refused)
    orientation = [match.orientation for match in matches]
    exposed = options.kvp is None and options.scatter_fraction == 0
    fields = write_radiographs(folder, source.case_id, images, cameras, orientation, exposed)
    if options.nifti:
        for name, image, camera in zip(fields["image"], images, cameras):
            height, width = camera.pixel_spacing
            affine = np.diag([width, height, 1.0, 1.0])
            write_nifti(folder / name.replace(".png", ".nii.gz"), image.T[:, :, None].numpy(), affine)
    return fields
