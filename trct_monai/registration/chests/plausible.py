"""Whether a picture is what it is said to be: a frontal or a lateral chest, upright, and not the other one.

Each rule asks the model of chests; its limits were set on real pairs of radiographs, and on pictures of other things.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from trct_monai.geometry.orientations import IN_WORDS
from trct_monai.registration.chests.characteristic import apply_curve
from trct_monai.registration.chests.evidence import evidence
from trct_monai.registration.chests.model import FIELD, ChestModel
from trct_monai.registration.chests.search import EFFECTIVE_PIXELS, FINE, KINDS, Found, Picture, find_view, view_of

MIN_CORRELATION = 0.35
"""With the mean chest's projection, by Pearson; real pictures have .43 to .91."""

MIN_UPRIGHT = 15.0
"""By how much the score upright must exceed that upside down; real pictures have 21 to 112."""

MAX_COEFFICIENT = 2.0
"""Root mean square of the model's coefficients, 1 by definition on average; real pictures have up to 1.6."""

MIN_TURNED, MIN_TURNED_CORRELATION = 50.0, 0.6
"""The same two where the picture would have to be turned upside down, which people rarely give."""

OTHER_VIEW = 5.0
"""By how much another view's score must be higher for a picture to be refused as that view."""

SURE_SIDE = 8.0
"""Difference of scores from which on the side to which a lateral faces is sure, and a mirrored frontal is named."""

UPSIDE_DOWN = {
    "identity": ("flip_rows", "rotate_180"), "flip_columns": ("flip_rows", "rotate_180"),
    "flip_rows": ("identity", "flip_columns"), "rotate_180": ("identity", "flip_columns"),
}  # fmt: skip
"""What each orientation is compared with."""

NAMES = {"pa": "frontal", "lat": "lateral"}


def why_no_chest(picture: Picture, found: Found, model: ChestModel) -> str | None:
    """What speaks against a chest in this picture; None if nothing does.

    Args:
        picture: As it is stored.
        found: Its most probable camera.
        model: What chests look like.
    """
    small = picture.oriented(found.orientation).compared(FINE)
    place = torch.tensor([[found.width, *found.shift]])
    view = view_of(small, model, place, found.azimuth, found.distance, KINDS[picture.kind].dark)
    explained = evidence([view], EFFECTIVE_PIXELS)
    counted = view.weight[0] > 0
    first, second, third, fourth = explained.curves[0, 0].tolist()
    integrals = apply_curve(small.values.flatten()[counted], (first, second, third, fourth))
    expected = _mean_projection(small.values.shape, found, model)[counted]
    correlation = float(torch.corrcoef(torch.stack([integrals, expected.to(integrals)]))[0, 1].nan_to_num())
    coefficient = float(explained.coefficients.square().mean().sqrt())
    others = [
        score for (_, orientation), score in found.scores.items() if orientation in UPSIDE_DOWN[found.orientation]
    ]
    upright = found.score - max(others, default=-1e4)
    turned = found.orientation in ("flip_rows", "rotate_180")
    if coefficient > MAX_COEFFICIENT:
        return f"it would be a chest {coefficient:.1f} times as unusual as most"
    if correlation < (MIN_TURNED_CORRELATION if turned else MIN_CORRELATION):
        return f"its correlation with the mean chest is {correlation:.2f}"
    if upright < (MIN_TURNED if turned else MIN_UPRIGHT):
        return "it looks no more like a chest upright than upside down"
    return None


def wrong_views(pictures: Sequence[Picture], found: Sequence[Found], model: ChestModel) -> list[str]:
    """One line if the pictures are more probably other views than they are given as: exchanged, or one view twice.

    Args:
        pictures: A frontal, a lateral or both, as they are stored.
        found: The camera of each.
        model: What chests look like.
    """
    other = {"pa": "lat", "lat": "pa"}
    swapped = [find_view(picture, model, ("identity",), kind=other[picture.kind]).score for picture in pictures]
    if len(pictures) == 1:
        (picture,), (own,) = pictures, found
        if swapped[0] <= own.score + OTHER_VIEW:
            return []
        return [f"the {NAMES[picture.kind]} looks like a {NAMES[other[picture.kind]]}"]
    own_scores = [one.score for one in found]
    ways = {
        "": sum(own_scores),
        "frontal and lateral seem to be exchanged": sum(swapped),
        f"both look like a {NAMES[pictures[0].kind]}": own_scores[0] + swapped[1],
        f"both look like a {NAMES[pictures[1].kind]}": swapped[0] + own_scores[1],
    }
    best = max(ways, key=lambda way: ways[way])
    return [best] if best and ways[best] > ways[""] + OTHER_VIEW else []


def seems_mirrored(found: Found) -> bool:
    """Whether a frontal would fit better mirrored left-right."""
    mirrored = {"identity": "flip_columns", "rotate_180": "flip_rows"}.get(found.orientation, "")
    return found.scores.get((found.azimuth, mirrored), -1e4) > found.score + SURE_SIDE / 2


def side_in_words(found: Found) -> str:
    """How a lateral was understood, in words."""
    side = "left" if found.azimuth > 0 else "right"
    turned = "" if found.orientation == "identity" else f", {IN_WORDS[found.orientation]}"
    values = sorted(_by_azimuth(found).values())
    sure = len(values) < 2 or values[-1] - values[0] > SURE_SIDE
    return f"facing {side}{turned}" + ("" if sure else ", which is not sure")


def _by_azimuth(found: Found) -> dict[float, float]:
    """The best score from each side."""
    best: dict[float, float] = {}
    for (azimuth, _), score in found.scores.items():
        best[azimuth] = max(score, best.get(azimuth, -1e9))
    return best


def _mean_projection(shape: torch.Size, found: Found, model: ChestModel) -> Float[Tensor, " n"]:
    height, width = shape
    side = found.width / width
    x = side * (torch.arange(width) - (width - 1) / 2) + found.shift[0]
    y = side * (torch.arange(height) - (height - 1) / 2) + found.shift[1]
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None] / (FIELD / 2)
    wide = model.wide(found.azimuth, found.distance).mean
    return F.grid_sample(wide[None, None], grid, align_corners=False).flatten()
