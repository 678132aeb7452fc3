"""A view of the registration's benchmark by itself."""

import pytest
from registration_views import draw, error_mm, load

from trct_monai.geometry import preset
from trct_monai.registration import register


@pytest.mark.slow
def test_a_source_that_seems_beyond_parallel_is_on_the_other_side() -> None:
    """Its search ends on the wrong side, with a parallel beam and the picture mirrored: 14 mm away, and sure of it."""
    volume, view = load("7020"), draw("7020", 83)
    _, lateral = preset("parallel")
    found = register(view.picture, volume.ct_hu[None], volume.spacing, lateral)
    assert error_mm(view, found.camera, found.orientation["transform"]) < 3
