"""What configurations are put together from: loaders, starts, averages, weights of a further network, named scores."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset
from monai.transforms import Compose, Lambdad, RandLambdad
from torch.utils.data import Dataset, IterableDataset

from trct_monai.baselines import MeanVolume
from trct_monai.metrics import hu_scores, motion_scores
from trct_monai.networks import AnyView, DirectRegression
from trct_monai.training import (
    FrozenWeights,
    HUEvaluator,
    WeightAverage,
    data_loader,
    device_of_loading,
    half_precision,
    linear_decay,
    process_number,
    start_from_data,
)
from trct_monai.transforms import joined


class Numbers(Dataset[int]):
    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        if index >= self.count:
            raise IndexError(index)
        return index


def epoch(loader: Any, number: int) -> list[int]:
    loader.sampler.set_epoch(number)
    return [int(one) for batch in loader for one in batch]


def test_a_loaders_order_follows_from_seed_and_epoch() -> None:
    one, same, other = (data_loader(Numbers(9), 2, seed=seed) for seed in (1, 1, 2))
    first = epoch(one, 0)
    assert sorted(first) == list(range(9)) and first != list(range(9))
    assert epoch(same, 0) == first and epoch(other, 0) != first
    assert epoch(one, 1) != first and epoch(one, 0) == first
    assert [int(batch) for batch in data_loader(Numbers(4))] == [0, 1, 2, 3]


def test_processes_share_the_cases() -> None:
    drawn = [epoch(data_loader(Numbers(5), seed=3, rank=rank, world_size=2), 0) for rank in (0, 1)]
    assert [len(part) for part in drawn] == [3, 3] and set(drawn[0] + drawn[1]) == set(range(5))
    in_order = [[int(one) for one in data_loader(Numbers(5), rank=rank, world_size=2)] for rank in (0, 1)]
    assert sorted(in_order[0] + in_order[1]) == list(range(5))


def test_an_iterable_data_set_is_read_as_it_comes() -> None:
    class Endless(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            return iter([3, 1, 2])

    assert [int(one) for one in data_loader(Endless(), seed=1)] == [3, 1, 2]


def test_cases_with_one_view_and_with_two_share_no_batch() -> None:
    """Unless transforms keep as many of each."""
    cases = [{"image": ["a", "b"]}, {"image": ["c"]}]

    def loaded(kept: int) -> CacheDataset:
        return CacheDataset(cases, Lambdad("image", lambda names: torch.zeros(len(names[:kept]), 2, 2)), progress=False)

    with pytest.raises(ValueError, match="with 1 and 2 radiographs cannot share a batch of 2: give --batch_size 1"):
        data_loader(loaded(2), 2)
    assert [len(batch["image"][0]) for batch in data_loader(loaded(2))] == [2, 1]
    assert [batch["image"].shape[:2] for batch in data_loader(loaded(1), 2)] == [(2, 1)]


def test_joined_transforms_are_kept_up_to_the_first_random_one() -> None:
    """A `Compose` within another would count as random, or be kept with what is random in it."""
    calls: list[str] = []

    def note(text: str) -> Any:
        return lambda value: calls.append(text) or value + 1

    fixed = Compose([Lambdad("a", note("one")), Compose([Lambdad("a", note("two"))])])
    transform = joined([fixed, [RandLambdad("a", note("random"), prob=1.0)], Lambdad("a", note("last"))])
    assert len(transform.transforms) == 4
    cached = CacheDataset([{"a": 0}], transform, progress=False)
    assert calls == ["one", "two"]
    assert cached[0]["a"] == 4 and calls == ["one", "two", "random", "last"]


def test_a_network_starts_from_the_mean_or_from_a_linear_model(tmp_path: Path) -> None:
    volumes = [torch.rand(1, 8, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    cases = [{"label": volume} for volume in volumes]
    small = {"encoder_channels": [4], "hidden_size": 8, "num_layers": 1, "num_heads": 2, "patch_size": 2}
    network = DirectRegression(8, decoder_channels=[4], **small)  # type: ignore[arg-type]
    start_from_data(network, cases)  # type: ignore[arg-type]
    mean = MeanVolume(8).fit(volumes).volume
    torch.testing.assert_close(network.initial_volume.detach(), mean)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    other = DirectRegression(8, decoder_channels=[4], **small)  # type: ignore[arg-type]
    start_from_data(other, start_path=tmp_path / "model.pt")
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in other.state_dict().items())
    linear = AnyView(8, encoder_channels=[4, 8], decoder_channels=[8, 4], view_channels=4, num_modes=2, num_models=2)
    start_from_data(linear, volumes, model=1)
    assert linear.linear_start.fitted.tolist() == [False, True]
    torch.testing.assert_close(linear.initial_volume[1:].detach(), mean)


def test_weights_of_a_further_network_are_loaded_frozen_when_the_engine_starts(tmp_path: Path) -> None:
    refiner = torch.nn.Linear(2, 2)
    before = refiner.weight.detach().clone()

    def start(**options: bool) -> None:
        engine = Engine(lambda *_: None)
        FrozenWeights(tmp_path / "model.pt", refiner, **options).attach(engine)
        engine.run([0])

    start(load_pretrain=False)
    assert torch.equal(refiner.weight, before)
    with pytest.raises(FileNotFoundError, match="no trained model at .*model.pt"):
        start()
    torch.save({"weight": before + 1, "bias": torch.zeros(2)}, tmp_path / "model.pt")
    start()
    assert torch.equal(refiner.weight, before + 1) and not refiner.training and not refiner.weight.requires_grad


def test_weights_are_averaged_or_they_are_the_networks_own() -> None:
    network = torch.nn.Linear(1, 1)
    alone = WeightAverage(network)
    assert alone.network is network and alone.average is None
    averaged, engine = WeightAverage(network, 0.5), Engine(lambda *_: None)
    assert averaged.network is averaged.average is not network
    before = network.weight.detach().clone()
    averaged.attach(engine)
    with torch.no_grad():
        network.weight += 2
    engine.run([0])
    torch.testing.assert_close(averaged.average.weight.detach(), before + 1)  # type: ignore[union-attr]


def test_the_rate_falls_along_a_line_over_the_last_epochs() -> None:
    assert [linear_decay(e, epochs=4, decay_epochs=1) for e in range(5)] == [1.0, 1.0, 1.0, 0.5, 0.0]


def test_devices_and_precision_are_named_in_text_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_of_loading("cuda:1", 0) == torch.device("cuda:1")
    assert device_of_loading("cuda:1", 2) == torch.device("cpu")
    assert half_precision("cpu") == torch.bfloat16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert half_precision("cuda") == torch.float16 and half_precision(torch.device("cpu")) == torch.bfloat16


def test_a_process_that_torchrun_did_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    assert process_number("RANK") == 3
    monkeypatch.delenv("RANK")
    with pytest.raises(ValueError, match="multi_gpu.json needs torchrun, which sets RANK"):
        process_number("RANK")


def test_scores_have_the_names_that_they_are_asked_by() -> None:
    assert list(hu_scores(["psnr", "mae_hu"])) == ["psnr", "mae_hu"]
    assert list(motion_scores(["psnr", "gain_moving"])) == ["psnr", "gain_moving"]
    for make in (hu_scores, motion_scores):
        with pytest.raises(ValueError, match="names must be out of psnr, ssim, mae_hu, got mae"):
            make(["mae"])


def test_a_validation_in_hu_has_its_scores_and_takes_others() -> None:
    batch = {"image": torch.zeros(1, 1, 8, 8, 8), "label": torch.full((1, 1, 8, 8, 8), 0.5)}
    options: dict[str, Any] = {
        "device": torch.device("cpu"),
        "val_data_loader": [batch],
        "network": torch.nn.Identity(),
    }
    evaluator = HUEvaluator(hu_window=(-1000.0, 1000.0), **options)
    evaluator.run()
    assert set(evaluator.state.metrics) == {"psnr", "ssim", "mae_hu"}
    assert evaluator.state.metrics["mae_hu"] == 1000.0 and evaluator.state.metric_details is not None
    own = HUEvaluator(key_val_metric=hu_scores(["ssim"]), additional_metrics={}, **options)
    own.run()
    assert set(own.state.metrics) == {"ssim"}
