"""The eight flips and rotations of a picture, by name."""

from collections.abc import Callable

from jaxtyping import Shaped
from torch import Tensor

ORIENTATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda image: image,
    "flip_columns": lambda image: image.flip(-1),
    "flip_rows": lambda image: image.flip(-2),
    "rotate_180": lambda image: image.flip(-2, -1),
    "transpose": lambda image: image.transpose(-2, -1),
    "rotate_90": lambda image: image.transpose(-2, -1).flip(-2),
    "rotate_270": lambda image: image.transpose(-2, -1).flip(-1),
    "transpose_anti": lambda image: image.transpose(-2, -1).flip(-2, -1),
}
"""The eight flips and rotations that bring a stored picture to the library's orientation. ``flip_columns`` mirrors it
left-right, ``flip_rows`` turns it upside down by mirroring; rotations are counter-clockwise."""


IN_WORDS = {
    "identity": "as it is",
    "flip_columns": "mirrored left-right",
    "flip_rows": "mirrored upside down",
    "rotate_180": "turned upside down",
    "transpose": "mirrored along a diagonal",
    "rotate_90": "turned by 90 degrees counter-clockwise",
    "rotate_270": "turned by 90 degrees clockwise",
    "transpose_anti": "mirrored along the other diagonal",
}
"""The same in messages: what is done to a picture."""


def orient(image: Shaped[Tensor, "*batch H W"], transform: str) -> Shaped[Tensor, "*batch H2 W2"]:
    """A picture after one of `ORIENTATIONS`.

    Raises:
        ValueError: If the name is unknown.
    """
    if transform not in ORIENTATIONS:
        raise ValueError(f"orientation must be one of {', '.join(ORIENTATIONS)}, got {transform!r}")
    return ORIENTATIONS[transform](image)
