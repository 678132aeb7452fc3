"""The fixed preprocessing from any CT to the cube around the body, as functions of tensors."""

from trct_monai.preprocessing.body import Body, find_body, outside_body
from trct_monai.preprocessing.cube import CTPreprocessing, resample_like

__all__ = ["Body", "CTPreprocessing", "find_body", "outside_body", "resample_like"]
