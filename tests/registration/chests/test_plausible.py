"""What is said of how pictures were understood."""

import pytest

from trct_monai.geometry.orientations import IN_WORDS
from trct_monai.registration.chests.plausible import frontal_in_words, seems_mirrored, side_in_words
from trct_monai.registration.chests.search import FILM, Found


def found(orientation: str, azimuth: float, scores: dict[tuple[float, str], float]) -> Found:
    return Found(azimuth, orientation, 400.0, (0.0, 0.0), FILM, scores)


@pytest.mark.parametrize(
    ("orientation", "mirrored", "words", "warned"),
    [
        ("identity", 90.0, "upright", False),
        ("identity", 97.0, "upright, whether mirrored left-right is not sure", False),
        ("identity", 103.0, "upright, whether mirrored left-right is not sure", False),
        ("identity", 110.0, "upright", True),
        ("rotate_180", 101.0, f"{IN_WORDS['rotate_180']}, whether mirrored left-right is not sure", False),
    ],
)
def test_a_frontal_is_mirrored_or_not_or_not_sure(orientation: str, mirrored: float, words: str, warned: bool) -> None:
    other = {"identity": "flip_columns", "rotate_180": "flip_rows"}[orientation]
    one = found(orientation, 0.0, {(0.0, orientation): 100.0, (0.0, other): mirrored})
    assert frontal_in_words(one) == words
    assert seems_mirrored(one) == warned


def test_a_lateral_that_fits_from_both_sides_is_not_sure() -> None:
    scores = {(90.0, "identity"): 100.0, (-90.0, "identity"): 95.0}
    assert side_in_words(found("identity", 90.0, scores)) == "facing left, which is not sure"
    assert side_in_words(found("identity", 90.0, scores | {(-90.0, "identity"): 80.0})) == "facing left"
