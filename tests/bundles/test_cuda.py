"""Bundles trained, killed, resumed and applied on a GPU by their own commands."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from tests.bundles.miniature import SIZES, arguments, assert_same_weights, files, load, run, train, train_and_kill
from tests.bundles.sources import BUNDLES, RADIOGRAPHS, name
from trct_monai.io.datalist import load_datalist

pytestmark = [pytest.mark.cuda, pytest.mark.slow, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]
DEVICE = "$torch.device('cuda')"

ANY_VIEW, TRCT_GAN = (
    next(bundle for bundle in BUNDLES if bundle.name == wanted) for wanted in ("any_view", "trct_gan")
)


def test_a_training_on_a_gpu_resumes_after_a_kill(phantoms: Path, tmp_path: Path) -> None:
    """A GPU adds in any order where features are lifted, so the weights agree and are not the same to the bit."""
    options = {"epochs": 4, "device": DEVICE, "min_views": 1, "pose_rotation": 1.0, "augmentation_prob": 0.5}
    expected = train(ANY_VIEW, phantoms, tmp_path / "whole", **options)
    stopped_after = train_and_kill(ANY_VIEW, phantoms, tmp_path / "killed", **options)
    assert 1 <= stopped_after < 4
    resumed = train(ANY_VIEW, phantoms, tmp_path / "killed", **options, resume=True)
    assert resumed["epoch"] == 4
    assert_same_weights(resumed, expected, atol=5e-3, rtol=1e-2)


@pytest.mark.parametrize("amp_dtype", ["bfloat16", "float16"])
def test_adversarial_training_on_a_gpu_in_half_precision(amp_dtype: str, phantoms: Path, tmp_path: Path) -> None:
    state = train(TRCT_GAN, phantoms, tmp_path, epochs=3, device=DEVICE, amp_dtype=f"$torch.{amp_dtype}")
    tensors = [value for part in ("network", "discriminator") for value in state[part].values()]
    assert all(value.isfinite().all() for value in tensors)
    assert ("scaler" in state) == (amp_dtype == "float16")
    assert (tmp_path / "gan_guard.csv").is_file()
    weights = load(tmp_path / "model.pt")
    assert {value.device.type for value in weights.values()} == {"cpu"}


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_inference_on_a_gpu_agrees_with_the_cpu(bundle: Path, phantoms: Path, tmp_path: Path) -> None:
    train(bundle, phantoms, tmp_path / "trained", device=DEVICE, epochs=1)
    alone = [path for path in [bundle / "configs" / "stage1.json"] if path.is_file()]
    volumes = []
    for device in ("cpu", "cuda"):
        weights = tmp_path / "trained" / "model.pt"
        options = SIZES | arguments(bundle, phantoms, tmp_path / device, weights)
        run(files(bundle, "inference.json", *alone), **options, device=f"$torch.device('{device}')", amp=False)
        case = load_datalist(phantoms, "test")[0]["case_id"]
        volumes.append(nibabel.load(tmp_path / device / f"{case}.nii.gz").get_fdata())
    assert np.abs(volumes[1] - volumes[0]).mean() < 5  # HU: TF32 has a thousandth of the window
