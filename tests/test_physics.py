"""Laws of the radiograph's physics: what each effect keeps, and its neutral value."""

import pytest
import torch

from trct_monai import physics
from trct_monai.geometry import preset
from trct_monai.intensity import MU_WATER, hu_to_attenuation
from trct_monai.physics import attenuation
from trct_monai.projector import project

SPACING = (1.0, 2.0)


def line_integrals(dtype=torch.float32):
    return 5 * torch.rand(2, 2, 24, 20, dtype=dtype, generator=torch.Generator().manual_seed(1))


def test_degrade_without_effects_is_the_identity():
    p = line_integrals()
    assert torch.equal(physics.degrade(p, SPACING), p)


def test_degrade_applies_every_effect():
    p = line_integrals()
    plain = physics.degrade(p, SPACING)
    for switch in ({"scatter_fraction": 0.3}, {"photons": 1000.0}, {"detector_sigma_mm": 2.0}):
        assert not torch.equal(physics.degrade(p, SPACING, **switch), plain)


def test_water_at_60_kev_is_the_projectors_constant():
    assert float(attenuation("water", 60.0)) == pytest.approx(MU_WATER, rel=1e-3)
    assert float(attenuation("bone", 60.0)) == pytest.approx(0.3148 * 1.92 / 10)  # NIST SRD 126
    # between tabulated energies: 0.1707 > mu > 0.1505 cm^2/g, monotonous
    mu = attenuation("water", torch.linspace(20, 150, 60))
    assert bool((mu.diff() < 0).all())


def test_quantum_noise_keeps_the_mean_count():
    p = torch.full((1, 1, 300, 300), 2.0)
    photons = 500.0
    noisy = physics.add_quantum_noise(p, photons, torch.Generator().manual_seed(0))
    counts, expected = photons * torch.exp(-noisy), photons * torch.exp(-p)
    # The mean of 90 000 Poisson counts, within five of its own standard deviations; their variance is their mean.
    assert abs(counts.mean() - expected.mean()) < 5 * (expected.mean() / counts.numel()).sqrt()
    assert float(counts.var()) == pytest.approx(float(expected.mean()), rel=0.05)


def test_quantum_noise_fades_with_dose_and_repeats_with_its_generator():
    p = line_integrals()
    errors = [
        (physics.add_quantum_noise(p, n, torch.Generator().manual_seed(0)) - p).std() for n in (1e3, 1e5, 1e7, 1e12)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4
    again = physics.add_quantum_noise(p, 1e3, torch.Generator().manual_seed(0))
    assert torch.equal(again, physics.add_quantum_noise(p, 1e3, torch.Generator().manual_seed(0)))
    assert bool(torch.isfinite(physics.add_quantum_noise(p + 50, 10.0)).all())  # no photon at all


@pytest.mark.parametrize("sigma_mm", [0.3, 3.0, 30.0])
def test_scatter_and_blur_keep_the_total_signal(sigma_mm):
    p = line_integrals(torch.float64)
    total = torch.exp(-p).sum(dim=(-2, -1))
    scattered = physics.add_scatter(p, SPACING, fraction=0.4, sigma_mm=sigma_mm)
    blurred = physics.detector_blur(p, SPACING, sigma_mm)
    torch.testing.assert_close(torch.exp(-scattered).sum(dim=(-2, -1)), total)
    torch.testing.assert_close(torch.exp(-blurred).sum(dim=(-2, -1)), total)
    assert bool((torch.exp(-blurred) > 0).all())


def test_scatter_lowers_contrast_and_leaves_a_flat_field():
    p = line_integrals()
    assert torch.exp(-physics.add_scatter(p, SPACING, 0.5)).std() < torch.exp(-p).std()
    flat = torch.full_like(p, 1.5)
    torch.testing.assert_close(physics.add_scatter(flat, SPACING, 0.5), flat)


def test_blur_has_its_stated_width_in_mm_on_both_axes():
    sigma_mm = 6.0
    p = torch.full((1, 1, 101, 61), 50.0, dtype=torch.float64)
    p[..., 50, 30] = 0.0  # one open pixel
    spread = torch.exp(-physics.detector_blur(p, SPACING, sigma_mm))[0, 0]
    for dim, spacing in enumerate(SPACING):
        profile = spread.sum(1 - dim)
        x = (torch.arange(len(profile)) - (len(profile) - 1) / 2) * spacing
        assert float((profile * x**2).sum() / profile.sum()) == pytest.approx(sigma_mm**2, rel=1e-3)


def test_one_energy_gives_the_plain_line_integral():
    water, bone = 200 * torch.rand(4, 5, dtype=torch.float64), 30 * torch.rand(4, 5, dtype=torch.float64)
    single = torch.tensor([60.0], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    expected = attenuation("water", 60.0) * water + attenuation("bone", 60.0) * bone
    torch.testing.assert_close(physics.polyenergetic(water, bone, single), expected)


def test_split_into_water_and_bone_keeps_the_plain_projection():
    hu = 2000 * torch.rand(1, 1, 12, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) - 1000
    hu[0, 0, 3] += 2500  # beyond cortical bone too
    cameras = preset("x2ct", (10, 10))
    water, bone = (project(part, cameras, 20.0) for part in physics.split_water_bone(hu))
    single = torch.tensor([physics.REFERENCE_KEV], dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    plain = project(hu_to_attenuation(hu, float(attenuation("water", physics.REFERENCE_KEV))), cameras, 20.0)
    torch.testing.assert_close(physics.polyenergetic(water, bone, single), plain)
    assert bool((water >= 0).all() and (bone >= 0).all())


def test_split_puts_soft_tissue_into_water_and_cortical_bone_into_bone():
    cortical = 1000 * (float(attenuation("bone", 60.0) / attenuation("water", 60.0)) - 1)
    water, bone = physics.split_water_bone(torch.tensor([-1000.0, 0.0, 50.0, cortical], dtype=torch.float64))
    assert water.tolist() == pytest.approx([0.0, 1.0, 1.05, 0.0], abs=1e-12)
    assert bone.tolist() == pytest.approx([0.0, 0.0, 0.0, 1.0], abs=1e-12)


def test_beam_hardening_lowers_the_effective_integral_and_more_so_with_depth():
    spectrum = physics.kramers_spectrum(120.0, 3.0)
    water = torch.tensor([0.0, 10.0, 100.0, 200.0, 400.0], dtype=torch.float64)
    effective = physics.polyenergetic(water, torch.zeros_like(water), spectrum)
    linear = (spectrum[1] * attenuation("water", spectrum[0])).sum() * water
    assert effective[0] == pytest.approx(0.0, abs=1e-12)
    assert bool((effective[1:] < linear[1:]).all())
    assert bool(((effective / water)[1:].diff() < 0).all())


def test_spectrum_is_normalised_and_hardened_by_filtration():
    energy, soft = physics.kramers_spectrum(100.0, 1.0)
    _, hard = physics.kramers_spectrum(100.0, 10.0)
    assert float(soft.sum()) == pytest.approx(1.0)
    assert (hard * energy).sum() > (soft * energy).sum()
    assert energy.max() < 100.0


def test_effects_are_differentiable():
    p = line_integrals(torch.float64)[:1, :1, :4, :5].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: physics.add_scatter(x, SPACING, 0.3, 3.0), p)
    assert torch.autograd.gradcheck(lambda x: physics.detector_blur(x, SPACING, 1.5), p)
    spectrum = physics.kramers_spectrum()
    assert torch.autograd.gradcheck(lambda x: physics.polyenergetic(30 * x, 5 * x, spectrum), p)


def test_bad_numbers_are_refused():
    p = line_integrals()
    with pytest.raises(ValueError, match="photons must be positive"):
        physics.add_quantum_noise(p, 0.0)
    with pytest.raises(ValueError, match="scatter fraction must be at least 0 and below 1"):
        physics.add_scatter(p, SPACING, 1.0)
    with pytest.raises(ValueError, match="must not be negative"):
        physics.detector_blur(p, SPACING, -1.0)
    with pytest.raises(ValueError, match="material must be one of water, bone, aluminium"):
        attenuation("lead", 60.0)
    with pytest.raises(ValueError, match="within 20.0 and 150.0 keV"):
        attenuation("water", 10.0)
    with pytest.raises(ValueError, match="kvp must be above"):
        physics.kramers_spectrum(500.0)
