"""Transforms on MONAI's grain: the Protocol from any CT to a target and back to HU, and radiographs from files."""

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
)
from trct_monai.transforms.save import SaveCTd

__all__ = [
    "ORIENTATIONS",
    "CTPreprocessing",
    "CTPreprocessingd",
    "LoadRadiographsd",
    "Radiograph",
    "SaveCTd",
    "UnitToHUd",
    "digest_radiograph",
    "orient",
    "read_radiograph",
    "resample_like",
    "resize_radiographs",
    "save_radiograph",
]
