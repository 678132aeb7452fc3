"""Findings: each changes what it says, where it says, and nothing without its place."""

from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.devices.accelerator import ACCELERATOR, accelerator
from trct_monai.phantoms import Phantom, thorax_phantom
from trct_monai.variation import FINDINGS, draw_findings, find_anatomy, findings_probabilities, with_findings
from trct_monai.variation.tubes import put_tube

SIZE, SPACING = 40, 8.0


@cache
def healthy() -> Phantom:
    return thorax_phantom(3, SIZE, findings=())


def body() -> Tensor:
    return torch.from_numpy(healthy().ct_hu)[None]


def drawn(name: str, seed: int = 0) -> Tensor:
    """How a finding changes a healthy phantom."""
    return (with_findings(body(), SPACING, [name], np.random.RandomState(seed)) - body())[0]


def center(change: Tensor) -> Tensor:
    """Centre of a change in mm."""
    weight = change.abs()
    axes = [SPACING * (torch.arange(n) - (n - 1) / 2) for n in weight.shape]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return (places * weight).sum(dim=(1, 2, 3)) / weight.sum()


def test_lungs_are_where_the_phantom_has_them_wherever_the_scan_ends() -> None:
    truth = healthy().masks["lungs"]
    for ct in (body(), body()[..., 12:], torch.cat([torch.full((1, SIZE, SIZE, 10), -1000.0), body()[..., 12:-6]], 3)):
        anatomy = find_anatomy(ct, SPACING)
        left, right = (anatomy.positions(anatomy.lungs[side])[:, 0].mean() for side in ("left", "right"))
        assert left < anatomy.middle < right
    found = np.logical_or(*find_anatomy(body(), SPACING).lungs.values())
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.8


@pytest.mark.parametrize("name", FINDINGS)
def test_every_finding_changes_some_of_a_ct_and_is_the_same_from_the_same_seed(name: str) -> None:
    before = body()
    results = [with_findings(before, SPACING, [name], np.random.RandomState(seed)) for seed in (1, 1, 2)]
    assert torch.equal(before, body())
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])
    for result in results:
        volume = ((result - before).abs() > 10).sum() * SPACING**3 / 1e3
        assert volume > 0.5 and result.dtype == before.dtype and result.shape == before.shape
        assert bool(result.isfinite().all()) and -1024 <= result.min() and result.max() <= 3071


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_without_its_place_is_left_out(name: str) -> None:
    for hu in (-1000.0, 40.0):
        empty = torch.full((1, 12, 10, 8), hu)
        result = with_findings(empty, SPACING, [name], np.random.RandomState(0))
        assert result.shape == empty.shape and bool(result.isfinite().all())
        if hu == -1000:
            assert torch.equal(result, empty)


@pytest.mark.parametrize("name", FINDINGS)
def test_findings_stay_on_their_device(name: str) -> None:
    with accelerator():
        result = with_findings(body().to(ACCELERATOR), SPACING, [name], np.random.RandomState(0))
    assert result.device == ACCELERATOR


def test_fluid_gathers_below_and_behind() -> None:
    lungs = center(torch.from_numpy(healthy().masks["lungs"]).float())
    for seed in range(4):
        change = drawn("effusion", seed)
        assert change.min() >= 0
        x, y, z = (center(change) - lungs).tolist()
        assert y < 0 and z < -20 and abs(x) < 120


def test_a_lobe_fills_and_a_pneumothorax_empties_one_lung() -> None:
    lobe, air = drawn("missing_lobe"), drawn("pneumothorax")
    assert lobe.min() >= 0 and lobe.max() > 500
    emptied = with_findings(body(), SPACING, ["pneumothorax"], np.random.RandomState(0))[0] < -990
    assert emptied.sum() * SPACING**3 / 1e3 > 50 and air.max() > 0
    for change in (lobe, air):
        left, right = change[: SIZE // 2].abs().sum(), change[SIZE // 2 :].abs().sum()
        assert min(left, right) < 0.2 * max(left, right)


def test_a_heart_grows_into_the_lungs_and_a_spine_bends_within_its_slices() -> None:
    grown = drawn("cardiomegaly")
    assert grown[torch.from_numpy(healthy().masks["lungs"])].mean() > 0
    bent = with_findings(body(), SPACING, ["scoliosis"], np.random.RandomState(0))[0]
    inside = slice(4, -4)
    torch.testing.assert_close(bent.mean(dim=(0, 1))[inside], body()[0].mean(dim=(0, 1))[inside], atol=40.0, rtol=0)
    assert (bent - body()[0]).abs().mean() > 20


def test_bones_go_missing_and_metal_is_as_dense_as_files_hold() -> None:
    missing = drawn("missing_bone")
    assert missing.max() <= 0 and bool((body()[0][missing < 0] > 80).all())
    assert drawn("pacemaker").max() > 1000
    place = center(drawn("pacemaker").clamp(min=1000) - 1000)
    assert place[1] > 25 and place[2] > 20  # in front and above


def test_thin_wires_keep_their_volume() -> None:
    """Twice the section of a wire attenuates twice as much, however thin it is against a voxel."""
    path = np.array([[-50.3, 1.7, 2.2], [60.0, 11.0, -30.0]])
    length = float(np.linalg.norm(path[1] - path[0]))
    for radius in (0.5, 1.0, 6.0):
        ct = torch.zeros(1, SIZE, SIZE, SIZE)
        put_tube(ct, 4.0, path, radius, 1000.0)
        assert abs(float(ct.sum()) * 4.0**3 / 1000 / (np.pi * radius**2 * length) - 1) < 0.1


def test_names_are_drawn_by_their_probabilities() -> None:
    random, only = np.random.RandomState(0), dict.fromkeys(FINDINGS, 0.0) | {"effusion": 0.1, "nodules": 0.1}
    counts = [draw_findings(random, findings_probabilities(only)) for _ in range(300)]
    assert {name for names in counts for name in names} == {"effusion", "nodules"}
    assert min(map(len, counts)) == 1 and 100 < sum("nodules" in names for names in counts) < 220
    assert draw_findings(random, dict.fromkeys(FINDINGS, 0.0)) == []
    with pytest.raises(
        ValueError, match=r"no finding is called nodule \(did you mean nodules\?\); there are scoliosis"
    ):
        findings_probabilities({"nodule": 1.0})
    with pytest.raises(ValueError, match=r"the probability of rods must lie in \[0, 1\], got 2"):
        findings_probabilities({"rods": 2})
