"""Calibrated intervals: they hold their share of voxels, in order, around an unchanged reconstruction."""

import warnings
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.test_contracts import perturbed
from trct_monai.geometry import Camera, preset, projection_matrices
from trct_monai.intensity import BODY_HU, unit_to_hu
from trct_monai.io.weights import load_frozen, save_state, ship_weights
from trct_monai.losses import LaplaceNLLLoss
from trct_monai.metrics.reprojection import relative_residual
from trct_monai.metrics.uncertainty import QUANTILES
from trct_monai.networks import AnyView, IntervalNetwork
from trct_monai.projector import project_hu
from trct_monai.training.calibration import Deviations, calibrate, conformal_quantile
from trct_monai.training.intervals import load_intervals, save_intervals

SIZE = 16
MATRICES = projection_matrices(preset("circle-4"))


def any_view() -> AnyView:
    torch.manual_seed(0)
    network = AnyView(
        SIZE, encoder_channels=(4, 8), decoder_channels=(8, 4), num_blocks=1, view_channels=4,
        num_steps=1, step_size=16, num_modes=4, max_views=4,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    network.linear_start.fit(0.5 * torch.rand(5, 1, SIZE, SIZE, SIZE, generator=generator))
    return network


def cases(number: int = 3) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    return [
        {
            "image": 5 * torch.rand(4, 32, 32, generator=generator),
            "matrices": MATRICES,
            "label": torch.rand(1, SIZE, SIZE, SIZE, generator=generator),
        }
        for _ in range(number)
    ]


def rendered() -> list[dict[str, Tensor]]:
    """Cases whose radiographs are those of their labels."""
    cameras = [Camera.from_world_to_detector(matrix.double(), (32, 32)) for matrix in MATRICES]
    return [{**case, "image": project_hu(unit_to_hu(case["label"]), cameras, 320.0 / SIZE)} for case in cases()]


def calibrated() -> IntervalNetwork:
    network = IntervalNetwork(perturbed(any_view()), channels=4)
    calibrate(network, cases(), usual_views=[0, 2])
    return network


def test_conformal_quantile_by_hand() -> None:
    values = np.arange(1.0, 20.0)  # 19 values: the 10th is the median, the 18th holds 90 % of a 20th
    assert conformal_quantile(values, 0.5) == 10 and conformal_quantile(values, 0.9) == 18
    assert conformal_quantile(values[:3], 0.9) == 3


@pytest.mark.parametrize("number", [1, 2, 4])
def test_calibrated_intervals_hold_their_share_of_the_voxels(number: int) -> None:
    network, held, deviations = IntervalNetwork(perturbed(any_view()), channels=4), [], Deviations()
    sets = [list(views) for views in combinations(range(4), number)]
    for views in sets:  # each alike, for which of them are drawn is chance
        deviations.add(network, rendered(), views)
    deviations.set_factors(network)
    for case, views in product(rendered(), sets):
        with torch.no_grad():
            result = network(case["image"][None, views], MATRICES[None, views])[0]
        volume, *quantiles = result
        assert result.shape == (1 + len(QUANTILES), SIZE, SIZE, SIZE)
        assert bool((torch.stack(quantiles).diff(dim=0) >= 0).all())
        assert bool((volume >= quantiles[1]).all() and (volume <= quantiles[2]).all())
        label, inside = case["label"][0], unit_to_hu(case["label"][0]) > BODY_HU
        held.append(
            [(low <= label)[inside] & (label <= high)[inside] for low, high in (quantiles[1:3], quantiles[::3])]
        )
    half, most = (torch.cat([one[i] for one in held]).float().mean() for i in (0, 1))
    assert (half - 0.5).abs() < 0.06 and (most - 0.9).abs() < 0.06  # single views are drawn


def test_the_reconstruction_is_the_networks_own_and_training_leaves_it_alone() -> None:
    network, case = calibrated(), cases()[0]
    before = {name: value.clone() for name, value in network.network.state_dict().items()}
    image = case["image"][None]
    with torch.no_grad():
        torch.testing.assert_close(network(image, MATRICES[None])[:, :1], network.network(image, MATRICES[None]))
    network.train()
    assert not network.network.training and network.head.training
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    losses = []
    for _ in range(3):
        loss = LaplaceNLLLoss()(network(image, MATRICES[None]), case["label"][None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(torch.equal(value, before[name]) for name, value in network.network.state_dict().items())


def test_laplace_is_least_where_the_spread_is_the_error() -> None:
    volume, target = torch.zeros(1, 1, 4, 4, 4), torch.full((1, 1, 4, 4, 4), 0.2)
    loss = {
        s: LaplaceNLLLoss()(torch.cat([volume, torch.full_like(volume, s)], dim=1), target) for s in (0.1, 0.2, 0.4)
    }
    assert loss[0.2] < loss[0.1] and loss[0.2] < loss[0.4]
    torch.testing.assert_close(loss[0.2], torch.tensor(0.4).log() + 1)


def test_weights_come_back_and_others_are_refused(tmp_path: Path) -> None:
    network = calibrated()
    torch.save(network.network.state_dict(), tmp_path / "model.pt")
    with pytest.raises(FileNotFoundError, match="fit them by configs/train_intervals.json"):
        load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "intervals.pt", 4)
    save_intervals(network, tmp_path / "intervals.pt")
    again = load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "intervals.pt", 4)
    image = cases()[0]["image"][None]
    with torch.no_grad():
        assert torch.equal(again(image, MATRICES[None]), network(image, MATRICES[None]))
    with pytest.raises(ValueError, match="not the weights of intervals of this size"):
        load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "intervals.pt", 8)


def test_intervals_belong_to_one_network_alone(tmp_path: Path) -> None:
    """Other weights of the same absolute sum, such as with a sign changed, are another network."""
    network = calibrated()
    save_intervals(network, tmp_path / "intervals.pt")
    state = {name: value.clone() for name, value in network.network.state_dict().items()}
    name = next(name for name, value in state.items() if name.endswith("weight") and bool(value.any()))
    state[name] = -state[name]
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="was fitted to other weights than .*model.pt"):
        load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "intervals.pt", 4)
    torch.save({"fitted_to": torch.tensor(1.0, dtype=torch.float64)}, tmp_path / "intervals.pt")  # as 0.1.0 had it
    with pytest.raises(ValueError, match="was fitted to other weights"):
        load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "intervals.pt", 4)


def test_shipped_intervals_belong_to_the_shipped_network(tmp_path: Path) -> None:
    network = calibrated()
    save_state(tmp_path / "trained.pt", network.network.state_dict())
    save_intervals(network, tmp_path / "fitted_before.pt")
    ship_weights(tmp_path / "trained.pt", tmp_path / "model.pt")
    with pytest.raises(ValueError, match="was fitted to other weights than .*model.pt"):
        load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "fitted_before.pt", 4)
    load_frozen(network.network, tmp_path / "model.pt")
    save_intervals(network, tmp_path / "fitted.pt")
    ship_weights(tmp_path / "fitted.pt", tmp_path / "intervals.pt")
    again = load_intervals(any_view(), tmp_path / "model.pt", tmp_path / "intervals.pt", 4)
    assert {value.dtype for value in again.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(again.factors, network.factors, rtol=2**-11, atol=0)


def test_intervals_are_saved_as_configurations_of_0_1_0_do_it(tmp_path: Path) -> None:
    network = calibrated()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        network.save(tmp_path / "old.pt")  # type: ignore[operator]
    save_intervals(network, tmp_path / "new.pt")
    old, new = (torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("old", "new"))
    assert old.keys() == new.keys() and all(torch.equal(old[name], new[name]) for name in new)


def test_calibration_is_told_which_exposures_are_known() -> None:
    factors = []
    for known in (False, True):
        network = IntervalNetwork(perturbed(any_view()), channels=4)
        calibrate(network, [{**case, "exposed": torch.full((4,), known)} for case in cases()], usual_views=[0, 2])
        factors.append(network.factors)
    assert torch.equal(factors[0], calibrated().factors) and not torch.equal(factors[0], factors[1])


def test_calibration_without_cases_is_refused() -> None:
    with pytest.raises(ValueError, match="the validation section is empty"):
        calibrate(IntervalNetwork(any_view(), channels=4), [])


def test_a_case_that_is_explained_badly_has_wide_intervals() -> None:
    """The same volume, spread and start: what differs is how far its projections are from the radiographs."""
    network, image = calibrated(), cases()[0]["image"][None]
    network.train()
    spreads = []
    for residual in (0.1, 0.2, 0.4):
        network.network.unexplained = lambda *_, residual=residual: torch.tensor([residual])  # type: ignore[method-assign]
        with torch.no_grad():
            spreads.append(network(image, MATRICES[None])[:, 1])
    for narrow, wide in zip(spreads, spreads[1:]):
        torch.testing.assert_close(wide / narrow, torch.full_like(wide, 2 ** float(np.log(2))))


def test_what_volumes_leave_unexplained_is_their_relative_residual() -> None:
    network, case = any_view(), cases()[0]
    image, volume = case["image"].clone(), case["label"]
    image = torch.nn.functional.interpolate(image[None], size=(16, 16), mode="area")
    cameras = [Camera.from_world_to_detector(matrix.double(), (16, 16)) for matrix in MATRICES]
    projections = project_hu(unit_to_hu(volume), cameras, 320.0 / SIZE)
    residual = network.unexplained(volume[None], image, MATRICES[None])
    assert residual.item() == pytest.approx(relative_residual(projections, image[0]), rel=1e-4)
    image[0, 1] = torch.nan
    some = network.unexplained(volume[None], image, MATRICES[None])
    others = [0, 2, 3]
    assert some.item() == pytest.approx(relative_residual(projections[others], image[0, others]), rel=1e-4)


def test_factors_of_several_networks_are_those_of_all_their_cases() -> None:
    one, all_of_them = calibrated(), cases()
    together, pooled = Deviations(), calibrated()
    for case in all_of_them:
        single = Deviations()
        single.add(one, [case])
        together.take(single)
    together.set_factors(pooled)
    assert len(together.ratios[2]) == len(all_of_them)
    alone = [Deviations() for _ in all_of_them]
    factors = []
    for deviations, case in zip(alone, all_of_them):
        deviations.add(one, [case])
        deviations.set_factors(one)
        factors.append(one.factors.clone())
    assert bool((torch.stack(factors).amin(dim=0) <= pooled.factors).all())
    assert bool((pooled.factors <= torch.stack(factors).amax(dim=0)).all())
