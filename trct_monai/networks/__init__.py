"""Networks behind one contract: radiographs (B, V, H, W) to a volume (B, 1, X, Y, Z) in [0, 1]; and their opponents."""

from trct_monai.networks.any_view import AnyView
from trct_monai.networks.dif_net import DIFNet
from trct_monai.networks.direct_regression import DirectRegression
from trct_monai.networks.hybrid_cnn_vit import HybridCNNViT
from trct_monai.networks.intervals import IntervalNetwork
from trct_monai.networks.lifting import LiftedRadiographs
from trct_monai.networks.multi_scale_cnn import MultiScaleCNN
from trct_monai.networks.patch_discriminator import PatchDiscriminator
from trct_monai.networks.patch_vit import PatchViT
from trct_monai.networks.slice_unet import SliceUNet
from trct_monai.networks.trct_gan import TRCTGenerator
from trct_monai.networks.volume_refiner import VolumeRefiner
from trct_monai.networks.x2ct_gan import X2CTGenerator

__all__ = [
    "AnyView",
    "DIFNet",
    "DirectRegression",
    "HybridCNNViT",
    "IntervalNetwork",
    "LiftedRadiographs",
    "MultiScaleCNN",
    "PatchDiscriminator",
    "PatchViT",
    "SliceUNet",
    "TRCTGenerator",
    "VolumeRefiner",
    "X2CTGenerator",
]
