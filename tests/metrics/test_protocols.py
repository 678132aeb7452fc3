"""Protocols against golden values that were worked out independently of this project."""

import math

import numpy as np
import pytest
import torch

from trct_monai.metrics.hu import above_floor, hu_metrics
from trct_monai.metrics.protocols import NO_ERROR, PROTOCOLS, Protocol, hu_protocol

# Scores on the pair below.
GOLDEN = {
    "x2ct": {
        "psnr_3d": 19.912078348733917,
        "psnr_avg": 24.66621629826052,
        "ssim": 0.6675337593673988,
        "mae": 298.2324404761905,
    },
    "ccx": {"psnr_3d": 19.914193711602863, "psnr_avg": 24.668231093815923, "ssim": 0.6860329401281887},
    "psct": {"psnr_3d": 15.625800400245923, "psnr_avg": 20.59425224719693, "ssim": 0.760061799173375},
    "perx2ct": {"psnr_avg": 31.971121769388088, "ssim": 0.6973463756083058},
    "xmed": {"psnr_3d": 15.625794925688128, "ssim": 0.678765004477879},
    "xmed_paper": {"psnr_3d": 15.625794925688128, "ssim": 0.6973463756083058},
}


def golden_pair() -> tuple[np.ndarray, np.ndarray]:
    """Prediction and truth (D, H, W) in [0, 1]."""
    d, h, w = np.meshgrid(*(np.arange(n) for n in (20, 24, 28)), indexing="ij")
    y = 0.5 + 0.25 * np.sin(0.7 * d) * np.cos(0.5 * h) + 0.2 * np.sin(0.31 * w + 0.011 * d * h)
    x = 0.5 + 0.20 * np.sin(0.7 * d + 0.3) * np.cos(0.5 * h) + 0.2 * np.sin(0.31 * w)
    for volume in (x, y):
        volume[:3] = 0
        np.clip(volume, 0, 1, out=volume)
    return x, y


def in_hu(volume: np.ndarray, protocol: Protocol) -> np.ndarray:
    """(D, H, W) in [0, 1] to (X, Y, Z) in HU."""
    low, high = protocol.hu_window
    return (volume * (high - low) + low).transpose(2, 1, 0)


@pytest.mark.parametrize("name", GOLDEN)
def test_protocols_equal_the_published_scripts(name: str) -> None:
    x, y = golden_pair()
    scores = PROTOCOLS[name].measure(x, y)
    assert scores.keys() == GOLDEN[name].keys()
    for key, value in GOLDEN[name].items():
        assert scores[key] == pytest.approx(value, abs=1e-9), key


@pytest.mark.parametrize("name", PROTOCOLS)
def test_from_hu_equals_from_the_unit_range(name: str) -> None:
    protocol, (x, y) = PROTOCOLS[name], golden_pair()
    scores = protocol(in_hu(x, protocol), in_hu(y, protocol))
    assert scores == pytest.approx(protocol.measure(x, y), abs=2e-2)  # rounding moves single integers


@pytest.mark.parametrize("name", PROTOCOLS)
def test_truth_against_itself_is_perfect(name: str) -> None:
    protocol, (_, y) = PROTOCOLS[name], golden_pair()
    for scores in (protocol(in_hu(y, protocol), in_hu(y, protocol)), protocol(np.zeros((8,) * 3), np.zeros((8,) * 3))):
        perfect = {"psnr_3d": NO_ERROR, "psnr_avg": NO_ERROR, "ssim": 1.0, "mae": 0.0}
        assert scores == pytest.approx({key: perfect[key] for key in scores})


def test_headline_agrees_with_the_metrics_of_the_training_log() -> None:
    protocol, (x, y) = hu_protocol(), golden_pair()
    prediction, truth = (torch.from_numpy(in_hu(v, protocol).copy())[None, None] for v in (x, y))
    scores = protocol(prediction[0, 0].numpy(), truth[0, 0].numpy())
    logged = {key: float(metric(above_floor(prediction), above_floor(truth))) for key, metric in hu_metrics().items()}
    assert logged["psnr"] == pytest.approx(scores["psnr_3d"], abs=1e-4)
    assert logged["mae"] == pytest.approx(scores["mae"], rel=1e-5)
    assert logged["ssim"] == pytest.approx(scores["ssim"], abs=2e-3)  # MONAI: population, not sample covariance


def test_the_same_error_with_another_peak_differs_by_the_ratio_of_the_peaks() -> None:
    x, y = golden_pair()
    x2ct, psct = (PROTOCOLS[name].measure(x, y)["psnr_3d"] for name in ("x2ct", "psct"))
    assert x2ct - psct == pytest.approx(20 * math.log10(4095 / 2500), abs=1e-9)
    rmse = 2500 * math.sqrt(((x - y) ** 2).mean())
    assert hu_protocol().measure(x, y)["psnr_3d"] == pytest.approx(20 * math.log10(2500 / rmse))


def test_bad_volumes_are_refused() -> None:
    protocol = hu_protocol()
    with pytest.raises(ValueError, match="must be .X, Y, Z. of one shape, 7 voxels or more"):
        protocol(np.zeros((8, 8, 8)), np.zeros((8, 8, 9)))
    with pytest.raises(ValueError, match="7 voxels or more"):
        protocol(np.zeros((4, 8, 8)), np.zeros((4, 8, 8)))
    with pytest.raises(ValueError, match="must be finite"):
        protocol(np.full((8, 8, 8), np.nan), np.zeros((8, 8, 8)))
