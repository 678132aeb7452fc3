"""Perceptual loss on VGG16 features."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.io.weights import load_state

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and deviation of the images on which the public weights were trained (Deng et al., CVPR 2009), in [0, 1]."""

CHANNELS = (64, 64, "pool", 128, 128, "pool", 256, 256, 256, "pool", 512, 512, 512, "pool", 512, 512, 512, "pool")
LAYERS = {"relu1_2": 3, "relu2_2": 8, "relu3_3": 15, "relu4_3": 22, "relu5_3": 29}
"""Index of each named activation in `VGG16.features` (Johnson et al., ECCV 2016)."""


class VGG16(nn.Module):
    """The convolutions of VGG16 (Simonyan and Zisserman, ICLR 2015, configuration D).

    Parameters are named as in torchvision's public checkpoint, ``features.0.weight`` and so on.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for after in CHANNELS:
            if isinstance(after, int):
                layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
                before = after
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)


class PerceptualLoss(nn.Module):
    """L1 distance between VGG16 features of axial, coronal and sagittal slices, summed over layers.

    Unlike MONAI's class of this name it downloads nothing by itself. Slices are drawn at random at each call, three
    equal channels each, normalised by ImageNet's mean and standard deviation. It is off in most bundles: features of
    photographs need a download, fit CT poorly, and cost more than the rest of a step.

    Args:
        weights: Path of torchvision's ``vgg16-397923af.pth``; ``hub`` lets PyTorch download it; ``random`` takes fixed
            random features, untrained but sensitive to edges and textures.
        layers: Names out of `LAYERS`.
        num_slices: Slices of each plane at each call.

    Raises:
        ValueError: If a layer is unknown, or the weights are missing.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, weights: str, layers: Sequence[str] = ("relu1_2", "relu2_2", "relu3_3"), num_slices: int = 4
    ) -> None:
        super().__init__()
        unknown = [name for name in layers if name not in LAYERS]
        if unknown or not layers:
            raise ValueError(f"layers must be out of {', '.join(LAYERS)}, got {', '.join(layers) or 'none'}")
        self.ends = sorted(LAYERS[name] for name in layers)
        self.num_slices = num_slices
        network = VGG16()
        if weights == "random":
            _randomize(network)
        else:
            network.load_state_dict(_read(weights), strict=True)
        self.network = network.features[: self.ends[-1] + 1].eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, input: Float[Tensor, "B 1 X Y Z"], target: Float[Tensor, "B 1 X Y Z"]) -> Float[Tensor, ""]:
        """The loss of volumes in [0, 1], a scalar."""
        losses = []
        for axis in (2, 3, 4):
            chosen = torch.randperm(input.shape[axis])[: self.num_slices].to(input.device, non_blocking=True)
            x, y = (self._slices(volume.index_select(axis, chosen), axis) for volume in (input, target))
            for end in range(self.ends[-1] + 1):
                layer = self.network.get_submodule(str(end))
                x, y = layer(x), layer(y)
                if end in self.ends:
                    losses.append(F.l1_loss(x, y))
        return torch.stack(losses).sum() / 3

    def _slices(self, volume: Tensor, axis: int) -> Tensor:
        images = volume.movedim(axis, 1).flatten(0, 1).expand(-1, 3, -1, -1)
        return (images - self.mean) / self.std

    def train(self, mode: bool = True) -> "PerceptualLoss":
        """The features are fixed and stay in evaluation mode."""
        return super().train(False)


def perceptual_if_used(weight: float, weights: str, device: str | torch.device = "cpu") -> nn.Module:
    """`PerceptualLoss` on a device; where its weight in a sum is 0, a placeholder that reads and costs nothing.

    Args:
        weight: Its weight in the sum.
        weights: See `PerceptualLoss`.
        device: Where the volumes are.

    Raises:
        ValueError: If it is used and its weights are missing.
    """
    return PerceptualLoss(weights).to(device) if weight else nn.Identity()


def _randomize(network: VGG16) -> None:
    generator = torch.Generator().manual_seed(0)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # a convolution with bias


def _read(weights: str) -> dict[str, Tensor]:
    how = "give the path of torchvision's vgg16-397923af.pth, 'hub' to let PyTorch download it, or 'random'"
    if weights == "hub":
        try:
            state = torch.hub.load_state_dict_from_url(
                "https://download.pytorch.org/models/vgg16-397923af.pth", weights_only=True
            )
        except OSError as error:
            raise ValueError(f"the weights of VGG16 could not be downloaded ({error}); {how}") from error
    elif Path(weights).is_file():
        state = load_state(weights)
    else:
        raise ValueError(f"no weights of VGG16 at {weights!r}; {how}")
    return {name: value for name, value in state.items() if name.startswith("features.")}
