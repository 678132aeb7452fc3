"""What networks from radiographs to a volume share: the views, the scale of the radiographs, an initial volume."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from trct_monai.geometry import preset, projection_matrices


class ReconstructionNetwork(nn.Module):
    """An initial volume, corrected by what the radiographs show.

    A subclass gives `correct`, zero before training: an untrained network then returns its initial volume, and one that
    learns nothing cannot pass for one that does.

    Args:
        volume_size: Voxels along each side of the volume.
        geometry: Preset of `trct_monai.geometry.preset` that the views follow unless `forward` is given matrices.
        extent: Side of the volume in mm.
        downsampling: Factor by which both sides of a radiograph must be divisible.
        image_mean: Line integral that the encoders take as zero.
        image_scale: Line integral that the encoders take as one, less `image_mean`.
    """

    matrices: Tensor

    def __init__(
        self,
        volume_size: int,
        *,
        geometry: str,
        extent: float,
        downsampling: int,
        image_mean: float = 2.5,
        image_scale: float = 2.0,
    ) -> None:
        super().__init__()
        cameras = preset(geometry)
        self.num_views, self.volume_size, self.extent = len(cameras), volume_size, extent
        self.downsampling = downsampling
        self.image_mean, self.image_scale = image_mean, image_scale
        self.register_buffer("matrices", projection_matrices(cameras), persistent=False)
        self.initial_volume = nn.Parameter(torch.zeros(1, 1, *(volume_size,) * 3))

    @torch.no_grad()
    def start_from(self, volume: Float[Tensor, "1 1 X Y Z"]) -> None:
        """Set the initial volume, such as to the training mean: training then starts where that baseline ends.

        Args:
            volume: Values in [0, 1].
        """
        self.initial_volume.copy_(volume)

    def forward(
        self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "B V 3 4"] | None = None
    ) -> Float[Tensor, "B 1 X Y Z"]:
        """The volume that the radiographs show, in [0, 1] (unbounded while training, so that gradients pass).

        Args:
            image: Radiographs as line integrals, views in the order of the geometry.
            matrices: World-to-detector matrices of each case, in place of the preset's.

        Raises:
            ValueError: If the number of views or the size of the radiographs does not fit.
        """
        if image.shape[1] != self.num_views or any(n % self.downsampling for n in image.shape[-2:]):
            raise ValueError(
                f"image must be (B, {self.num_views}, H, W) with H and W multiples of {self.downsampling}, "
                f"got shape {tuple(image.shape)}"
            )
        scaled = (image - self.image_mean) / self.image_scale
        volume = self.initial_volume + self.correct(scaled, self.matrices[None] if matrices is None else matrices)
        return volume if self.training else volume.clamp(0.0, 1.0)

    @abstractmethod
    def correct(self, image: Float[Tensor, "B V H W"], matrices: Float[Tensor, "_ V 3 4"]) -> Tensor:
        """What is added to the initial volume, (B, 1, X, Y, Z).

        Args:
            image: Radiographs, scaled to about [-1, 1].
            matrices: World-to-detector matrices, one set for all cases or one for each.
        """
