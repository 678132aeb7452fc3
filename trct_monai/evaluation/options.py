"""What an evaluation is made with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trct_monai.arguments import parse_numbers
from trct_monai.intensity import check_hu_window
from trct_monai.io.datalist import PHASES, load_datalist, read_datalist
from trct_monai.metrics.protocols import SSIM_WINDOW


@dataclass(frozen=True)
class EvaluationOptions:
    """What is scored, and how; see `evaluate` for each.

    Attributes:
        datalist: Absolute path of the datalist.
        section: Section that is scored.
        hu_window: Lowest and highest HU of the headline protocol.
        size: Voxels along each side of the cube; those of the CTs if None.
        resample: Whether predictions on another grid are resampled.
    """

    datalist: str
    section: str
    hu_window: tuple[float, float]
    size: int | None
    resample: bool

    @classmethod
    def parse(
        cls, datalist: str, section: str, hu_window: Sequence[float] | str, size: int | None, resample: bool
    ) -> "EvaluationOptions":
        """From a command's flags.

        Raises:
            ValueError: If the window is not one, or the size smaller than SSIM's window.
        """
        if isinstance(hu_window, str):
            hu_window = parse_numbers(hu_window, 2, "hu_window", "-1000,500")
        if size is not None and size < SSIM_WINDOW:
            raise ValueError(f"size must be at least {SSIM_WINDOW} voxels, the window of SSIM, got {size}")
        return cls(str(Path(datalist).absolute()), section, check_hu_window(hu_window), size, resample)

    @property
    def holds_phases(self) -> bool:
        """Whether the datalist is one of pairs of phases."""
        return bool(read_datalist(self.datalist).get("task") == PHASES)

    def cases(self) -> list[dict[str, Any]]:
        """The cases that are scored, CTs with radiographs.

        Raises:
            ValueError: If there is none, or the datalist holds pairs of phases.
        """
        if self.holds_phases:
            raise ValueError(
                f"{self.datalist}: holds pairs of phases; evaluate scores predicted phases beside the identity, and "
                "leaderboard and report are for CTs from radiographs"
            )
        cases = load_datalist(self.datalist, self.section)
        if not cases:
            raise ValueError(f"{self.datalist}: section {self.section!r} has no case to score")
        return cases

    def cases_to_learn_from(self, section: str) -> list[dict[str, Any]]:
        """The cases of the training or validation section; none if the datalist has no such section."""
        return load_datalist(self.datalist, section) if read_datalist(self.datalist).get(section) else []
