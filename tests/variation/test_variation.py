"""Variations of a CT: what they change, and what they leave."""

import numpy as np
import pytest
import torch

from trct_monai.geometry import voxel_to_world
from trct_monai.variation import (
    Strengths,
    displaced,
    draw_lattice,
    enhanced,
    identity_lattice,
    limited,
    recoloured,
    shapes_of_others,
    tissue_curve,
    warped,
    with_arms,
    with_table,
)

SHAPE, SPACING = (44, 36, 40), 10.0
STILL = {
    "rotation_deg": 0, "shear": 0, "scale": 0, "shift_mm": 0, "elastic_mm": (0,), "elastic_nodes_mm": (100,)
}  # fmt: skip


def body() -> torch.Tensor:
    """An ellipse of soft tissue along z in air, a lung at its left and right, a heart at its left."""
    matrix = voxel_to_world(SHAPE, SPACING)
    x, y, z = (
        (torch.arange(n) * SPACING + float(matrix[axis, 3])).view([-1 if axis == other else 1 for other in range(3)])
        for axis, n in enumerate(SHAPE)
    )
    ct = torch.full(SHAPE, -1000.0)
    ct[((x / 140) ** 2 + (y / 100) ** 2 + 0 * z) < 1] = 40
    for side in (-70, 70):
        ct[(((x - side) / 50) ** 2 + (y / 60) ** 2 + (z / 120) ** 2) < 1] = -850
    ct[(((x + 30) / 40) ** 2 + ((y - 20) / 40) ** 2 + ((z + 30) / 50) ** 2) < 1] = 50
    return ct[None]


def test_the_identity_changes_nothing() -> None:
    ct = body()
    torch.testing.assert_close(warped(ct, SPACING, identity_lattice(SHAPE, SPACING)), ct, atol=0.05, rtol=0)
    none = Strengths(0, 0, 0, 0, (0,), (100.0,), 0, 0, 0)
    lattice = draw_lattice(np.random.RandomState(0), SHAPE, SPACING, none)
    torch.testing.assert_close(lattice, identity_lattice(SHAPE, SPACING))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_voxels_are_taken_from_where_the_lattice_says(axis: int) -> None:
    lattice = identity_lattice(SHAPE, SPACING)
    lattice[axis] += 2 * SPACING
    result, expected = warped(body(), SPACING, lattice), body().roll(-2, dims=axis + 1)
    inside = (slice(None), *(slice(3, -3),) * 3)
    torch.testing.assert_close(result[inside], expected[inside], atol=0.1, rtol=0)


def test_what_lies_beyond_a_ct_is_air() -> None:
    lattice = identity_lattice(SHAPE, SPACING) + 1000
    torch.testing.assert_close(warped(body(), SPACING, lattice), torch.full((1, *SHAPE), -1000.0))


def test_no_warp_folds_or_mirrors_a_patient() -> None:
    """Hearts are on the left."""
    random = np.random.RandomState(0)
    steps = [(SPACING * (n - 1) / 15) for n in SHAPE]
    for _ in range(50):
        lattice = draw_lattice(random, SHAPE, SPACING)
        slopes = torch.stack(
            [lattice.diff(dim=axis + 1)[:, :15, :15, :15] / step for axis, step in enumerate(steps)], dim=1
        )
        determinant = torch.linalg.det(slopes.permute(2, 3, 4, 0, 1))
        assert determinant.min() > 0.05 and 0.4 < determinant.mean() < 2.5


def test_warps_differ_and_follow_their_random_numbers() -> None:
    one, two, again = (draw_lattice(np.random.RandomState(seed), SHAPE, SPACING) for seed in (0, 1, 0))
    assert torch.equal(one, again) and (one - two).abs().max() > 5


def test_a_breath_moves_the_diaphragm_and_habitus_the_outline() -> None:
    breath = draw_lattice(
        np.random.RandomState(0), SHAPE, SPACING, Strengths(**STILL, breath_mm=10, habitus=0, outline=0)
    )
    moved = breath - identity_lattice(SHAPE, SPACING)
    low, high = moved[2, 8, 8, 2].abs(), moved[2, 8, 8, 13].abs()
    assert low > 5 * high and not moved[0].any()
    habitus = draw_lattice(
        np.random.RandomState(0), SHAPE, SPACING, Strengths(**STILL, breath_mm=0, habitus=0.1, outline=0)
    )
    moved = (habitus - identity_lattice(SHAPE, SPACING)).abs()
    assert moved[0, 1, 8, 8] > 10 * moved[0, 6, 8, 8] and not moved[2].any()


def test_the_outline_varies_around_the_body_and_along_it_and_not_inside() -> None:
    strengths = Strengths(**STILL, breath_mm=0, habitus=0, outline=0.1)
    relative = torch.stack([
        draw_lattice(np.random.RandomState(seed), SHAPE, SPACING, strengths) / identity_lattice(SHAPE, SPACING)
        for seed in range(40)
    ])  # fmt: skip
    torch.testing.assert_close(relative[:, 0], relative[:, 1])
    assert relative[:, 2].eq(1).all()
    change = relative[:, 0] - 1
    assert change[:, 2, 8, 8].std() > 10 * change[:, 6, 8, 8].std() and change.abs().max() < 0.4
    left, right, front = change[:, 2, 8, 8], change[:, 13, 8, 8], change[:, 8, 14, 8]
    top, bottom = change[:, 2, 8, 15], change[:, 2, 8, 0]
    for one, other in ((left, right), (left, front), (top, bottom)):
        assert abs(torch.corrcoef(torch.stack([one, other]))[0, 1]) < 0.8


def test_strengths_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, and elastic_nodes_mm positive"):
        Strengths(shear=-0.1)
    with pytest.raises(ValueError, match="one for each of elastic_mm"):
        Strengths(elastic_mm=(1.0,), elastic_nodes_mm=())


def test_a_curve_of_tissues_meets_its_points_and_keeps_their_order() -> None:
    random = np.random.RandomState(0)
    for _ in range(20):
        before, after = tissue_curve(random, 2.0)
        assert before[0] == after[0] == -1000 and np.all(np.diff(after) > 0)
        points = torch.tensor([*before, before[-1] + 500])
        expected = torch.tensor([*after, after[-1] + 500])
        torch.testing.assert_close(recoloured(points, before, after), expected, atol=1e-2, rtol=1e-5)


def test_contrast_agent_is_where_blood_may_be() -> None:
    ct = body()
    result = enhanced(ct, SPACING, (-30.0, 20.0, -30.0), 30.0, 100.0) - ct
    heart = (ct.shape[1] // 2 - 3, ct.shape[2] // 2 + 2, ct.shape[3] // 2 - 3)
    assert result[0][heart] > 80
    assert not result[ct < -500].any() and result.abs()[:, -6:].max() < 1


def test_a_table_lies_behind_the_body_and_arms_beside_it() -> None:
    ct = body()
    table = with_table(ct, SPACING, 5.0, 0.0, 30.0, 100.0) != ct
    assert table.any() and not table[:, :, SHAPE[1] // 2 :].any()
    assert table[0, SHAPE[0] // 2].any() and not table[ct > -700].any()
    arms = with_arms(ct, SPACING, 40.0, (5.0, 0.0), (True, False), 700.0)
    added = arms != ct
    assert added[:, : SHAPE[0] // 2].any() and not added[:, SHAPE[0] // 2 :].any()
    assert float(arms[added].max()) == 700
    air = torch.full((1, *SHAPE), -1000.0)
    assert torch.equal(with_table(air, SPACING, 0, 0, 30, 100), air)
    assert torch.equal(with_arms(air, SPACING, 40, (0, 0), (True, True), 700), air)


def test_a_scan_ends_where_it_is_told() -> None:
    ct = torch.zeros(1, *SHAPE)
    result = limited(ct, SPACING, -100.0, 50.0, 150.0)
    assert torch.equal(result == 0, limited(ct, SPACING, -100, 50).eq(0) & limited(ct, SPACING, radius_mm=150.0).eq(0))
    seen = (result[0] == 0).nonzero().double()
    z = (seen[:, 2] - (SHAPE[2] - 1) / 2) * SPACING
    radius = ((seen[:, :2] - torch.tensor([(n - 1) / 2 for n in SHAPE[:2]])) * SPACING).norm(dim=1)
    assert -100 <= z.min() and z.max() <= 50 and radius.max() <= 150 < radius.max() + SPACING


def test_a_ct_takes_the_shape_of_another_and_a_share_goes_a_part_of_the_way() -> None:
    chest, lattice = body(), identity_lattice(SHAPE, SPACING)
    wider = lattice * torch.tensor([0.88, 0.92, 1.0]).view(3, 1, 1, 1) + torch.tensor([6.0, 0.0, 9.0]).view(3, 1, 1, 1)
    other = warped(chest, SPACING, wider)
    (found,) = shapes_of_others(chest, [other], SPACING)
    assert torch.equal(shapes_of_others(chest, [], SPACING), found[None][:0])

    def error(share: float, target: torch.Tensor) -> float:
        moved = warped(chest, SPACING, displaced(lattice, share * found, SHAPE, SPACING))
        return float((moved - target).clamp(-1000, 1000).square().mean())

    halfway = warped(chest, SPACING, (lattice + wider) / 2)
    assert error(1.0, other) < 0.2 * error(0.0, other)
    assert error(0.5, halfway) < 0.3 * min(error(0.0, halfway), error(1.0, halfway))


def test_a_displacement_is_linear_between_the_nodes_of_its_lattice() -> None:
    shape, matrix = (20, 16, 12), torch.tensor([[0.1, 0.0, 0.02], [0.0, -0.1, 0.0], [0.05, 0.0, 0.0]])
    nodes = torch.einsum("ij,jxyz->ixyz", matrix, identity_lattice(shape, SPACING))
    positions = torch.tensor([[12.0, -30.0, 7.0], [-80.0, 60.0, 40.0]]).T.view(3, 2, 1, 1)
    expected = positions + torch.einsum("ij,jxyz->ixyz", matrix, positions)
    for number in ((), (2,)):
        found = displaced(positions, nodes.expand(*number, -1, -1, -1, -1), shape, SPACING)
        torch.testing.assert_close(found, expected.expand(*number, -1, -1, -1, -1))


def test_slices_that_one_of_two_scans_lacks_do_not_shape_it() -> None:
    chest, other = body(), body()
    other[..., :13] = -1000
    (found,) = shapes_of_others(chest, [other], SPACING)
    assert float(found.abs().amax()) < 5
