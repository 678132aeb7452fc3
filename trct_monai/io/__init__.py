"""The only room that opens files: CTs, radiographs, datalists and weights, checked at the door, written whole."""

from trct_monai.io.case import Case
from trct_monai.io.ct import CT, read_ct
from trct_monai.io.datalist import SECTIONS, load_datalist, read_datalist, save_datalist
from trct_monai.io.radiograph import Radiograph, read_radiograph, save_radiograph
from trct_monai.io.weights import load_frozen, load_state, refiner_beside, require_checkpoint, save_state, ship_weights

__all__ = [
    "CT",
    "Case",
    "Radiograph",
    "SECTIONS",
    "load_datalist",
    "load_frozen",
    "load_state",
    "read_ct",
    "read_datalist",
    "read_radiograph",
    "refiner_beside",
    "require_checkpoint",
    "save_datalist",
    "save_radiograph",
    "save_state",
    "ship_weights",
]
