"""Intensity scales: Hounsfield units (HU), the [0, 1] scale of a HU window, and linear attenuation in 1/mm.

Everything that reads or writes a file speaks HU; every network speaks [0, 1] of a stated window; the projector
speaks attenuation. These functions are the only way between the three.
"""

from collections.abc import Sequence

from torch import Tensor

HU_WINDOW = (-1024.0, 1476.0)
"""Default HU window, 2500 HU wide: the one of the X2CT family (X2CT-GAN, Ying et al., CVPR 2019)."""

AIR_HU = -1000.0
"""Air, by the definition of the scale. What lies outside a scan counts as air."""

BODY_HU = -950.0
"""Above this a voxel belongs to the patient, lungs included: the darkest lung, emphysema, begins there (Gevenois et
al., Am. J. Respir. Crit. Care Med. 154, 1996)."""

LUNG_HU = -500.0
"""Half way between air and soft tissue: the place of the skin and of the lungs' border, whatever the resolution."""

BONE_HU = 200.0
"""Above this is bone (or contrast agent and metal), below it soft tissue."""

SOFT_TISSUE_HU = (-200.0, BONE_HU)
"""Soft tissue, from fat to blood with contrast agent."""

STORED_HU = (-1024.0, 3071.0)
"""Range of 12-bit CT numbers. Files keep all of it; a network's window is chosen when they are loaded."""

PADDING_HU = -1024.0
"""Below this lies no CT number: scanners mark what is outside their field of view so."""

HU_INT16 = (-32768.0, 32767.0)
"""What a file of 16-bit HU can hold."""

MU_WATER = 0.0206
"""Linear attenuation of water in 1/mm at 60 keV: 0.2059 cm^2/g x 1 g/cm^3 (NIST XCOM). 60 keV stands for the
effective energy of a 100-120 kVp chest radiograph; pass another value for another energy."""


def check_hu_window(hu_window: Sequence[float]) -> tuple[float, float]:
    """The window as two floats.

    Raises:
        ValueError: If the window is not (low, high) with low below high.
    """
    if len(hu_window) != 2 or not float(hu_window[0]) < float(hu_window[1]):
        raise ValueError(f"hu_window must be (low, high) in HU with low < high, got {tuple(hu_window)}")
    return float(hu_window[0]), float(hu_window[1])


def hu_to_unit(hu: Tensor, hu_window: Sequence[float] = HU_WINDOW) -> Tensor:
    """Clip HU to a window and scale it to [0, 1]; exact inverse of `unit_to_hu` inside the window.

    Args:
        hu: CT numbers in HU, any shape.
        hu_window: Lowest and highest HU.
    """
    low, high = check_hu_window(hu_window)
    return ((hu - low) / (high - low)).clamp(0.0, 1.0)


def unit_to_hu(unit: Tensor, hu_window: Sequence[float] = HU_WINDOW) -> Tensor:
    """HU of values in [0, 1] of a window; values outside [0, 1] are not clipped.

    Args:
        unit: Values in [0, 1] of `hu_window`, any shape.
        hu_window: Lowest and highest HU.
    """
    low, high = check_hu_window(hu_window)
    return unit * (high - low) + low


def hu_to_attenuation(hu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """Linear attenuation mu = mu_water * (1 + HU / 1000), never below 0, in 1/mm.

    Args:
        hu: CT numbers in HU, any shape.
        mu_water: Attenuation of water in 1/mm.
    """
    return (mu_water * (1.0 + hu / 1000.0)).clamp(min=0.0)


def attenuation_to_hu(mu: Tensor, mu_water: float = MU_WATER) -> Tensor:
    """HU = 1000 * (mu / mu_water - 1); inverse of `hu_to_attenuation` at and above -1000 HU.

    Args:
        mu: Linear attenuation in 1/mm, any shape.
        mu_water: Attenuation of water in 1/mm.
    """
    return 1000.0 * (mu / mu_water - 1.0)


def fit_gain_offset(image: Tensor, expected: Tensor) -> tuple[float, float]:
    """Gain and offset that bring a picture nearest to another: least squares of ``gain * image + offset - expected``.

    A picture without contrast has the gain 0.

    Args:
        image: Numbers on any scale.
        expected: What they should be, of the same shape.
    """
    x, y = image.double().flatten(), expected.double().flatten()
    centered = x - x.mean()
    gain = float((centered * (y - y.mean())).sum() / centered.square().sum().clamp(min=1e-12))
    return gain, float(y.mean() - gain * x.mean())


def attenuation_per_unit(hu_window: Sequence[float] = HU_WINDOW, mu_water: float = MU_WATER) -> float:
    """Attenuation in 1/mm of a difference of 1 in [0, 1] of a HU window: the slope of `unit_to_attenuation`.

    Args:
        hu_window: Lowest and highest HU.
        mu_water: Attenuation of water in 1/mm.
    """
    low, high = check_hu_window(hu_window)
    return mu_water * (high - low) / 1000


def unit_to_attenuation(unit: Tensor, hu_window: Sequence[float] = HU_WINDOW, mu_water: float = MU_WATER) -> Tensor:
    """Linear attenuation in 1/mm of values in [0, 1] of a HU window, differentiable where it is above 0.

    Args:
        unit: Values in [0, 1] of `hu_window`, any shape.
        hu_window: Lowest and highest HU.
        mu_water: Attenuation of water in 1/mm.
    """
    return hu_to_attenuation(unit_to_hu(unit, hu_window), mu_water)
