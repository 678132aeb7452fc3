"""From radiographs to a CT in HU with its intervals: the one way, for the command, Deploy and every bundle."""

from trct_monai.reconstruction.inputs import read_radiographs
from trct_monai.reconstruction.loading import load_reconstructor
from trct_monai.reconstruction.reconstructor import Reconstructor
from trct_monai.reconstruction.result import Result

__all__ = ["Reconstructor", "Result", "load_reconstructor", "read_radiographs"]
