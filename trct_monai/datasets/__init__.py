"""Data sets: what turns a folder of CTs, or seeds, into cases and a datalist."""

from trct_monai.datasets.check import check
from trct_monai.datasets.ct_cases import PhantomPatients, ct_cases, hold_out
from trct_monai.datasets.defaults import default_datalist, default_phases
from trct_monai.datasets.endless import EndlessPhantoms, RepeatedCases
from trct_monai.datasets.fetch import fetch
from trct_monai.datasets.phantom_sets import phantoms
from trct_monai.datasets.phase_slices import PhaseSlices, load_phases
from trct_monai.datasets.plant import plant
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.sections import PhaseCases, RadiographCases
from trct_monai.datasets.split import split
from trct_monai.datasets.volumes import find_volumes, volume_cases, without_results

__all__ = [
    "EndlessPhantoms",
    "PhantomPatients",
    "PhaseCases",
    "PhaseSlices",
    "RadiographCases",
    "RepeatedCases",
    "check",
    "ct_cases",
    "default_datalist",
    "default_phases",
    "fetch",
    "find_volumes",
    "hold_out",
    "load_phases",
    "phantoms",
    "plant",
    "prepare",
    "split",
    "volume_cases",
    "without_results",
]
