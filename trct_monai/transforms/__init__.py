"""Transforms on MONAI's grain: the Protocol from any CT to a target and back to HU, and radiographs from files."""

from trct_monai.transforms.augmentation import RandRadiographd
from trct_monai.transforms.protocol import CTPreprocessing, CTPreprocessingd, UnitToHUd, resample_like
from trct_monai.transforms.radiographs import (
    ORIENTATIONS,
    LoadRadiographsd,
    Radiograph,
    digest_radiograph,
    orient,
    read_radiograph,
    resize_radiographs,
    save_radiograph,
    side_car_of,
)
from trct_monai.transforms.save import SaveCTd, save_nifti
from trct_monai.transforms.stages import ApplyNetworkd, RandTwoScaleCropd
from trct_monai.transforms.views import CameraMatricesd, PrepareViews, RandPosed, SelectViewsd

__all__ = [
    "ORIENTATIONS",
    "ApplyNetworkd",
    "CTPreprocessing",
    "CTPreprocessingd",
    "CameraMatricesd",
    "LoadRadiographsd",
    "PrepareViews",
    "Radiograph",
    "RandPosed",
    "RandRadiographd",
    "RandTwoScaleCropd",
    "SaveCTd",
    "SelectViewsd",
    "UnitToHUd",
    "digest_radiograph",
    "orient",
    "read_radiograph",
    "resample_like",
    "resize_radiographs",
    "save_nifti",
    "save_radiograph",
    "side_car_of",
]
