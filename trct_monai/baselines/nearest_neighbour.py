"""The training case with the nearest radiographs."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.baselines.cases import TrainingCases, each, read_case, shrink
from trct_monai.baselines.fitted import register_fitted_buffers, require_fitted


class NearestNeighbour(nn.Module):
    """The volume of the training case with the nearest radiographs.

    Near means: the least sum of squares between the line integrals of all views, each averaged over
    image_size x image_size equal areas. A sharp volume of another patient: it shows the score of a volume without blur.

    The volumes are kept as float16, off by at most 0.6 HU in the default window.

    Args:
        volume_size: Voxels along each side.
        image_size: Rows and columns to which radiographs are averaged before they are compared.
    """

    images: Tensor
    volumes: Tensor

    def __init__(self, volume_size: int = 64, *, image_size: int = 32) -> None:
        super().__init__()
        self.volume_size, self.image_size = volume_size, image_size
        register_fitted_buffers(self, images=(0, 0, image_size, image_size))
        register_fitted_buffers(self, torch.float16, volumes=(0, 1, volume_size, volume_size, volume_size))

    def fit(self, cases: TrainingCases) -> "NearestNeighbour":
        """Remember the training cases.

        Raises:
            ValueError: If there is none, a shape does not fit, or the cases differ in their number of views.
        """
        images, volumes = [], []
        for case in each(cases):
            image, label = read_case(case, self.volume_size)
            images.append(shrink(image[None].to(self.images), self.image_size))
            volumes.append(label.to(self.volumes))
        if not images or len({image.shape for image in images}) != 1:
            views = ", ".join(str(image.shape[1]) for image in images)
            raise ValueError(f"training cases must be at least one, all of the same views; got {views or 'none'}")
        self.images = torch.cat(images)
        self.volumes = self.volumes.new_empty(len(volumes), *volumes[0].shape)
        for i in reversed(range(len(volumes))):  # each is let go as it is copied: never twice in memory
            self.volumes[i] = volumes.pop()
        return self

    def forward(self, image: Float[Tensor, "B V H W"]) -> Float[Tensor, "B 1 X Y Z"]:
        """The nearest training volume for each case.

        Raises:
            ValueError: If nothing is fitted, or the number of views is another than in training.
        """
        require_fitted(self.images, "NearestNeighbour")
        if image.shape[1] != self.images.shape[1]:
            raise ValueError(f"image must be (B, {self.images.shape[1]}, H, W), got shape {tuple(image.shape)}")
        small = shrink(image.float(), self.image_size)
        distance = torch.stack([(self.images - one).square().sum(dim=(1, 2, 3)) for one in small])
        return self.volumes[distance.argmin(dim=1)].float()
