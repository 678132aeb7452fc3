"""One CT as that of another patient in another scanner: warps, shapes, tissues, findings, surroundings, limits."""

from trct_monai.variation.anatomy import Anatomy, find_anatomy
from trct_monai.variation.findings import FINDINGS, Finding, draw_findings, findings_probabilities, with_findings
from trct_monai.variation.scan import limited
from trct_monai.variation.shapes import displaced, shapes_of_others
from trct_monai.variation.surroundings import with_arms, with_table
from trct_monai.variation.tissue import TISSUES, enhanced, recoloured, tissue_curve
from trct_monai.variation.warp import Strengths, draw_lattice, identity_lattice, warped

__all__ = [
    "FINDINGS",
    "TISSUES",
    "Anatomy",
    "Finding",
    "Strengths",
    "displaced",
    "draw_findings",
    "draw_lattice",
    "enhanced",
    "find_anatomy",
    "findings_probabilities",
    "identity_lattice",
    "limited",
    "recoloured",
    "shapes_of_others",
    "tissue_curve",
    "warped",
    "with_arms",
    "with_findings",
    "with_table",
]
