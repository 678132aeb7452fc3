"""What a loss shall weigh more, from the transform that draws findings to the label of a batch."""

import pytest
import torch

from trct_monai.geometry import preset, projection_matrices
from trct_monai.phantoms import thorax_phantom
from trct_monai.transforms import CutCubed, PrepareViews, RandFindingsd, RandScanLimitsd, RenderViews
from trct_monai.transforms.findings import EMPHASIS_ML, MOST_EMPHASIS, emphasised
from trct_monai.variation import FINDINGS

EXTENT = 320.0
NONE = dict.fromkeys(FINDINGS, 0.0)
NODULES = {"keys": "label", "emphasis": True, "findings": {**NONE, "nodules": 1.0}}


def case() -> dict[str, torch.Tensor]:
    hu = torch.from_numpy(thorax_phantom(3, 32, EXTENT).ct_hu)[None]
    return {
        "label": ((hu + 1024) / 2500).clamp(0, 1).float(),
        "image": torch.zeros(2, 16, 16),
        "matrices": projection_matrices(list(preset("x2ct", 16))),
    }


def test_emphasis_is_where_findings_are_and_nowhere_else() -> None:
    before = case()
    after = RandFindingsd(prob=1.0, **NODULES).set_random_state(1)(case())
    changed = (after["label"] - before["label"]).abs()
    assert (after["emphasis"][changed > 1e-4] > 0).all() and not after["emphasis"][changed == 0].any()
    assert after["emphasis"].any()
    without = RandFindingsd(prob=0.0, **NODULES)(case())
    assert without["emphasis"].shape == without["label"].shape and not without["emphasis"].any()
    assert "emphasis" not in RandFindingsd(prob=1.0)(case())


def test_what_moves_the_anatomy_takes_no_weight_from_a_nodule_and_gets_none() -> None:
    moved = RandFindingsd(prob=1.0, emphasis=True, findings={**NONE, "scoliosis": 1.0})(case())
    assert not torch.equal(moved["label"], case()["label"]) and not moved["emphasis"].any()
    both = RandFindingsd(prob=1.0, emphasis=True, findings={**NONE, "scoliosis": 1.0, "nodules": 1.0})
    most = [float(both.set_random_state(seed)(case())["emphasis"].max()) for seed in range(6)]
    assert min(most) > 0.3


def test_beyond_the_limits_of_a_scan_nothing_is_emphasised() -> None:
    box = torch.zeros(1, 32, 32, 32)
    limits = RandScanLimitsd("patient", spacing=10.0, extent=EXTENT, prob=1.0).set_random_state(0)
    result = limits({"patient": box, "emphasis": torch.ones_like(box)})
    assert torch.equal(result["emphasis"] == 0, result["patient"] != box) and (result["emphasis"] == 0).any()


def test_a_small_lesion_weighs_more_in_each_voxel_and_less_in_all() -> None:
    spacing = 5.0
    size = round(EMPHASIS_ML * 1000 / spacing**3)
    for number in (size // 4, size, 4 * size):
        change = torch.zeros(1, 20, 20, 20)
        change.view(-1)[:number] = -500.0
        weight = emphasised(change, spacing)
        assert weight.max() == pytest.approx((size / number) ** 0.5, rel=1e-2)
        assert weight.sum() == pytest.approx((size * number) ** 0.5, rel=1e-2)
    change = torch.zeros(1, 20, 20, 20)
    change[0, 0, 0, 0] = 1e5
    assert emphasised(change, spacing).max() == 2 * MOST_EMPHASIS


def test_it_is_the_second_channel_of_the_label_by_either_way() -> None:
    draw = RandFindingsd(prob=1.0, **NODULES).set_random_state(1)
    one = draw(case())
    batch = {key: value[None] for key, value in one.items()}
    _, label, _, _ = PrepareViews()(batch, "cpu", False)
    assert torch.equal(label[0, :1], one["label"]) and torch.equal(label[0, 1:], one["emphasis"])

    box = (2500 * case()["label"] - 1024).round().to(torch.int16)
    changed = draw.set_random_state(1)({"patient": box})
    cut = CutCubed(size=16, spacing=EXTENT / 32, extent=EXTENT)(changed)
    assert torch.equal(cut["emphasis"], torch.nn.functional.avg_pool3d(changed["emphasis"], 2))
    batch = {key: value[None] for key, value in cut.items()}
    _, label, _, _ = RenderViews(radiograph_size=16, extent=EXTENT, spacing=EXTENT / 32)(batch, "cpu", False)
    assert torch.equal(label[0, :1], cut["label"]) and torch.equal(label[0, 1:], cut["emphasis"])
