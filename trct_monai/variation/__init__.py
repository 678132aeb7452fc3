"""One CT as that of another patient in another scanner: warps, shapes of others, tissues, surroundings, limits."""

from trct_monai.variation.scan import limited
from trct_monai.variation.shapes import displaced, shapes_of_others
from trct_monai.variation.surroundings import with_arms, with_table
from trct_monai.variation.tissue import TISSUES, enhanced, recoloured, tissue_curve
from trct_monai.variation.warp import Strengths, draw_lattice, identity_lattice, warped

__all__ = [
    "TISSUES",
    "Strengths",
    "displaced",
    "draw_lattice",
    "enhanced",
    "identity_lattice",
    "limited",
    "recoloured",
    "shapes_of_others",
    "tissue_curve",
    "warped",
    "with_arms",
    "with_table",
]
