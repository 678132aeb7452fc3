"""DICOM: series of CT slices in and out, radiographs in; ITK and GDCM do the work."""

from trct_monai.io.dicom.header import common_study, is_dicom
from trct_monai.io.dicom.radiograph import DicomRadiograph, read_dicom_radiograph, standard_position
from trct_monai.io.dicom.series import Series, find_series, read_series
from trct_monai.io.dicom.writer import check_series_folder, write_ct_series

__all__ = [
    "DicomRadiograph",
    "Series",
    "check_series_folder",
    "common_study",
    "find_series",
    "is_dicom",
    "read_dicom_radiograph",
    "read_series",
    "standard_position",
    "write_ct_series",
]
