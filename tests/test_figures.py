"""Pictures hang as a radiologist hangs them, and are written whole."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from trct_monai.figures import (
    comparison_figure,
    contact_sheet,
    lesion_sheet,
    planes,
    reconstruction_figure,
    save_figure,
)
from trct_monai.geometry import make_camera, preset


@pytest.mark.parametrize(
    ("axis", "edges"),
    [
        (0, {"axial": "left", "coronal": "left"}),
        (1, {"axial": "top", "sagittal": "left"}),
        (2, {"coronal": "top", "sagittal": "top"}),
    ],
    ids=["right", "anterior", "superior"],
)
def test_right_is_left_anterior_is_up_or_left_and_the_head_is_up(axis: int, edges: dict[str, str]) -> None:
    volume = torch.zeros(9, 9, 9)
    volume.select(axis, 8).fill_(1)
    pictures = planes(volume)
    for name, edge in edges.items():
        lit = pictures[name][0] if edge == "top" else pictures[name][:, 0]
        assert lit.all() and pictures[name].sum() == 9


def test_comparison_shows_volumes_and_radiographs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    truth, prediction = (1000 * torch.rand(16, 16, 16, generator=generator) - 500 for _ in range(2))
    radiographs = torch.rand(2, 24, 24, generator=generator)
    figure = comparison_figure(
        truth, prediction, radiographs, radiographs + 0.5, view_names=["pa", "lat"], voxel_spacing=20.0, title="a case"
    )
    titles = [axis.get_title() for axis in figure.axes]
    assert "axial: truth, HU" in titles and "pa: radiograph, line integral" in titles and "residual, RMS 0.50" in titles
    save_figure(figure, tmp_path / "new" / "case.png")
    with Image.open(tmp_path / "new" / "case.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 500
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["case.png"]


@pytest.mark.parametrize("intervals", [True, False])
def test_reconstruction_shows_intervals_where_there_are_some_and_every_view(intervals: bool) -> None:
    volume, radiographs = torch.zeros(8, 8, 8), torch.rand(2, 6, 6, generator=torch.Generator().manual_seed(0))
    width = torch.full_like(volume, 50.0) if intervals else None
    figure = reconstruction_figure(
        volume, width, radiographs, radiographs - 0.25, view_names=["pa"], voxel_spacing=40.0
    )
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert sum("width of the 90 % interval" in title for title in titles) == 3 * intervals
    assert "pa: radiograph, line integral" in titles and "view 1: radiograph, line integral" in titles
    assert titles.count("residual, RMS 0.25") == 2


def test_long_warnings_stay_inside_the_picture() -> None:
    volume, image = torch.zeros(8, 8, 8), torch.zeros(1, 8, 8)
    figure = reconstruction_figure(
        volume,
        None,
        image,
        image,
        view_names=["pa"],
        voxel_spacing=40.0,
        title="case\n" + 8 * "measured beside expected ",
    )
    figure.draw_without_rendering()
    (title,) = figure.texts
    assert title.get_text().replace("\n", " ").split()[:3] == ["case", "measured", "beside"]
    box, whole = title.get_window_extent(), figure.bbox
    assert whole.x0 <= box.x0 and box.x1 <= whole.x1


@pytest.mark.parametrize(("azimuth", "letters"), [(0.0, "RL"), (90.0, "AP"), (-90.0, "PA"), (180.0, "LR"), (40.0, "")])
def test_letters_at_the_edges_are_those_of_the_camera(azimuth: float, letters: str) -> None:
    camera = make_camera("lat", azimuth, sod=1600.0, sdd=1800.0, detector_extent=(300.0, 300.0), size=(8, 8))
    image = torch.zeros(1, 8, 8)
    figure = reconstruction_figure(torch.zeros(8, 8, 8), None, image, image, view_names=["lat"], cameras=[camera])
    (radiograph,) = (axis for axis in figure.axes if "radiograph" in axis.get_title())
    assert "".join(text.get_text() for text in radiograph.texts) == letters


def test_contact_sheet_has_a_row_for_each_case() -> None:
    cube, image = torch.zeros(1, 8, 8, 8), torch.zeros(8, 8)
    figure = contact_sheet([("one", cube, [("pa", image)]), ("two", cube, [("pa", image)])])
    assert len(figure.axes) == 8


def test_lesion_sheet_hangs_radiographs_beside_both_volumes_through_one_place() -> None:
    truth, prediction = torch.zeros(9, 9, 9), torch.zeros(9, 9, 9)
    truth[8, 2, 7] = prediction[8, 6, 7] = 500.0  # on the patient's right, above; the second one is elsewhere
    cameras = preset("x2ct", 8)
    figure = lesion_sheet([(torch.rand(2, 8, 8), truth, prediction, (8, 2, 7))] * 2, cameras, 5.0)
    titles = [axis.get_title() for axis in figure.axes]
    planes_of_both = [f"{kind}, {plane}" for plane in ("axial", "coronal") for kind in ("CT", "reconstruction")]
    assert titles[:6] == [*(camera.name for camera in cameras), *planes_of_both] and not any(titles[6:])
    coronal, reconstructed = (figure.axes[number].images[0].get_array() for number in (4, 5))
    assert coronal[1, 0] == 500 and reconstructed.max() == 0  # head up, right on the left, the truth's place in both
    assert "-1000 to 600 HU" in figure.get_suptitle()
    assert [text.get_text() for text in figure.axes[2].texts][:2] == ["R", "L"]
