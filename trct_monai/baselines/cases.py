"""What the baselines read: training cases, radiographs in few numbers, and the cameras of a batch."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry import Camera, preset
from trct_monai.resampling import resize_radiographs

TrainingCase = Mapping[str, Any]
"""A mapping with ``image``, line integrals (V, H, W), and ``label``, the volume (1, X, Y, Z) in [0, 1]."""


@runtime_checkable
class CaseList(Protocol):
    """Cases by their number, such as a data set of PyTorch or MONAI, which is not a `Sequence`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


TrainingCases = Iterable[TrainingCase] | CaseList


def each(cases: Iterable[Any] | CaseList) -> Iterator[Any]:
    """The cases one after the other, of an iterable or a data set."""
    return iter(cases) if isinstance(cases, Iterable) else (cases[i] for i in range(len(cases)))


def read_case(case: TrainingCase, volume_size: int) -> tuple[Float[Tensor, "V H W"], Float[Tensor, "1 X Y Z"]]:
    """Radiographs and volume of a case as plain tensors.

    Raises:
        ValueError: If a key is missing or a shape is not (V, H, W) or (1, size, size, size).
    """
    missing = [key for key in ("image", "label") if key not in case]
    if missing:
        raise ValueError(f"a case needs image and label, got one with {', '.join(case) or 'nothing'}")
    image, label = (case[key].detach().as_subclass(Tensor) for key in ("image", "label"))
    expected = (1, *(volume_size,) * 3)
    if image.ndim != 3 or tuple(label.shape) != expected:
        raise ValueError(
            f"a case must have an image (V, H, W) and a label {expected}, "
            f"got {tuple(image.shape)} and {tuple(label.shape)}"
        )
    return image.float(), label


def shrink(image: Float[Tensor, "B V H W"], size: int) -> Float[Tensor, "B V h w"]:
    """Radiographs averaged over size x size equal areas, whatever their number of pixels."""
    return resize_radiographs(image, size)


def cameras_of(geometry: str | Sequence[Camera], image: Float[Tensor, "B V H W"]) -> tuple[Camera, ...]:
    """The views of a batch of radiographs, with its number of pixels.

    Args:
        geometry: Preset of `trct_monai.geometry.preset`, or the cameras.
        image: Radiographs in the order of the views.

    Raises:
        ValueError: If the number of views is another.
    """
    size = (image.shape[2], image.shape[3])
    cameras = preset(geometry, size) if isinstance(geometry, str) else tuple(c.resized(size) for c in geometry)
    if image.shape[1] != len(cameras):
        raise ValueError(f"image must be (B, {len(cameras)}, H, W) for this geometry, got shape {tuple(image.shape)}")
    return cameras
