"""The second table of a leaderboard: what each method shows of spheres that are planted in some of the patients."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.evaluation.summary import SPHERES, format_number, mtf50_texts
from trct_monai.evaluation.table import Line, format_cells, title_of
from trct_monai.io.files import format_csv
from trct_monai.metrics.sharpness import DIRECTIONS

SAME_RADIOGRAPH = 1e-3
"""Radiographs that differ by less than this share of their range are one: files round."""

SHOWN_DIAMETERS = 2
"""The table shows the largest diameters; detectability.csv has all."""


def planted_options(planted: str, options: EvaluationOptions) -> EvaluationOptions:
    """How a planted data set is scored: its test section, all else as the patients that it is made of.

    Args:
        planted: Datalist that `plant` wrote.
        options: How the patients are scored.

    Raises:
        ValueError: If it holds no spheres, or is not made of these patients.
    """
    made = replace(options, datalist=str(Path(planted).absolute()), section="test")
    patients = {case["case_id"]: case for case in options.cases()}
    cases = {case["case_id"]: case for case in made.cases()}
    bases = {case["planted"]["base"] for case in cases.values() if case.get("planted")}
    if not bases:
        raise ValueError(f"{planted} holds no planted spheres; make it with plant")
    made_of = f"make it with plant --datalist {options.datalist} --section {options.section}"
    for base in sorted(bases):
        if base not in patients or base not in cases:
            where = options.datalist if base not in patients else planted
            raise ValueError(f"{planted}: spheres are planted in {base}, which is no case of {where}; {made_of}")
        if not _same_radiographs(cases[base], patients[base]):
            raise ValueError(f"{planted}: its radiographs of {base} are not those of {options.datalist}; {made_of}")
    return made


def _same_radiographs(case: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two cases have the same views of the same shadows."""
    if case.get("cameras") != other.get("cameras"):
        return False
    a, b = CaseRadiographs(case).images, CaseRadiographs(other).images
    return a.shape == b.shape and float((a - b).abs().max()) <= SAME_RADIOGRAPH * float(b.max() - b.min())


@dataclass(frozen=True)
class LesionLine:
    """A method in the table.

    Attributes:
        line: Its line in the main table.
        summary: Summary of its evaluation on the planted data set; None if it has no predictions of it.
    """

    line: Line
    summary: Mapping[str, Any] | None

    def sphere(self, diameter: float, contrast: float) -> Mapping[str, Any]:
        """What is measured of spheres of one diameter and contrast; empty if nothing is."""
        rows = self.summary["detectability"] if self.summary else []
        return next((row for row in rows if (row["diameter_mm"], row["contrast_hu"]) == (diameter, contrast)), {})

    def score(self, column: str) -> float | None:
        """Mean of a column of the main evaluation."""
        mean = self.line["metrics"].get(column, {}).get("mean")
        return None if mean is None else float(mean)


def format_lesions(lines: Sequence[LesionLine], style: str) -> str:
    """The table: ``text``, ``markdown``, or ``csv`` with every measure of every diameter and contrast.

    Text and Markdown show the contrast recovered of the largest diameters and the other measures of the largest, all at
    the middle one of the planted contrasts.

    Args:
        lines: The methods in the order of the main table; one of them at least has a summary.
        style: One of `STYLES`.
    """
    spheres = sorted({(row["diameter_mm"], row["contrast_hu"]) for row in _rows(lines)})
    if style == "csv":
        return _as_csv(lines, spheres)
    contrasts = sorted({contrast for _, contrast in spheres})
    contrast, diameters = contrasts[len(contrasts) // 2], sorted({diameter for diameter, _ in spheres})
    shown = [("recovered_contrast", diameter) for diameter in diameters[-SHOWN_DIAMETERS:]]
    shown += [(name, diameters[-1]) for name in SPHERES if name != "recovered_contrast"]
    titles = [f"{SPHERES[name][0]}, {diameter:g} mm {contrast:g} HU" for name, diameter in shown]
    table = [["method", *titles, *(title for _, title in SCORES), MTF50]]
    for line in lines:
        cells = [format_number(line.sphere(d, contrast).get(name), SPHERES[name][1]) for name, d in shown]
        cells += [format_number(line.score(column), ".2f") for column, _ in SCORES]
        texts = mtf50_texts(line.summary["sharpness"]) if line.summary else {}
        table.append([title_of(line.line), *cells, " / ".join(texts.get(name, "-") for name in DIRECTIONS)])
    return format_cells(table, style)


SCORES = (("dice_bone", "bone Dice"), ("dice_vessels", "vessel Dice"))
"""Columns of the main evaluation that stand beside the spheres."""

MTF50 = "MTF50 x / y / z (lp/cm)"
"""Title of the sharpness along x (left-right), y (back-front) and z (down-up)."""


def _rows(lines: Iterable[LesionLine]) -> list[Mapping[str, Any]]:
    return [row for line in lines if line.summary for row in line.summary["detectability"]]


def _as_csv(lines: Sequence[LesionLine], spheres: Sequence[tuple[float, float]]) -> str:
    measures = [name for name in _rows(lines)[0] if name not in ("diameter_mm", "contrast_hu")]
    table = []
    for line in lines:
        row = {"method": line.line["method"], "kind": line.line["kind"]}
        for diameter, contrast in spheres:
            found = line.sphere(diameter, contrast)
            row |= {f"{name}.d{diameter:g}_c{contrast:g}": found.get(name) for name in measures}
        row |= {column: line.score(column) for column, _ in SCORES}
        mtf50 = line.summary["sharpness"]["mtf50_lp_cm"] if line.summary else {}
        table.append({**row, **{f"mtf50_lp_cm.{name}": mtf50.get(name) for name in DIRECTIONS}})
    return format_csv(table).rstrip("\n")
