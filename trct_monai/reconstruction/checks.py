"""What speaks against believing a reconstruction: its radiographs beside the training's mean, and its residual."""

from collections.abc import Iterable, Sequence

from jaxtyping import Bool, Float
from torch import Tensor

from trct_monai.geometry.orientations import IN_WORDS
from trct_monai.io.dicom.radiograph import VIEW_POSITIONS
from trct_monai.io.radiograph import Radiograph
from trct_monai.registration.orientation import MIN_CORRELATION, correlation, measure
from trct_monai.resampling import resize_radiographs

UNUSUAL = 1.5
"""A residual that is so many times the largest of the validation cases is called unlike the training."""

MIN_GAIN = 0.02
"""A flip or turn must raise the correlation by so much to be called the better one."""


MAX_RESIDUAL = 0.12
"""Of radiographs whose cameras and exposures were measured."""

MIN_COUNTED = 0.4
"""Share of the field of 300 mm that a picture should show; a warning below it."""

USUAL_OF_REAL_PAIRS = "real pairs have 0.054 to 0.115"
"""Measured on eight pairs with any_view+small; see docs/reconstruct.md."""


def refuse_empty(radiographs: Iterable[Radiograph]) -> None:
    """Raise ValueError if a radiograph has one value alone."""
    for one in radiographs:
        low, high = float(one.image.min()), float(one.image.max())
        if low == high:
            raise ValueError(f"{one.path}: an empty picture, all of its pixels are {low:g}")


def check_view(radiograph: Radiograph, name: str) -> list[str]:
    """One line if a radiograph's header calls it another view than it is given as.

    Args:
        radiograph: The radiograph.
        name: The view that it is given as.
    """
    position = radiograph.view_position
    if not position or VIEW_POSITIONS.get(position) == name:
        return []
    return [f"{radiograph.path} is given as view {name!r}, while its header calls it {position}"]


def check_radiograph(radiograph: Radiograph, means_hu: Float[Tensor, "M 1 X Y Z"], extent: float) -> list[str]:
    """One line for each thing that is odd about a radiograph.

    Args:
        radiograph: With its camera.
        means_hu: Means of the kinds of training volumes in HU (phantoms, patients). The picture is put beside the
            projection of that one which it resembles most: phantoms do not look like the mean of patients.
        extent: Side of the volume in mm.
    """
    assert radiograph.camera is not None
    camera = radiograph.camera
    lines = check_view(radiograph, camera.name)
    matches = [measure(radiograph.image, mean, extent, camera) for mean in means_hu]
    match = max(matches, key=lambda one: abs(one.orientation["correlation"]))
    upright = correlation(resize_radiographs(radiograph.image, match.expected.shape), match.expected)
    best, name = match.orientation, f"{radiograph.path} as view {camera.name!r}"
    if abs(best["correlation"]) < MIN_CORRELATION:
        lines.append(
            f"{name} does not look like the training's thoraces from this side: its correlation with their mean is "
            f"{upright:.2f}"
        )
    elif abs(best["correlation"]) > abs(upright) + MIN_GAIN:
        lines.append(
            f"{name} seems to be mirrored or turned: {IN_WORDS[best['transform']]} its correlation with the training's "
            f"mean would be {best['correlation']:.2f} in place of {upright:.2f}; it was taken as it is"
        )
    elif upright < 0 and not radiograph.quantitative:
        lines.append(f"{name} shows bone dark; bright and dark were exchanged")
    return lines


def check_residual(residual: float, usual: float) -> list[str]:
    """One line if a relative residual is much larger than the largest of the validation cases."""
    if residual <= UNUSUAL * usual:
        return []
    return [
        f"the projections of the CT do not fit the radiographs: relative residual {residual:.3f}, while the largest of "
        f"the validation cases was {usual:.3f}; they look unlike what the network was trained on"
    ]


def check_fit(residual: float) -> list[str]:
    """One line if the radiographs of a CT are explained worse than real ones usually are.

    Args:
        residual: Relative residual of radiographs whose cameras and exposures were measured.
    """
    if residual <= MAX_RESIDUAL:
        return []
    return [
        f"the projections of the CT do not fit the radiographs: relative residual {residual:.3f}, while "
        f"{USUAL_OF_REAL_PAIRS}; do not use this CT"
    ]


def check_counted(radiographs: Sequence[Radiograph], counted: Bool[Tensor, "V H W"]) -> list[str]:
    """One line for each radiograph of which little was used.

    Args:
        radiographs: Their files.
        counted: Pixels that were measured, by rays within the cube.
    """
    shares = [float(view.float().mean()) for view in counted]
    return [
        f"{one.path}: only {share:.0%} of the chest's field was measured; the rest is the model's"
        for one, share in zip(radiographs, shares)
        if share < MIN_COUNTED
    ]
