"""Data sets: the datalist, what makes one from CTs in any format, and phantoms."""

from trct_monai.data.datalist import SECTIONS, Case, load_datalist, read_datalist, save_datalist

__all__ = ["SECTIONS", "Case", "load_datalist", "read_datalist", "save_datalist"]
