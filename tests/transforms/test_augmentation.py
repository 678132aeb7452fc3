"""Random radiographs: each change by itself, off means off, and the seed decides."""

import pytest
import torch

from trct_monai.physics import harden
from trct_monai.transforms import RandRadiographd
from trct_monai.transforms.augmentation import collimate, in_eight_bits

OFF = {
    **{"gain": 0.0, "gamma": 0.0, "photons": None, "blur": 0.0, "collimation": 0.0},
    **{"hardening": 0.0, "scatter": 0.0, "window": 0.0, "kvp": None},
}


def image() -> torch.Tensor:
    return 5 * torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))


def changed(seed: int = 0, **options: object) -> torch.Tensor:
    transform = RandRadiographd(**{**OFF, "prob": 1.0, **options}).set_random_state(seed)  # type: ignore[arg-type]
    result: torch.Tensor = transform({"image": image()})["image"]
    return result


def test_off_changes_nothing() -> None:
    assert torch.equal(changed(), image())
    assert torch.equal(RandRadiographd(prob=0.0)({"image": image()})["image"], image())


def test_gain_is_a_factor_for_each_view() -> None:
    ratio = changed(gain=0.2) / image()
    factors = ratio.mean(dim=(1, 2))
    torch.testing.assert_close(ratio, factors[:, None, None].expand_as(ratio))
    assert len(set(factors.tolist())) == 3


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"gain": 0.1}, False),
        ({"gamma": 0.1}, False),
        ({"hardening": 0.1}, False),
        ({"kvp": (80, 120)}, False),
        ({"scatter": 0.1}, False),
        ({"photons": 1e4, "blur": 1.0, "collimation": 0.1, "window": 0.05}, True),
    ],
)
def test_only_a_changed_exposure_is_no_fact_any_more(options: dict[str, object], kept: bool) -> None:
    known = torch.tensor([True, True, False])
    transform = RandRadiographd(**{**OFF, "prob": 1.0, **options})  # type: ignore[arg-type]
    result = transform({"image": image(), "exposed": known})["exposed"]
    assert result.tolist() == [kept, kept, False] and known.tolist() == [True, True, False]


def test_gamma_keeps_order_and_largest_value() -> None:
    result = changed(gamma=0.3)
    torch.testing.assert_close(result.amax(dim=(1, 2)), image().amax(dim=(1, 2)))
    for before, after in zip(image(), result):
        assert torch.equal(before.flatten().argsort(), after.flatten().argsort())
    assert not torch.allclose(result, image())


def test_noise_and_blur_change_the_detail_and_not_the_mean() -> None:
    noisy, blurred = changed(photons=1e4), changed(blur=2.0)
    assert (noisy - image()).abs().mean() > 1e-4 and abs(float((noisy - image()).mean())) < 0.02
    assert blurred.std() < image().std()


def test_shutters_leave_the_field_alone() -> None:
    view = image()[0]
    result = collimate(view, [0.25, 0.0, 0.125, 0.5])
    assert torch.equal(result[8:, 4:16], view[8:, 4:16])
    assert (result[:8] == view.max()).all() and (result[:, 16:] == view.max()).all()
    assert not torch.equal(changed(collimation=0.3), image())


def test_hardening_takes_most_from_what_attenuates_most() -> None:
    loss = 1 - changed(hardening=0.3) / image()
    for before, lost in zip(image(), loss):
        assert torch.equal(before.flatten().argsort(), lost.flatten().argsort())
        assert 0 < lost.max() <= 0.3


def test_a_tube_voltage_hardens_each_view_as_a_beam_through_water() -> None:
    result = changed(kvp=(80.0, 120.0))
    low, high = (harden(image(), kvp) for kvp in (120.0, 80.0))
    assert bool((result > low).all() and (result < high).all())
    torch.testing.assert_close(changed(kvp=(100.0, 100.0)), harden(image(), 100.0))


def test_scatter_lowers_contrast() -> None:
    result = changed(scatter=0.5)
    assert result.mean() < image().mean() and result.std() < image().std()


def test_eight_bits_cut_off_both_ends_and_round_the_rest() -> None:
    view = image()[0]
    low, high = view.min() + 0.1 * (view.max() - view.min()), view.max() - 0.2 * (view.max() - view.min())
    result = in_eight_bits(view, 0.1, 0.2)
    torch.testing.assert_close(result, view.clamp(low, high), atol=float(high - low) / 255 / 2 + 1e-6, rtol=0)
    assert len(result.unique()) <= 256
    assert not torch.equal(changed(window=0.2), image())


def test_the_seed_decides_and_missing_views_stay_missing() -> None:
    every = {"gain": 0.1, "gamma": 0.1, "photons": 1e3, "blur": 1.0, "collimation": 0.1}
    assert torch.equal(changed(3, **every), changed(3, **every)) and not torch.equal(
        changed(3, **every), changed(4, **every)
    )
    missing = image()
    missing[1] = torch.nan
    result = RandRadiographd(prob=1.0).set_random_state(0)({"image": missing})["image"]
    assert result[1].isnan().all() and result[[0, 2]].isfinite().all()


@pytest.mark.parametrize("kvp", [(120.0, 80.0), (10.0, 80.0), (80.0, 160.0), (80.0,)])
def test_tube_voltages_out_of_range_are_refused(kvp: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="kvp must be two tube voltages above 20 and at most 150 kV"):
        RandRadiographd(kvp=kvp)


@pytest.mark.parametrize(
    "wrong", [{"gain": -1.0}, {"collimation": 0.5}, {"photons": 0.0}, {"prob": 2}, {"scatter": 1.0}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        RandRadiographd(**wrong)  # type: ignore[arg-type]
