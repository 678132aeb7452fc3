"""From line integrals to radiographs: polyenergetic beam, scatter, quantum noise, detector blur.

Scatter, noise and blur take and give line integrals p = -ln(I / I_0), (B, V, H, W); at their neutral values the input
comes back unchanged. `degrade` chains them in the order in which they happen. These are models for making networks
robust, not a Monte Carlo simulation: scatter is a blur of the image, whatever the depth.
"""

from collections.abc import Sequence
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from trct_monai.intensity import hu_to_attenuation

_ENERGIES_KEV = (20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0)
_MASS_ATTENUATION = {
    # cm^2/g at these energies: Hubbell and Seltzer, NIST Standard Reference Database 126 (NISTIR 5632, 2004)
    "water": (0.8096, 0.3756, 0.2683, 0.2269, 0.2059, 0.1837, 0.1707, 0.1505),
    "bone": (4.001, 1.331, 0.6655, 0.4242, 0.3148, 0.2229, 0.1855, 0.1480),  # cortical, ICRU Report 44
    "aluminium": (3.441, 1.128, 0.5685, 0.3681, 0.2778, 0.2018, 0.1704, 0.1378),
}
_DENSITY = {"water": 1.0, "bone": 1.92, "aluminium": 2.699}  # g/cm^3, same source

REFERENCE_KEV = 60.0
"""Energy at which HU and line integrals are understood where a beam has many; the one of `intensity.MU_WATER`."""


def attenuation(material: str, energy_kev: float | Tensor) -> Tensor:
    """Linear attenuation in 1/mm (float64), interpolated in log-log between the tabulated energies.

    Args:
        material: ``water``, ``bone`` (cortical) or ``aluminium``.
        energy_kev: Photon energies from 20 to 150 keV.

    Raises:
        ValueError: If the material is not in the table or an energy is outside of it.
    """
    energy = torch.as_tensor(energy_kev, dtype=torch.float64)
    if material not in _DENSITY:
        raise ValueError(f"material must be one of {', '.join(_DENSITY)}, got {material!r}")
    if not bool((energy >= _ENERGIES_KEV[0]).all() and (energy <= _ENERGIES_KEV[-1]).all()):
        raise ValueError(f"energy_kev must be within {_ENERGIES_KEV[0]} and {_ENERGIES_KEV[-1]} keV, got {energy_kev}")
    x = torch.tensor(_ENERGIES_KEV, dtype=torch.float64).log()
    y = torch.tensor(_MASS_ATTENUATION[material], dtype=torch.float64).log()
    right = torch.searchsorted(x, energy.log()).clamp(1, len(x) - 1)
    share = (energy.log() - x[right - 1]) / (x[right] - x[right - 1])
    return torch.lerp(y[right - 1], y[right], share).exp() * _DENSITY[material] / 10  # 1/cm to 1/mm


def kramers_spectrum(kvp: float = 120.0, aluminium_mm: float = 3.0, step_kev: float = 5.0) -> tuple[Tensor, Tensor]:
    """Energies in keV and their share of the signal, for a tungsten tube and an energy-integrating detector.

    Photons by Kramers' law (Phil. Mag. 46, 1923), N(E) ~ kvp / E - 1, behind aluminium; the signal is E * N(E).
    Characteristic lines are left out, and photons below 20 keV, which a patient absorbs.

    Args:
        kvp: Tube voltage in kV, the highest energy in keV; at most 150.
        aluminium_mm: Total filtration.
        step_kev: Distance between two energies.

    Raises:
        ValueError: If the table has no attenuation at such energies.
    """
    if not _ENERGIES_KEV[0] < kvp <= _ENERGIES_KEV[-1]:
        raise ValueError(f"kvp must be above {_ENERGIES_KEV[0]} and at most {_ENERGIES_KEV[-1]} kV, got {kvp}")
    energy = torch.arange(_ENERGIES_KEV[0], kvp, step_kev, dtype=torch.float64)
    signal = (kvp - energy) * torch.exp(-attenuation("aluminium", energy) * aluminium_mm)
    return energy, signal / signal.sum()


def split_water_bone(hu: Tensor, soft_tissue_hu: float = 100.0) -> tuple[Tensor, Tensor]:
    """Volume fractions of water and cortical bone that have the HU's attenuation at `REFERENCE_KEV`.

    Below `soft_tissue_hu` all is water of some density; from there to cortical bone (about 1935 HU) the two mix in
    proportion, beyond it all is bone of a higher density. The idea of Joseph and Spital (J. Comput. Assist. Tomogr.
    2, 1978) with a ramp in place of their threshold. Project both fractions to get path lengths in mm.

    Args:
        hu: CT numbers in HU, any shape.
        soft_tissue_hu: Where bone begins.
    """
    mu_water, mu_bone = (float(attenuation(material, REFERENCE_KEV)) for material in ("water", "bone"))
    mu = hu_to_attenuation(hu, mu_water)
    mu_soft = mu_water * (1 + soft_tissue_hu / 1000)
    bone = ((mu - mu_soft) / (mu_bone - mu_soft)).clamp(0.0, 1.0)
    water = torch.minimum(mu, mu.new_tensor(mu_soft)) * (1 - bone) / mu_water
    return water, torch.maximum(bone, torch.where(mu > mu_bone, mu / mu_bone, bone))


def polyenergetic(
    water_mm: Float[Tensor, "*shape"], bone_mm: Float[Tensor, "*shape"], spectrum: tuple[Tensor, Tensor]
) -> Float[Tensor, "*shape"]:
    """Effective line integral -ln sum_E s(E) exp(-mu_water(E) water_mm - mu_bone(E) bone_mm), differentiable.

    Lower than the mean attenuation would give: the beam hardens (Brooks and Di Chiro, Phys. Med. Biol. 21, 1976).

    Args:
        water_mm: Path length in water, projected fractions of `split_water_bone`.
        bone_mm: Path length in cortical bone.
        spectrum: Energies in keV and their share of the signal, as from `kramers_spectrum`.
    """
    energies, shares = spectrum
    mu_water, mu_bone = (attenuation(material, energies).to(water_mm) for material in ("water", "bone"))
    exponents = (
        (shares / shares.sum()).log().to(water_mm) - mu_water * water_mm[..., None] - mu_bone * bone_mm[..., None]
    )
    return -exponents.logsumexp(dim=-1)


def harden(line_integrals: Float[Tensor, "*shape"], kvp: float) -> Float[Tensor, "*shape"]:
    """Line integrals as a beam of a tube voltage measures them, the patient being of water alone.

    Args:
        line_integrals: At `REFERENCE_KEV`.
        kvp: Tube voltage in kV; see `kramers_spectrum`.
    """
    water_mm = line_integrals / float(attenuation("water", REFERENCE_KEV))
    return polyenergetic(water_mm, torch.zeros_like(water_mm), kramers_spectrum(kvp))


def add_scatter(
    line_integrals: Float[Tensor, "B V H W"],
    pixel_spacing: Sequence[float],
    fraction: float = 0.0,
    sigma_mm: float = 40.0,
) -> Float[Tensor, "B V H W"]:
    """Turn a fraction of the signal into a wide blur of itself; the total signal stays.

    The scatter of a slab is well described by a broad, bell-shaped kernel (Boone and Seibert, Med. Phys. 15, 1988).

    Args:
        line_integrals: -ln(I / I_0).
        pixel_spacing: Height and width of a pixel in mm.
        fraction: Scatter fraction S / (S + P), at least 0 and below 1; a chest radiograph with grid has about 0.3.
        sigma_mm: Standard deviation of the kernel at the detector.
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"scatter fraction must be at least 0 and below 1, got {fraction}")
    if fraction == 0:
        return line_integrals
    signal = torch.exp(-line_integrals.double())
    signal = (1 - fraction) * signal + fraction * _blur(signal, pixel_spacing, sigma_mm)
    return -signal.log().to(line_integrals)


def add_quantum_noise(
    line_integrals: Float[Tensor, "B V H W"], photons: float = inf, generator: torch.Generator | None = None
) -> Float[Tensor, "B V H W"]:
    """Line integrals of Poisson-distributed counts: -ln(max(n, 1) / photons), n ~ Poisson(photons * exp(-p)).

    The counts keep their mean; after the logarithm p is biased by about exp(p) / (2 photons) (Whiting et al., Med.
    Phys. 33, 2006). The noise has no gradient: in training, add it to inputs and not between a loss and a network.

    Args:
        line_integrals: -ln(I / I_0).
        photons: Detected photons per pixel in the open beam; infinite for no noise.
        generator: Source of the random numbers, on the device of the input.
    """
    if not photons > 0:
        raise ValueError(f"photons must be positive, got {photons}")
    if photons == inf:
        return line_integrals
    counts = torch.poisson(photons * torch.exp(-line_integrals.double()), generator=generator)
    return -(counts.clamp(min=1) / photons).log().to(line_integrals)


def detector_blur(
    line_integrals: Float[Tensor, "B V H W"], pixel_spacing: Sequence[float], sigma_mm: float = 0.0
) -> Float[Tensor, "B V H W"]:
    """Blur of the signal in the detector, a Gaussian with the modulation transfer exp(-2 (pi sigma f)^2).

    An edge measurement gives sigma: 0.187 divided by the frequency (1/mm) at which the transfer is one half (Samei,
    Flynn and Reimann, Med. Phys. 25, 1998, for the measurement).

    Args:
        line_integrals: -ln(I / I_0).
        pixel_spacing: Height and width of a pixel in mm.
        sigma_mm: Standard deviation of the point spread; 0 for none.
    """
    if sigma_mm < 0:
        raise ValueError(f"sigma_mm must not be negative, got {sigma_mm}")
    if sigma_mm == 0:
        return line_integrals
    return -_blur(torch.exp(-line_integrals.double()), pixel_spacing, sigma_mm).log().to(line_integrals)


def degrade(
    line_integrals: Float[Tensor, "B V H W"],
    pixel_spacing: Sequence[float],
    *,
    scatter_fraction: float = 0.0,
    scatter_sigma_mm: float = 40.0,
    photons: float = inf,
    detector_sigma_mm: float = 0.0,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B V H W"]:
    """Scatter, then quantum noise, then detector blur; unchanged input with nothing switched on.

    Args:
        line_integrals: -ln(I / I_0).
        pixel_spacing: Height and width of a pixel in mm.
        scatter_fraction: See `add_scatter`.
        scatter_sigma_mm: See `add_scatter`.
        photons: See `add_quantum_noise`.
        detector_sigma_mm: See `detector_blur`.
        generator: See `add_quantum_noise`.
    """
    line_integrals = add_scatter(line_integrals, pixel_spacing, scatter_fraction, scatter_sigma_mm)
    line_integrals = add_quantum_noise(line_integrals, photons, generator)
    return detector_blur(line_integrals, pixel_spacing, detector_sigma_mm)


def _blur(signal: Tensor, pixel_spacing: Sequence[float], sigma_mm: float) -> Tensor:
    """Gaussian blur (..., H, W) with mirrored edges; sums are kept and positive values stay positive.

    The kernel is the discrete Gaussian exp(t (cos 2 pi f - 1)), t = sigma^2 in pixels (Lindeberg, IEEE Trans. Pattern
    Anal. Mach. Intell. 12, 1990), without negative lobes however narrow it is.
    """
    for dim, spacing in zip((-2, -1), pixel_spacing, strict=True):
        size = signal.shape[dim]
        mirrored = torch.fft.rfft(torch.cat([signal, signal.flip(dim)], dim=dim), dim=dim)
        frequency = torch.fft.rfftfreq(2 * size, device=signal.device, dtype=signal.dtype)
        transfer = torch.exp((sigma_mm / spacing) ** 2 * (torch.cos(2 * torch.pi * frequency) - 1))
        transfer = transfer if dim == -1 else transfer[:, None]
        signal = torch.fft.irfft(mirrored * transfer, n=2 * size, dim=dim).narrow(dim, 0, size)
    return signal.clamp(min=torch.finfo(torch.float32).tiny)
