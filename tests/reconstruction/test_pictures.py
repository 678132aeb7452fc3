"""Radiographs whose cameras nobody wrote down: understood, calibrated, and refused where they are not what they are
given as."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.files import save_dx
from trct_monai.geometry import make_camera
from trct_monai.intensity import HU_WINDOW
from trct_monai.io.radiograph import read_radiograph
from trct_monai.metrics.protocols import psnr
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project_hu
from trct_monai.reconstruction import load_reconstructor
from trct_monai.reconstruction.command import reconstruct
from trct_monai.reconstruction.loading import CHEST
from trct_monai.reconstruction.pictures import understand
from trct_monai.reconstruction.reconstructor import Reconstructor
from trct_monai.reconstruction.widening import widened
from trct_monai.registration.chests import ChestModel

SHIPPED = "any_view+small"
WIDTHS = {"pa": 340.0, "lat": 310.0}
"""Of the pictures in mm at the detector."""


@pytest.fixture(scope="module")
def truth() -> Tensor:
    return torch.from_numpy(thorax_phantom(470, 64).ct_hu).float()[None]


@pytest.fixture(scope="module")
def film(truth: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8-bit pictures of a phantom, taken by a stand with the film at 1.8 m, through the curve of a display."""
    folder = tmp_path_factory.mktemp("film")
    for view, azimuth in (("pa", 0.0), ("lat", 90.0), ("lat_right", -90.0)):
        side = WIDTHS[view[:3].rstrip("_")]
        camera = make_camera(view, azimuth, sod=1600.0, sdd=1800.0, detector_extent=(side, side), size=(200, 200))
        image = project_hu(truth, [camera], 5.0)[0]
        display = (image / image.max()).clamp(0, 1) ** 1.3
        noise = 0.01 * torch.randn(display.shape, generator=torch.Generator().manual_seed(0))
        pixels = ((display + noise).clamp(0, 1) * 250).byte().numpy()
        for name, stored in {"": pixels, "_mirrored": pixels[:, ::-1], "_down": pixels[::-1, ::-1]}.items():
            Image.fromarray(np.ascontiguousarray(stored)).save(folder / f"{view}{name}.png")
    return folder


@pytest.fixture(scope="module")
def shipped() -> Reconstructor:
    return load_reconstructor(SHIPPED)


@pytest.fixture(scope="module")
def model(shipped: Reconstructor) -> ChestModel:
    assert shipped.chest is not None
    return shipped.chest


def record(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return content


def test_a_pair_of_unknown_cameras_becomes_a_ct(truth: Tensor, film: Path, tmp_path: Path) -> None:
    out = tmp_path / "ct.nii.gz"
    reconstruct(str(out), pa=str(film / "pa.png"), lat=str(film / "lat_right.png"))
    window = HU_WINDOW[1] - HU_WINDOW[0]
    error = nibabel.load(out).get_fdata().clip(*HU_WINDOW) - truth[0].clamp(*HU_WINDOW).numpy()
    assert psnr(error, window) > 19.0  # the mean volume has 17
    report = record(tmp_path / "ct.json")
    assert report["warnings"] == [] and float(str(report["relative_residual"])) < 0.1
    assert "facing right" in str(report["notes"])
    (frontal, lateral) = report["radiographs"]  # type: ignore[misc]
    assert frontal["camera"]["size"] == [200, 200] and lateral["camera"]["source"][0] < -1000  # from the left


def test_width_position_and_side_are_found(film: Path, model: ChestModel) -> None:
    views = {view: read_radiograph(film / f"{view}.png") for view in ("pa", "lat")}
    understood = understand(views, model)
    for one in understood.pictures:
        width = one.found.width * one.found.distance.magnification
        assert abs(width / WIDTHS[one.picture.kind] - 1) < 0.15
        assert max(map(abs, one.found.shift)) < 40
    assert [one.found.azimuth for one in understood.pictures] == [0.0, 90.0]
    assert understood.warnings == []


def test_a_picture_that_is_not_upright_is_turned_by_force_alone(film: Path, model: ChestModel) -> None:
    forced = understand({"pa": read_radiograph(film / "pa_down.png")}, model, force=True)
    assert forced.pictures[0].found.orientation == "rotate_180" and "upside down" in forced.notes[0]
    expected = "pa_down.png does not look like a frontal chest: it would be one upside down; if it is, turn it"
    assert expected in forced.warnings[-1]


def test_a_mirrored_frontal_is_named_and_not_turned(film: Path, model: ChestModel) -> None:
    understood = understand({"pa": read_radiograph(film / "pa_mirrored.png")}, model)
    assert understood.pictures[0].found.orientation == "identity"
    assert "seems to be mirrored left-right" in understood.warnings[0]


@pytest.mark.parametrize(
    ("pa", "lat", "expected"),
    [
        ("lat", "pa", "frontal and lateral seem to be exchanged"),
        ("pa", "pa", "frontal and lateral are the same picture"),
    ],
)
def test_other_views_are_refused_and_nothing_is_written(
    pa: str, lat: str, expected: str, film: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=expected):
        reconstruct(str(tmp_path / "out" / "ct.nii.gz"), pa=str(film / f"{pa}.png"), lat=str(film / f"{lat}.png"))
    assert not (tmp_path / "out").exists()


def test_what_is_no_chest_is_refused(model: ChestModel, tmp_path: Path) -> None:
    x = torch.linspace(-1, 1, 160)
    leg = (1 - (x / 0.7).square()).clamp(min=0).sqrt() + 0.8 * (0.04 - (x - 0.2).square()).clamp(min=0).sqrt()
    noise = 0.01 * torch.rand(240, 160, generator=torch.Generator().manual_seed(0))
    Image.fromarray(((leg + noise).clamp(0, 1.2) * 200).byte().numpy()).save(tmp_path / "leg.png")
    with pytest.raises(ValueError, match="leg.png does not look like a frontal chest.*--force goes on"):
        understand({"pa": read_radiograph(tmp_path / "leg.png")}, model)


def test_an_implausible_pixel_size_is_named_and_not_used(film: Path, model: ChestModel, tmp_path: Path) -> None:
    pixels = np.asarray(Image.open(film / "pa.png")).astype(np.uint16) * 16
    halved = save_dx(tmp_path / "halved", pixels, pixel_spacing=(0.7, 0.7))
    right = save_dx(tmp_path / "right", pixels, pixel_spacing=(1.7, 1.7))
    understood = understand({"pa": read_radiograph(halved)}, model)
    assert "pixels of 0.7 x 0.7 mm would make a picture of 140 x 140 mm" in understood.warnings[0]
    (one,) = understand({"pa": read_radiograph(right)}, model).pictures
    assert abs(one.found.width * one.found.distance.magnification - 340.0) < 20


def test_intervals_widen_on_the_rays_that_are_not_explained() -> None:
    camera = make_camera("pa", 0.0, sod=1600.0, sdd=1800.0, detector_extent=(400.0, 400.0), size=(64, 64))
    volume = torch.full((1, 5, 16, 16, 16), 0.5)
    volume[:, 1:] += torch.tensor([-0.02, -0.01, 0.01, 0.02]).view(1, 4, 1, 1, 1)
    residual, radiographs = torch.zeros(1, 64, 64), torch.full((1, 64, 64), 4.0)
    residual[:, :, :20] = 1.0  # the patient's right side
    counted = torch.ones_like(residual, dtype=torch.bool)
    result = widened(volume, residual, counted, radiographs, [camera], 320.0, 0.05)
    width, before = (one[0, 4] - one[0, 1] for one in (result, volume))
    assert torch.equal(result[:, 0], volume[:, 0])
    assert bool((width >= before - 1e-6).all())
    x = torch.arange(16)
    ratios = (width / before).mean(dim=(1, 2))
    assert float(ratios[x > 13].mean()) > 3 and float(ratios[x < 8].mean()) == pytest.approx(1.0, abs=1e-3)


def test_a_method_without_a_model_of_chests_says_so(film: Path, shipped: Reconstructor, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="direct_regression.small does not measure cameras: give --geometry"):
        reconstruct(str(tmp_path / "ct.nii.gz"), pa=str(film / "pa.png"), method="direct_regression+small")
    assert CHEST == "chest.pt"


@pytest.mark.parametrize(("name", "side"), [("p089_right", -90.0)])
def test_real_pairs_are_understood(name: str, side: float, shared: Path, model: ChestModel) -> None:
    folder = shared / "radiographs" / name
    frontal, lateral = (next(folder.glob(f"{view}.*")) for view in ("frontal", "lateral"))
    understood = understand({"pa": read_radiograph(frontal), "lat": read_radiograph(lateral)}, model)
    assert [one.found.azimuth for one in understood.pictures] == [0.0, side]
    assert {one.found.orientation for one in understood.pictures} == {"identity"}
    assert understood.warnings == []
