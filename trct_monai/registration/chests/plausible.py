"""Whether a picture is what it is said to be: a frontal or a lateral chest, upright, and not the other one.

Each rule asks the model of chests; its limits were set on real pairs of radiographs, and on pictures of other things.
"""

from collections.abc import Sequence

import torch

from trct_monai.geometry.orientations import IN_WORDS
from trct_monai.registration.chests.candidates import KINDS, MIN_LENGTH, coarse_grid, projected, view_of
from trct_monai.registration.chests.evidence import evidence
from trct_monai.registration.chests.model import ChestModel
from trct_monai.registration.chests.search import COARSE, EFFECTIVE_PIXELS, FINE, Found, Picture, find_view

MIN_CORRELATION = 0.5
"""With the mean chest's projection from the best camera of the coarse grid, by Pearson; real pictures: .58 to .90."""

MIN_UPRIGHT = 20.0
"""By how much the score upright must exceed that upside down; real pictures have 26 to 113."""

MAX_COEFFICIENT = 2.0
"""Root mean square of the model's coefficients, 1 by definition on average; real pictures have up to 1.6."""

MIN_COUNTED = 0.4
"""Share of a picture's pixels that a correlation needs."""

OTHER_VIEW = 5.0
"""By how much another view's score must be higher for a picture to be refused as that view."""

SURE_SIDE = 8.0
"""Difference of scores from which on the side to which a lateral faces is sure."""

MIRRORED = 4.0
"""Difference of scores from which on it is sure whether a frontal is mirrored."""

UPSIDE_DOWN = {
    "identity": ("flip_rows", "rotate_180"), "flip_columns": ("flip_rows", "rotate_180"),
    "flip_rows": ("identity", "flip_columns"), "rotate_180": ("identity", "flip_columns"),
}  # fmt: skip
"""What each orientation is compared with."""

NAMES = {"pa": "frontal", "lat": "lateral"}


def why_no_chest(picture: Picture, found: Found, model: ChestModel) -> str | None:
    """What speaks against an upright chest in this picture; None if nothing does.

    Args:
        picture: As it is stored.
        found: Its most probable camera.
        model: What chests look like.
    """
    kind = KINDS[picture.kind]
    upright = picture.oriented(found.orientation)
    place = torch.tensor([[found.width, *found.shift]])
    view = view_of(upright.compared(FINE), model, place, found.azimuth, found.distance, kind.dark)
    coefficient = float(evidence([view], EFFECTIVE_PIXELS).coefficients.square().mean().sqrt())
    correlation = max(_correlation(upright, azimuth, found, model) for azimuth in kind.azimuths)
    others = UPSIDE_DOWN.get(found.orientation, ())
    other = max((score for (_, way), score in found.scores.items() if way in others), default=-1e4)
    if coefficient > MAX_COEFFICIENT:
        return f"it would be a chest {coefficient:.1f} times as unusual as most"
    if correlation < MIN_CORRELATION:
        return f"its correlation with the mean chest is {correlation:.2f} at best"
    if found.score - other < MIN_UPRIGHT:
        return "it looks no more like a chest upright than upside down"
    if found.orientation in ("flip_rows", "rotate_180"):
        return "it would be one upside down; if it is, turn it"
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
    return _gain_of_mirroring(found) > MIRRORED


def frontal_in_words(found: Found) -> str:
    """How a frontal was understood, in words."""
    turned = "upright" if found.orientation == "identity" else IN_WORDS[found.orientation]
    sure = abs(_gain_of_mirroring(found)) > MIRRORED
    return turned + ("" if sure else ", whether mirrored left-right is not sure")


def side_in_words(found: Found) -> str:
    """How a lateral was understood, in words."""
    side = "left" if found.azimuth > 0 else "right"
    turned = "" if found.orientation == "identity" else f", {IN_WORDS[found.orientation]}"
    values = sorted(_by_azimuth(found).values())
    sure = len(values) < 2 or values[-1] - values[0] > SURE_SIDE
    return f"facing {side}{turned}" + ("" if sure else ", which is not sure")


def _gain_of_mirroring(found: Found) -> float:
    """By how much the score of a frontal rises if it is mirrored left-right."""
    mirrored = {"identity": "flip_columns", "rotate_180": "flip_rows"}.get(found.orientation, "")
    return found.scores.get((found.azimuth, mirrored), -1e4) - found.score


def _by_azimuth(found: Found) -> dict[float, float]:
    """The best score from each side."""
    best: dict[float, float] = {}
    for (azimuth, _), score in found.scores.items():
        best[azimuth] = max(score, best.get(azimuth, -1e9))
    return best


def _correlation(upright: Picture, azimuth: float, found: Found, model: ChestModel) -> float:
    """The largest correlation with the mean chest's projection on the coarse grid, where most of the picture counts."""
    small, grid = upright.compared(COARSE), coarse_grid(upright.kind)
    mean, length = projected(model, grid, small.values.shape, azimuth, found.distance)[:2]
    counted = (length > MIN_LENGTH * model.extent) & small.body.flatten()
    number = counted.sum(dim=1, keepdim=True)
    pictures = small.values.flatten().expand_as(mean)
    deviations = [
        torch.where(counted, one - (one * counted).sum(dim=1, keepdim=True) / number.clamp(min=1), 0.0)
        for one in (pictures, mean)
    ]
    product = (deviations[0] * deviations[1]).sum(dim=1)
    correlations = product / (deviations[0].norm(dim=1) * deviations[1].norm(dim=1)).clamp(min=1e-6)
    kept = correlations[number[:, 0] > MIN_COUNTED * int(small.body.sum())]
    return float(kept.max().nan_to_num()) if len(kept) else 0.0
