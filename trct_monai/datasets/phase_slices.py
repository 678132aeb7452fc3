"""Pairs of a time average and phase 0, read slice by slice."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from trct_monai.datasets.phases import FOLDERS
from trct_monai.intensity import HU_WINDOW, hu_to_unit
from trct_monai.io.datalist import FIELDS, PHASES, load_datalist
from trct_monai.io.nifti import read_nifti_grid, read_slices


def load_phases(path: str | os.PathLike[str], section: str) -> list[dict[str, str]]:
    """The pairs of a section as ``case_id``, ``patient_id``, ``image`` (time average) and ``label`` (phase 0).

    Raises:
        FileNotFoundError: If the datalist or a file is missing.
        ValueError: If it is a datalist of something else, or the section has no pair.
    """
    cases = load_datalist(path, section, task=PHASES, fields=FIELDS[PHASES])
    if not cases:
        folders = f"{FOLDERS[section]}A and {FOLDERS[section]}B"
        raise ValueError(f"{path}: section {section!r} has no pair; add {folders}, or prepare with another --seed")
    return [
        {"case_id": c["case_id"], "patient_id": c["patient_id"], "image": c["image"][0], "label": c["label"]}
        for c in cases
    ]


class PhaseSlices(Dataset[dict[str, Any]]):
    """All axial slices of some pairs, each with its neighbours, read when asked for.

    An item has ``image``, the time average (num_slices, X, Y) with the slice in the middle, ``label``, phase 0
    (1, X, Y), both in [0, 1] of the window, and ``case_id``; beyond the volume's ends the last slice is repeated.

    Args:
        cases: What `load_phases` gives.
        num_slices: Slices that the network sees: an odd number.
        hu_window: Lowest and highest HU.

    Raises:
        ValueError: If `num_slices` is not odd.
    """

    def __init__(
        self, cases: Sequence[dict[str, str]], num_slices: int = 1, hu_window: Sequence[float] = HU_WINDOW
    ) -> None:
        if num_slices < 1 or num_slices % 2 == 0:
            raise ValueError(f"num_slices must be odd and positive, got {num_slices}")
        self.cases, self.reach, self.hu_window = list(cases), num_slices // 2, hu_window
        self.depths = [read_nifti_grid(case["image"])[0][2] for case in self.cases]
        self.index = [(number, z) for number, depth in enumerate(self.depths) for z in range(depth)]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number, z = self.index[index]
        case = self.cases[number]
        around = np.clip(np.arange(z - self.reach, z + self.reach + 1), 0, self.depths[number] - 1)
        block = read_slices(case["image"], int(around[0]), int(around[-1]))[..., around - around[0]]
        return {
            "image": self._unit(block),
            "label": self._unit(read_slices(case["label"], z, z)),
            "case_id": case["case_id"],
        }

    def _unit(self, slices: np.ndarray) -> Float[Tensor, "S X Y"]:
        return hu_to_unit(torch.from_numpy(slices.astype(np.float32)).movedim(-1, 0).contiguous(), self.hu_window)
