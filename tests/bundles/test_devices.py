"""Every bundle's own commands keep to their device, and a training step waits for it only where it must.

See `tests.devices.accelerator` for what stands in for a GPU.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.bundles.miniature import SIZES, DataOf, arguments, files, run, train, train_by_the_clock
from tests.bundles.sources import BUNDLES, PHASES, name
from tests.devices.accelerator import ACCELERATOR, MAY_WAIT_IN_A_STEP, accelerator

pytestmark = pytest.mark.slow

DEVICE = f"$torch.device('{ACCELERATOR.type}')"
PSNR = {"_target_": "trct_monai.metrics.HUMetric", "metric": "psnr", "hu_window": "@hu_window"}
# Nothing moves in numbers that are made up.
WITHOUT_MOTION: dict[str, Any] = {
    "validate::key_metric": {"gain_moving": PSNR},
    "validate::additional_metrics": {"mae_moving": PSNR, "gain_still": PSNR},
}


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_a_training_keeps_to_its_device_and_waits_only_where_it_must(
    bundle: Path, data: DataOf, tmp_path: Path
) -> None:
    """The bundle's own command, with its handlers, validation and checkpoints."""
    changes, datalist = WITHOUT_MOTION if bundle == PHASES else {}, data(bundle)
    with accelerator() as seen:
        train(bundle, datalist, tmp_path, device=DEVICE, **changes)
    waits = [wait for wait in seen.waits if wait.in_step]
    assert waits and not [wait for wait in waits if wait.place not in MAY_WAIT_IN_A_STEP]


def test_phantoms_are_rendered_and_trained_on_without_waiting(tmp_path: Path) -> None:
    with accelerator() as seen:
        train_by_the_clock(tmp_path, device=DEVICE, augmentation_prob=1.0, steps_per_epoch=3)
    waits = [wait for wait in seen.waits if wait.in_step]
    assert waits and not [wait for wait in waits if wait.place not in MAY_WAIT_IN_A_STEP]


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_inference_keeps_to_its_device(bundle: Path, data: DataOf, tmp_path: Path) -> None:
    options = SIZES | arguments(bundle, data(bundle), tmp_path) | {"device": DEVICE, "load_pretrain": False}
    with accelerator():
        run(files(bundle, "inference.json"), **options)
    assert list(tmp_path.rglob("*.nii.gz"))
