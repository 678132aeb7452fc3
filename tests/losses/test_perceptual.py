"""The perceptual loss and where the weights of its VGG16 features come from."""

from pathlib import Path

import pytest
import torch

from trct_monai.losses import PerceptualLoss
from trct_monai.losses.perceptual import VGG16


@pytest.fixture(scope="module")
def loss() -> PerceptualLoss:
    return PerceptualLoss("random", ["relu1_2", "relu2_2"], num_slices=2)


def test_parameters_are_named_as_in_the_public_checkpoint() -> None:
    state = VGG16().state_dict()
    indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    assert list(state) == [f"features.{i}.{kind}" for i in indices for kind in ("weight", "bias")]
    assert state["features.28.weight"].shape == (512, 512, 3, 3)


def test_weights_are_read_from_a_path_without_the_classifier(tmp_path: Path) -> None:
    network = VGG16()
    torch.save({**network.state_dict(), "classifier.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    loss = PerceptualLoss(str(tmp_path / "vgg16.pth"), ["relu1_2"])
    assert torch.equal(loss.network.get_submodule("2").weight, network.features[2].weight)


def test_missing_weights_and_unknown_layers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no weights of VGG16 at '.*none.pth'; give the path of .* or 'random'"):
        PerceptualLoss(str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match="layers must be out of relu1_2, .*, got conv9"):
        PerceptualLoss("random", ["conv9"])


def test_weights_that_cannot_be_downloaded_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "torch.hub.load_state_dict_from_url", lambda *_, **__: (_ for _ in ()).throw(OSError("no network"))
    )
    with pytest.raises(ValueError, match=r"could not be downloaded \(no network\); give the path"):
        PerceptualLoss("hub")


def test_random_features_are_fixed(loss: PerceptualLoss) -> None:
    other = PerceptualLoss("random", ["relu1_2", "relu2_2"])
    for a, b in zip(loss.parameters(), other.parameters()):
        assert torch.equal(a, b) and not a.requires_grad
    assert not loss.train().training


def test_the_loss_grows_with_the_blur_of_an_edge(loss: PerceptualLoss) -> None:
    x = torch.zeros(1, 1, 16, 16, 16)
    x[..., 8:] = 0.8
    costs = []
    for width in (0, 3, 7):
        blurred = torch.nn.functional.avg_pool3d(
            torch.nn.functional.pad(x, (width // 2,) * 6, "replicate"), width or 1, 1
        )
        torch.manual_seed(0)
        costs.append(float(loss(blurred[..., :16, :16, :16], x)))
    assert costs[0] == 0.0 < costs[1] < costs[2]


def test_the_gradient_reaches_the_prediction(loss: PerceptualLoss) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.rand(1, 1, 16, 16, 16, generator=generator) for _ in range(2))
    x.requires_grad_()
    torch.manual_seed(0)
    loss(x, y).backward()
    assert x.grad is not None and torch.isfinite(x.grad).all() and x.grad.any()
