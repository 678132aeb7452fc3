"""Findings in a case: radiographs and label change together, as if the changed patient had been rendered."""

from typing import Any

import pytest
import torch
from torch import Tensor

from trct_monai.geometry import preset, projection_matrices
from trct_monai.intensity import HU_WINDOW, hu_to_attenuation, hu_to_unit, unit_to_hu
from trct_monai.phantoms import Phantom
from trct_monai.projector import project_hu
from trct_monai.transforms import RandFindingsd

EXTENT, CAMERAS = 320.0, list(preset("x2ct", 32))


def only(name: str, **options: Any) -> RandFindingsd:
    none = dict.fromkeys(RandFindingsd().probabilities, 0.0)
    return RandFindingsd(prob=1.0, findings={**none, name: 1.0}, **options).set_random_state(0)


@pytest.fixture
def case(phantom: Phantom) -> dict[str, Tensor]:
    label = hu_to_unit(torch.from_numpy(phantom.ct_hu)[None])
    image = project_hu(unit_to_hu(label), CAMERAS, EXTENT / label.shape[-1])
    return {"label": label, "image": image, "matrices": projection_matrices(CAMERAS)}


@pytest.mark.parametrize("name", ["effusion", "scoliosis", "nodules"])
def test_radiographs_are_those_of_the_changed_patient(name: str, case: dict[str, Tensor]) -> None:
    result = only(name, hu_window=(-1024.0, 4000.0))(
        case | {"label": hu_to_unit(unit_to_hu(case["label"]), (-1024.0, 4000.0))}
    )
    label = unit_to_hu(result["label"], (-1024.0, 4000.0))
    expected = project_hu(label, CAMERAS, EXTENT / label.shape[-1])
    change, expected_change = result["image"] - case["image"], expected - case["image"]
    assert expected_change.abs().max() > 0.02
    assert (change - expected_change).norm() < 0.2 * expected_change.norm()  # interpolated on a finer grid
    assert abs(float((change - expected_change).sum())) < 0.05 * float(expected_change.abs().sum())


def test_a_label_is_clipped_and_the_shadow_of_metal_is_not(case: dict[str, Tensor]) -> None:
    results = [only("pacemaker", hu_window=window)(case) for window in (HU_WINDOW, (-1024.0, 300.0))]
    for result in results:
        assert 0 <= result["label"].min() <= result["label"].max() <= 1
        assert (result["image"] - case["image"]).max() > 0.3
    clipped = hu_to_attenuation(unit_to_hu(results[1]["label"], (-1024.0, 300.0))).max()
    assert clipped < hu_to_attenuation(torch.tensor(301.0))


def test_missing_views_stay_missing_and_all_else_finite_of_its_type(case: dict[str, Tensor]) -> None:
    case["image"][1] = torch.nan
    result = RandFindingsd(prob=1.0).set_random_state(1)(case)
    assert bool(result["image"][1].isnan().all()) and bool(result["image"][0].isfinite().all())
    assert not torch.equal(result["image"][0], case["image"][0])
    assert all(result[key].dtype == case[key].dtype for key in case)


def test_without_chance_nothing_changes_and_the_same_seed_gives_the_same(case: dict[str, Tensor]) -> None:
    still = RandFindingsd(prob=0.0)(case)
    assert all(torch.equal(still[key], case[key]) or case[key].isnan().any() for key in case)
    findings = RandFindingsd(prob=1.0)
    one, other, again = (findings.set_random_state(seed)(case) for seed in (5, 6, 5))
    assert torch.equal(one["label"], again["label"]) and torch.equal(one["image"], again["image"])
    assert not torch.equal(one["label"], other["label"])
    share = sum(not torch.equal(RandFindingsd(prob=0.5).set_random_state(s)(case)["label"], case["label"])
                for s in range(20))  # fmt: skip
    assert 3 < share < 17


def test_a_patient_changes_in_place_of_its_label(phantom: Phantom) -> None:
    box = torch.from_numpy(phantom.ct_hu)[None].round().to(torch.int16)
    result = only("nodules", spacing=EXTENT / box.shape[-1])({"patient": box})
    assert result["patient"].dtype == torch.int16 and not torch.equal(result["patient"], box)


def test_a_label_alone_changes_alone(case: dict[str, Tensor]) -> None:
    result = only("effusion")({"label": case["label"]})
    assert result.keys() == {"label"} and (result["label"] - case["label"]).max() > 0.2


def test_mistakes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"prob must lie in \[0, 1\], got 2"):
        RandFindingsd(prob=2)
    with pytest.raises(ValueError, match=r"no finding is called tube \(did you mean tubes"):
        RandFindingsd(findings={"tube": 0.1})
