"""What each column of cases.csv means: which value is the best, and how a table shows it."""

from dataclasses import dataclass
from typing import Literal

HEADLINE = "hu.psnr_3d"


@dataclass(frozen=True)
class Column:
    """One column of cases.csv.

    Attributes:
        best: Which value is the best: the highest, the lowest, or the one nearest to a number.
        title: What it is called in tables; its name if empty.
        number: Format of its values in tables.
    """

    best: Literal["highest", "lowest"] | float
    title: str = ""
    number: str = ".4g"

    def loss(self, value: float) -> float:
        """A number that is the lower, the better the value is."""
        if self.best == "highest":
            return -value
        return value if self.best == "lowest" else abs(value - float(self.best))

    def comparable(self, value: float) -> float:
        """What two methods are compared by: the value itself, or its distance from the best number."""
        return value if self.best in ("highest", "lowest") else self.loss(value)


_PROTOCOLS = {
    "hu": {
        "psnr_3d": Column("highest", "PSNR (dB)", ".2f"),
        "ssim": Column("highest", "SSIM", ".3f"),
        "mae": Column("lowest", "MAE (HU)", ".1f"),
    },
    "x2ct": {score: Column("highest") for score in ("psnr_3d", "psnr_avg", "ssim")} | {"mae": Column("lowest")},
    "ccx": {score: Column("highest") for score in ("psnr_3d", "psnr_avg", "ssim")},
    "psct": {score: Column("highest") for score in ("psnr_3d", "psnr_avg", "ssim")},
    "perx2ct": {score: Column("highest") for score in ("psnr_avg", "ssim")},
    **{name: {s: Column("highest") for s in ("psnr_3d", "ssim")} for name in ("xmed_paper", "xmed", "sparc", "sax")},
}

COLUMNS = {
    **{f"{protocol}.{score}": column for protocol, scores in _PROTOCOLS.items() for score, column in scores.items()},
    **{f"mae_{tissue}": Column("lowest") for tissue in ("lung", "soft_tissue", "bone")},
    **{f"dice_{tissue}": Column("highest") for tissue in ("air", "soft_tissue", "bone", "vessels")},
    "lung_volume_error_ml": Column("lowest"),
    "equivalent_blur_mm": Column("lowest"),
    "contrast_ratio": Column(1.0),
    **{f"orientation_{axis}": Column(1.0) for axis in ("left_right", "back_front", "down_up")},
    "reprojection": Column("lowest"),
    "held_out_view": Column("lowest"),
    "coverage_50": Column(0.5),
    "coverage_90": Column(0.9),
    "width_90": Column("lowest"),
    "spread_error_correlation": Column("highest"),
}
"""Every column that methods can be ranked by, as `score_case` names them. Coverage is best at its nominal value; a
narrow interval is worth nothing without it."""

CONTROLS = (
    "reprojection_truth",
    "reprojection_mean_volume",
    "reprojection_shuffled",
    "held_out_view_mean_volume",
)
"""Columns to read others against; no value of them is better than another."""


def ranking_column(name: str) -> Column:
    """The meaning of a column that methods are ranked by.

    Raises:
        ValueError: If there is no such column, or it is a control.
    """
    if name in CONTROLS:
        raise ValueError(f"{name!r} is a control, no value of it is better than another; sort by another column")
    if name not in COLUMNS:
        raise ValueError(f"methods cannot be sorted by {name!r}; choose one of {', '.join(COLUMNS)}")
    return COLUMNS[name]
