"""Thin MONAI transforms: files or seeds to tensors, cubes, views, augmentation, rendering, and back to HU on disk."""

from trct_monai.transforms.augmentation import RandRadiographd
from trct_monai.transforms.cameras import CameraMatricesd, PrepareViews, RandPosed, SelectViewsd
from trct_monai.transforms.cases import joined, load_case, load_labelled_radiographs, load_radiographs, save_cts
from trct_monai.transforms.cube import CTPreprocessingd
from trct_monai.transforms.cut_cube import CutCubed
from trct_monai.transforms.findings import RandFindingsd
from trct_monai.transforms.load import LoadCTd, LoadRadiographsd
from trct_monai.transforms.points import SamplePoints
from trct_monai.transforms.rendering import DrawPhantomd, RenderViews
from trct_monai.transforms.save import SaveChangedCTd, SaveCTd, ScaleToHUd, UnitToHUd
from trct_monai.transforms.stages import ApplyNetworkd, RandTwoScaleCropd
from trct_monai.transforms.variation import (
    LoadPatientd,
    OtherShapesd,
    RandScanLimitsd,
    RandSurroundingsd,
    RandTissued,
    RandWarpd,
)

__all__ = [
    "ApplyNetworkd",
    "CTPreprocessingd",
    "CameraMatricesd",
    "CutCubed",
    "DrawPhantomd",
    "LoadCTd",
    "LoadPatientd",
    "LoadRadiographsd",
    "OtherShapesd",
    "PrepareViews",
    "RandFindingsd",
    "RandPosed",
    "RandRadiographd",
    "RandScanLimitsd",
    "RandSurroundingsd",
    "RandTissued",
    "RandTwoScaleCropd",
    "RandWarpd",
    "RenderViews",
    "SamplePoints",
    "SaveCTd",
    "SaveChangedCTd",
    "ScaleToHUd",
    "SelectViewsd",
    "UnitToHUd",
    "joined",
    "load_case",
    "load_labelled_radiographs",
    "load_radiographs",
    "save_cts",
]
