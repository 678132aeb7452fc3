"""Named geometries: cameras with published distances."""

from collections.abc import Sequence

import torch

from trct_monai.geometry.camera import Camera, make_camera

DEFAULT_EXTENT = 320.0
"""Side in mm of the cube that a case is cropped or padded to (X2CT-GAN, Ying et al., CVPR 2019)."""


NEAR_COSINE = 0.5**0.5
"""Cosine of 45 degrees, by which a camera may be turned away from the one of a preset that it is near to."""

_PRESETS: dict[str, tuple[float | None, float | None, float]] = {
    # name: source-isocentre, source-detector, side of the square detector, all in mm
    "parallel": (None, None, DEFAULT_EXTENT),
    "x2ct": (541.0, 949.075, 500.0),  # X2CT-GAN's DRR set-up (Ying et al., CVPR 2019)
    "clinic": (1600.0, 1800.0, 430.0),  # upright chest stand: 1.8 m film distance, 43 x 43 cm detector
}


def preset(name: str, size: int | tuple[int, int] = 512) -> tuple[Camera, ...]:
    """The cameras of a named geometry.

    ``parallel``, ``x2ct`` and ``clinic`` have the two views ``pa`` (0 deg) and ``lat`` (+90 deg). ``circle-N`` has N
    views spread evenly over 180 degrees from 0 deg on, with the distances of ``x2ct``.

    Args:
        name: ``parallel``, ``x2ct``, ``clinic`` or ``circle-N``, such as ``circle-8``.
        size: Rows and columns of the detector; one number for a square one.

    Raises:
        ValueError: If the name is unknown.
    """
    rows_columns = (size, size) if isinstance(size, int) else size
    family, _, count = name.partition("-")
    if name in _PRESETS:
        angles = {"pa": 0.0, "lat": 90.0}
    elif family == "circle" and count.isdigit() and int(count) > 0:
        angles = {f"view{i}": 180.0 * i / int(count) for i in range(int(count))}
    else:
        raise ValueError(f"geometry must be one of {', '.join(_PRESETS)} or circle-N, got {name!r}")
    sod, sdd, extent = _PRESETS["x2ct" if family == "circle" else name]
    return tuple(
        make_camera(view, angle, sod=sod, sdd=sdd, detector_extent=(extent, extent), size=rows_columns)
        for view, angle in angles.items()
    )


def is_near_preset(cameras: Sequence[Camera], name: str) -> bool:
    """Whether cameras are as many as a preset's and each stands on the side of the preset's, or on the opposite one.

    Cameras that were measured are near, whatever their distances; views in another order are not.

    Args:
        cameras: In the preset's order.
        name: The preset.
    """
    expected = preset(name)
    return len(cameras) == len(expected) and all(
        abs(sum(a * b for a, b in zip(camera.normal, other.normal))) > NEAR_COSINE
        for camera, other in zip(cameras, expected)
    )


def follows_preset(cameras: Sequence[Camera], name: str) -> bool:
    """Whether cameras have the projections of a preset's, view by view, for any number of pixels.

    Args:
        cameras: In the preset's order.
        name: The preset.
    """
    expected = preset(name)
    return len(cameras) == len(expected) and all(
        torch.allclose(camera.world_to_detector(), other.world_to_detector(), rtol=1e-4, atol=1e-6)
        for camera, other in zip(cameras, expected)
    )
