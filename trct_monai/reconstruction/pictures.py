"""Radiographs whose cameras nobody wrote down: understood, calibrated, and taken again by a camera of ours.

A picture of unknown camera, orientation and exposure becomes line integrals on a detector of ours, centred on the
isocentre. Cameras are found by a model of chests (see `trct_monai.registration.chests`), the curve from its numbers to
line integrals first by the network's own linear start and then by the network's projections. Pixels that were not
measured, and rays that leave the cube, get what the model expects there, so that they say nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy.optimize import lsq_linear
from torch import Tensor

from trct_monai.geometry import Camera, make_camera
from trct_monai.geometry.orientations import IN_WORDS, orient
from trct_monai.intensity import unit_to_attenuation
from trct_monai.io.radiograph import Radiograph
from trct_monai.projector import project
from trct_monai.reconstruction.checks import check_view
from trct_monai.reconstruction.inputs import implausible_pixels
from trct_monai.registration.chests.candidates import MIN_LENGTH
from trct_monai.registration.chests.characteristic import Curve, apply_curve, curve_terms
from trct_monai.registration.chests.model import ChestModel
from trct_monai.registration.chests.plausible import (
    NAMES,
    frontal_in_words,
    seems_mirrored,
    side_in_words,
    why_no_chest,
    wrong_views,
)
from trct_monai.registration.chests.regions import find_regions
from trct_monai.registration.chests.search import Found, Picture, find_together, find_view
from trct_monai.resampling import resize_radiographs

TAKEN_FIELD = 300.0
"""Side in mm at the isocentre of the detector on which pictures are taken again: inside the cube of 320 mm."""

TAKEN_SIZE = 256
"""Its rows and columns."""

UPRIGHT = {"pa": ("identity", "flip_columns", "flip_rows", "rotate_180"), "lat": ("identity", "flip_rows")}
"""Orientations to try. A lateral mirrored left-right is one from the other side."""

BOUNDS = ([-2.0, 0.3, 0.0, 0.0], [6.0, 20.0, 40.0, 40.0])
"""Least and greatest offset, gain, toe and shoulder of a curve."""


@dataclass(frozen=True)
class MeasuredPicture:
    """A radiograph that was understood.

    Attributes:
        radiograph: As it was read.
        picture: What its pixels show.
        found: Its camera and orientation.
        negative: Whether bright and dark were exchanged.
    """

    radiograph: Radiograph
    picture: Picture
    found: Found
    negative: bool = False

    @property
    def camera(self) -> Camera:
        """The camera of ours by which it is taken again."""
        sod, sdd = self.found.distance
        side = TAKEN_FIELD * self.found.distance.magnification
        return make_camera(
            self.picture.kind, self.found.azimuth, sod=sod, sdd=sdd, detector_extent=(side, side),
            size=(TAKEN_SIZE, TAKEN_SIZE),
        )  # fmt: skip

    def record(self, curve: Curve) -> dict[str, Any]:
        """How the file's numbers become line integrals, and by which camera it was taken, once it is upright.

        Args:
            curve: Of values that are 0 and 1 at ``ends``.
        """
        image = self.radiograph.image
        upright = orient(image, self.found.orientation).shape
        own = self.picture.oriented(self.found.orientation).size
        camera = self.found.camera(self.picture.kind, own).resized((int(upright[0]), int(upright[1])))
        return {
            "orientation": self.found.orientation,
            "negative": self.negative,
            "ends": self.picture.regions.ends,
            "curve": curve,
            "camera": camera.to_dict(),
            "taken_again_by": self.camera.to_dict(),
        }

    def taken(self, extent: float) -> "Taken":
        """The picture on that camera's detector.

        Args:
            extent: Side of the volume in mm.
        """
        regions = self.picture.oriented(self.found.orientation).regions
        height, width = regions.values.shape
        place = (torch.arange(TAKEN_SIZE) - (TAKEN_SIZE - 1) / 2) * TAKEN_FIELD / TAKEN_SIZE
        x = (place - self.found.shift[0]) / (self.found.width / 2)
        y = (place - self.found.shift[1]) / (self.found.width * height / width / 2)
        grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
        body, air = regions.body.float(), regions.air.float()
        images = F.grid_sample(torch.stack([regions.values * body, body, air])[None], grid, align_corners=False)[0]
        cube = torch.ones(1, 1, 16, 16, 16)
        length = project(cube, [self.camera], extent / 16)[0, 0]
        known = (images[1] + images[2] > 0.9) & (length > MIN_LENGTH * extent)
        values = (images[0] / images[1].clamp(min=1e-3)).clamp(-0.02, 1.02)
        return Taken(self, values, images[1] / (images[1] + images[2]).clamp(min=1e-3), known)


@dataclass(frozen=True)
class Taken:
    """A picture on a detector of ours.

    Attributes:
        source: The picture.
        values: Its numbers (N, N), the body's from 0 to 1.
        body: Share of each pixel that shows the body; the rest is air.
        known: Where it was measured, by rays within the cube.
    """

    source: MeasuredPicture
    values: Float[Tensor, "N N"]
    body: Float[Tensor, "N N"]
    known: Bool[Tensor, "N N"]

    def calibrated(self, curve: Curve, expected: Float[Tensor, "N N"]) -> Radiograph:
        """The picture as line integrals.

        Args:
            curve: From its numbers to line integrals.
            expected: Line integrals for what is not known.
        """
        measured = apply_curve(self.values, curve) * self.body
        image = torch.where(self.known, measured, expected)
        given = self.source.radiograph
        return Radiograph(image, True, self.source.camera, given.path, exposed=False)

    def fitted(self, projection: Float[Tensor, "h w"], curve: Curve) -> Curve:
        """The curve that brings the picture nearest to a projection, which stays as it is: no gain can collapse.

        Args:
            projection: Line integrals of a volume for the same camera.
            curve: The curve so far, for a picture that shows too little of the body.
        """
        size = (projection.shape[0], projection.shape[1])
        counted = resize_radiographs((self.known & (self.body > 0.95)).float(), size) > 0.99
        if int(counted.sum()) < 100:
            return curve
        terms = curve_terms(resize_radiographs(self.values, size)[counted]).double().numpy()
        weak = np.diag([0.0, 0.3, 0.05, 0.05]) * 0.05 * len(terms) ** 0.5  # where the picture leaves a term open
        target = np.concatenate([projection[counted].double().numpy(), np.zeros(4)])
        offset, gain, toe, shoulder = lsq_linear(np.concatenate([terms, weak]), target, bounds=BOUNDS).x.tolist()
        return offset, gain, toe, shoulder


@dataclass(frozen=True)
class Understood:
    """What was found out about some radiographs of one patient.

    Attributes:
        pictures: Each with its camera.
        notes: How they were understood, one line each.
        warnings: What speaks against it.
    """

    pictures: list[MeasuredPicture]
    notes: list[str]
    warnings: list[str]


def understand(radiographs: Mapping[str, Radiograph], model: ChestModel, force: bool = False) -> Understood:
    """Find cameras, orientations and what the pixels show.

    Args:
        radiographs: A frontal (``pa``), a lateral (``lat``) or both, without cameras.
        model: What chests look like.
        force: Warn of what would be refused.

    Raises:
        ValueError: If a picture does not look like a chest from its side, or the two are one view.
    """
    notes: list[str] = []
    warnings: list[str] = []
    wrong: list[str] = []
    pictures, found, negative, beside = [], [], [], None
    if len(radiographs) == 2 and _are_same(*(one.image for one in radiographs.values())):
        wrong.append("frontal and lateral are the same picture")
        _refuse(wrong, force)  # at once: the rest would only repeat it
    for kind, radiograph in radiographs.items():
        picture = _picture(kind, radiograph, radiograph.image, warnings)
        one = find_view(picture, model, UPRIGHT[kind], beside=beside)
        reason = why_no_chest(picture, one, model)
        inverse = None if reason is None else _negative(kind, radiograph, model)
        negative.append(inverse is not None)
        if reason is not None:
            if inverse is None:
                hint = _turned(picture, model)
                wrong.append(f"{radiograph.path} does not look like a {NAMES[kind]} chest: {reason}{hint}")
            else:
                picture, one = inverse
                warnings.append(f"{radiograph.path} shows bone dark; bright and dark were exchanged")
        if kind == "pa":
            mirrored = {"flip_columns": "identity", "flip_rows": "rotate_180"}.get(one.orientation)
            if mirrored is not None:  # a heart on the right side is rare, but no error: it is not turned
                other = find_view(picture, model, (mirrored,))
                one = replace(other, scores={**one.scores, **other.scores})
            if one.orientation in ("identity", "rotate_180") and seems_mirrored(one):
                warnings.append(
                    f"{radiograph.path} seems to be mirrored left-right: it was taken as it is, with the patient's "
                    "right side on the left"
                )
            beside = one.width / picture.size[1]
        notes.append(f"{radiograph.path}: {_described(kind, one)}")
        warnings += check_view(radiograph, kind)
        pictures.append(picture)
        found.append(one)
    wrong += wrong_views(pictures, found, model)
    _refuse(wrong, force)
    if len(pictures) > 1:
        found = find_together(pictures, found, model)
    for index, one in enumerate(found):
        notes[index] += f", {one.width * one.distance.magnification:.0f} mm wide at the detector"
    measured = [MeasuredPicture(*one) for one in zip(radiographs.values(), pictures, found, negative)]
    return Understood(measured, notes, [*warnings, *wrong])


def _refuse(wrong: Sequence[str], force: bool) -> None:
    if wrong and not force:
        raise ValueError(
            f"{'; '.join(wrong)}. Expected is a frontal chest radiograph (--pa), a lateral one (--lat) or both; "
            "--force goes on all the same"
        )


def expected_integrals(volume: Float[Tensor, "1 1 X X X"], model: ChestModel, camera: Camera) -> Float[Tensor, "N N"]:
    """Line integrals of a volume in [0, 1] of the model's window."""
    attenuation = unit_to_attenuation(volume, model.hu_window)
    return project(attenuation, [camera], model.extent / volume.shape[-1])[0, 0]


def _picture(kind: str, radiograph: Radiograph, image: Tensor, warnings: list[str]) -> Picture:
    """What the pixels show, and the header's pixel size if it can be."""
    size, spacing = (int(image.shape[0]), int(image.shape[1])), radiograph.pixel_spacing
    valid = radiograph.valid
    if spacing is not None and abs(spacing[0] / spacing[1] - 1) > 0.01:  # the search knows square pixels alone
        size, spacing = (max(2, round(size[0] * spacing[0] / spacing[1])), size[1]), (spacing[1], spacing[1])
        image = F.interpolate(image[None, None].float(), size=size, mode="area")[0, 0]
        valid = None if valid is None else F.interpolate(valid[None, None].float(), size=size, mode="area")[0, 0] > 0.99
    try:
        regions = find_regions(image, valid)
    except ValueError as error:
        raise ValueError(f"{radiograph.path}: {error}") from error
    if implausible := implausible_pixels(radiograph):
        warnings.append(implausible)
        spacing = None
    return Picture(kind, regions, size, spacing)


def _negative(kind: str, radiograph: Radiograph, model: ChestModel) -> tuple[Picture, Found] | None:
    """The picture with bright and dark exchanged, if that is a chest."""
    try:
        negative = _picture(kind, radiograph, -radiograph.image, [])
    except ValueError:
        return None
    found = find_view(negative, model, UPRIGHT[kind])
    return (negative, found) if why_no_chest(negative, found, model) is None else None


def _turned(picture: Picture, model: ChestModel) -> str:
    """What would make a chest of a picture that lies on its side, for a message."""
    for name in ("rotate_90", "rotate_270"):
        upright = picture.oriented(name)
        if why_no_chest(upright, find_view(upright, model, UPRIGHT[picture.kind]), model) is None:
            return f"; {IN_WORDS[name]} it would be one"
    return ""


def _described(kind: str, found: Found) -> str:
    return f"a lateral, {side_in_words(found)}" if kind == "lat" else f"a frontal, {frontal_in_words(found)}"


def _are_same(one: Tensor, other: Tensor) -> bool:
    small = [F.interpolate(image[None, None], size=(64, 64), mode="area").flatten() for image in (one, other)]
    return float(torch.corrcoef(torch.stack(small))[0, 1].nan_to_num()) > 0.98
