"""Laws of the thorax phantoms: same patient at any size and phase, anatomy on its side, findings inside their masks."""

import hashlib
import json
import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from trct_monai.phantoms import ORGANS, Phantom, phantom_series, thorax_phantom
from trct_monai.phantoms.findings import FINDINGS, draw_findings
from trct_monai.phantoms.patient import draw_patient


@cache
def healthy(seed: int, size: int = 64, phase: float = 0.0) -> Phantom:
    return thorax_phantom(seed, size, phase=phase, findings=())


def centroid_mm(phantom: Phantom, name: str) -> np.ndarray:
    index = np.argwhere(phantom.masks[name]).mean(0)
    return phantom.affine[:3, :3] @ index + phantom.affine[:3, 3]


def grow(mask: np.ndarray, steps: int) -> np.ndarray:
    """Voxels within `steps` face-to-face moves of a mask that keeps clear of the border."""
    for _ in range(steps):
        shifted = [np.roll(mask, move, axis) for axis in range(3) for move in (-1, 1)]
        mask = np.logical_or.reduce([mask, *shifted])
    return mask


def test_same_seed_gives_the_same_phantom_and_another_seed_another():
    first, again, other = (thorax_phantom(seed, 32) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.ct_hu, again.ct_hu)
    assert first.description == again.description
    assert np.abs(first.ct_hu - other.ct_hu).mean() > 20


@pytest.mark.slow
def test_a_phantom_has_the_same_bits_on_a_plainer_processor():
    """Whatever vector instructions a processor has, `PhantomThorax-64` must be one data set."""
    used = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    if not used:
        pytest.skip("NumPy has no vector instructions here to do without")
    program = (
        "from trct_monai.phantoms import thorax_phantom as t; import sys; sys.stdout.buffer.write(t(450, 64).ct_hu)"
    )
    plain = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(used)}
    drawn = subprocess.run([sys.executable, "-c", program], env=plain, check=True, stdout=subprocess.PIPE).stdout
    assert hashlib.sha256(drawn).digest() == hashlib.sha256(thorax_phantom(450, 64).ct_hu.tobytes()).digest()


@pytest.mark.parametrize("size", [17, 32])
def test_phantom_is_finite_float32_in_hu_with_a_centred_affine(size):
    phantom = thorax_phantom(3, size, extent=300.0)
    assert phantom.ct_hu.shape == (size,) * 3 and phantom.ct_hu.dtype == np.float32
    assert np.isfinite(phantom.ct_hu).all()
    assert -1010 <= phantom.ct_hu.min() <= -990 and 300 < phantom.ct_hu.max() < 1300
    center = phantom.affine @ np.array([(size - 1) / 2] * 3 + [1])
    np.testing.assert_allclose(center, [0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(np.diag(phantom.affine)[:3], 300 / size)
    assert set(ORGANS) <= set(phantom.masks)
    for mask in phantom.masks.values():
        assert mask.shape == (size,) * 3 and mask.dtype == bool


def test_description_survives_json():
    description = thorax_phantom(1, 16, findings=FINDINGS).description
    read = json.loads(json.dumps(description))
    assert read["sex"] in ("female", "male") and set(read["findings"]) == set(FINDINGS)


@pytest.mark.parametrize("seed", range(2))
def test_smaller_voxels_show_the_same_patient(seed):
    coarse = healthy(seed).ct_hu
    averaged = healthy(seed, 128).ct_hu.reshape(64, 2, 64, 2, 64, 2).mean((1, 3, 5))
    assert np.corrcoef(coarse.ravel(), averaged.ravel())[0, 1] > 0.998
    assert np.abs(coarse - averaged).mean() < 8  # HU
    volumes = [healthy(seed, size).masks["lungs"].mean() for size in (64, 128)]
    assert volumes[0] == pytest.approx(volumes[1], rel=0.03)


@pytest.mark.parametrize("seed", range(12))
def test_heart_and_aorta_are_left_and_liver_is_right(seed):
    phantom = healthy(seed)
    world_z = phantom.affine[2, 3] + phantom.affine[2, 2] * np.arange(64)
    heart = centroid_mm(phantom, "heart")
    assert heart[0] < -5
    assert centroid_mm(phantom, "liver")[0] > 15
    low = world_z < heart[2]
    descending, spine = (np.argwhere(phantom.masks[name] & low)[:, 0].mean() for name in ("aorta", "spine"))
    assert descending < spine - 1  # voxels of 5 mm
    apex, base = (np.argwhere(phantom.masks["heart"] & part)[:, 0].mean() for part in (low, ~low))
    assert apex < base
    gas = (phantom.ct_hu < -900) & phantom.masks["body"] & ~phantom.masks["lungs"] & (world_z < heart[2] - 30)
    assert gas.any() and np.argwhere(gas)[:, 0].mean() < 28


@pytest.mark.parametrize("seed", range(4))
def test_sternum_side_is_anterior_and_airways_are_superior(seed):
    phantom = healthy(seed)
    center = {name: centroid_mm(phantom, name) for name in ORGANS}
    assert center["spine"][1] < center["aorta"][1] < center["heart"][1]
    assert center["liver"][2] < center["heart"][2] < center["airways"][2]


@pytest.mark.parametrize("seed", range(4))
def test_organs_are_inside_the_body_and_disjoint(seed):
    masks = healthy(seed).masks
    for name in ORGANS:
        assert (masks[name] & ~masks["body"]).sum() <= 0.02 * masks[name].sum(), name
    apart = ["lungs", "heart", "liver", "aorta", "spine"]
    assert np.sum([masks[name] for name in apart], axis=0).max() == 1
    assert not (masks["bone"] & (masks["lungs"] | masks["heart"] | masks["aorta"])).any()
    litres = masks["lungs"].sum() * 0.005**3 * 1000
    assert 1.5 < litres < 9


@pytest.mark.parametrize("seed", [2, 5])
def test_version_2_is_a_larger_and_more_bent_patient_of_the_same_seed(seed):
    first, second = (thorax_phantom(seed, 48, findings=[], version=version) for version in (1, 2))
    assert second.description["version"] == 2 and "version" not in first.description
    assert second.description["sex"] == first.description["sex"]
    assert second.masks["lungs"].sum() > 1.1 * first.masks["lungs"].sum()
    curves = []
    for phantom in (first, second):
        index = np.argwhere(phantom.masks["spine"])
        curves.append(np.ptp([index[index[:, 2] == z, 1].mean() for z in range(6, 42)]))
    assert curves[1] > 1.3 * curves[0]
    x, _, _ = np.argwhere(second.masks["heart"]).mean(axis=0)
    right, _, _ = np.argwhere(second.masks["liver"]).mean(axis=0)
    assert x < 23.5 < right
    soft = [np.median(p.ct_hu[p.masks["liver"]]) for p in (first, second)]
    assert -15 < soft[1] - soft[0] < -4
    inside = ~second.masks["body"]
    assert all(not (second.masks[name] & inside).any() for name in ("lungs", "heart", "liver", "spine", "bone"))


def test_phase_moves_heart_and_diaphragm_alone():
    rest, moved = healthy(2), healthy(2, phase=0.5)
    assert moved.masks["lungs"].sum() < 0.97 * rest.masks["lungs"].sum()
    assert centroid_mm(moved, "liver")[2] > centroid_mm(rest, "liver")[2] + 1
    assert moved.masks["heart"].sum() < 0.95 * rest.masks["heart"].sum()
    np.testing.assert_array_equal(moved.masks["bone"], rest.masks["bone"])
    np.testing.assert_array_equal(moved.masks["body"], rest.masks["body"])


def test_phase_is_periodic():
    almost_round = thorax_phantom(2, 32, phase=0.999, findings=()).ct_hu
    np.testing.assert_allclose(almost_round, thorax_phantom(2, 32, phase=0.0, findings=()).ct_hu, atol=2)
    drawn = [thorax_phantom(2, 16, phase=None).description["phase"] for _ in range(2)]
    assert drawn[0] == drawn[1] and 0 <= drawn[0] < 1


def test_series_starts_at_phase_zero_and_averages_over_time():
    series = phantom_series(4, 24, num_phases=2)
    assert series.shape == (2, 24, 24, 24) and series.dtype == np.float32
    np.testing.assert_array_equal(series[0], thorax_phantom(4, 24).ct_hu)
    np.testing.assert_array_equal(series[1], thorax_phantom(4, 24, phase=0.5).ct_hu)
    average = series.mean(0)
    still = series.std(0) < 1e-3
    assert 0.5 < still.mean() < 1
    np.testing.assert_allclose(average[still], series[0][still], atol=1e-2)
    assert np.abs(series - average).max() > 100


@pytest.mark.parametrize(("name", "reach"), [("nodule", 1), ("effusion", 6), ("cardiomegaly", 8), ("scoliosis", 10)])
@pytest.mark.parametrize("seed", [7])
def test_finding_changes_its_mask_and_little_elsewhere(name, reach, seed):
    without, shown = healthy(seed), thorax_phantom(seed, findings=[name])
    assert set(shown.masks) == {*ORGANS, name} and set(shown.description["findings"]) == {name}
    mask = shown.masks[name]
    change = np.abs(shown.ct_hu - without.ct_hu)
    assert change[mask].mean() > 50
    near = grow(mask | (without.masks["spine"] if name == "scoliosis" else mask), reach)
    assert change[~near].sum() < 0.03 * change.sum()


def test_findings_are_independent_of_each_other():
    alone, together = (thorax_phantom(3, 32, findings=names) for names in (["nodule"], FINDINGS))
    assert alone.description["findings"]["nodule"] == together.description["findings"]["nodule"]


@pytest.mark.parametrize("seed", range(2))
def test_nodule_mask_has_the_stated_volume_and_place(seed):
    phantom = thorax_phantom(seed, 128, findings=["nodule"])
    stated = phantom.description["findings"]["nodule"]
    volume = phantom.masks["nodule"].sum() * (320 / 128) ** 3
    assert volume == pytest.approx(4 / 3 * np.pi * stated["radius_mm"] ** 3, rel=0.15)
    np.testing.assert_allclose(centroid_mm(phantom, "nodule"), stated["center_mm"], atol=1)
    assert healthy(seed, 128).masks["lungs"][phantom.masks["nodule"]].mean() > 0.9


def test_cardiomegaly_enlarges_the_heart_and_scoliosis_bends_the_spine():
    without = healthy(1)
    assert thorax_phantom(1, findings=["cardiomegaly"]).masks["heart"].sum() > 1.3 * without.masks["heart"].sum()
    bent = thorax_phantom(1, findings=["scoliosis"])
    spines = [phantom.masks["spine"] for phantom in (bent, without)]
    sway = [np.ptp([np.argwhere(spine[:, :, k])[:, 0].mean() for k in range(8, 56, 4)]) for spine in spines]
    assert sway[0] > sway[1] + 2  # voxels


def test_findings_are_drawn_from_the_seed():
    drawn = [frozenset(draw_findings(draw_patient(seed), None).findings) for seed in range(60)]
    assert drawn == [frozenset(draw_findings(draw_patient(seed), None).findings) for seed in range(60)]
    assert len(set(drawn)) > 3 and 12 < sum(not names for names in drawn) < 48
    assert frozenset(thorax_phantom(1, 8).description["findings"]) == drawn[1]


def test_mean_of_other_patients_has_a_low_psnr():
    volumes = np.stack([np.clip(healthy(seed).ct_hu, -1024, 1476) for seed in range(12)])
    total = volumes.sum(0)
    error = [np.mean((volume - (total - volume) / 11) ** 2) for volume in volumes]
    assert np.mean(20 * np.log10(2500 / np.sqrt(error))) < 22  # dB


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": -1}, "seed must be an integer from 0 up, got -1"),
        ({"size": 4}, "size must be an integer of at least 8, got 4"),
        ({"extent": 0.0}, "extent must be a positive length in mm, got 0"),
        ({"phase": 1.0}, r"phase must be within \[0, 1\), got 1.0"),
        ({"findings": ["fracture"]}, "unknown findings fracture; choose from nodule"),
        ({"findings": "nodule"}, "findings must be a sequence of names"),
        ({"version": 3}, "version must be 1 or 2, got 3"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, message):
    with pytest.raises(ValueError, match=message):
        thorax_phantom(**{"seed": 0, "size": 16, **arguments})


def test_series_refuses_no_phases():
    with pytest.raises(ValueError, match="num_phases must be at least 1, got 0"):
        phantom_series(0, 16, num_phases=0)
