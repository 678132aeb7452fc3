import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from trct_monai.geometry import preset, projection_matrices
from trct_monai.geometry.orientations import ORIENTATIONS, orient
from trct_monai.io.radiograph import Radiograph, read_radiograph, save_picture, save_radiograph
from trct_monai.resampling import resize_radiographs
from trct_monai.transforms import CameraMatricesd, LoadRadiographsd


def random_image(*shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 7


def test_round_trip_is_exact_to_half_a_quantum(tmp_path):
    image, camera = random_image(32, 32), preset("x2ct", 32)[0]
    save_radiograph(tmp_path / "a_pa.png", image, camera)
    radiograph = read_radiograph(tmp_path / "a_pa.png")
    assert radiograph.quantitative and radiograph.camera == camera
    assert (radiograph.image - image).abs().max() <= float(image.max()) / 65535 / 2 * 1.01
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a_pa.json", "a_pa.png"]


def test_negative_values_survive(tmp_path):
    image = random_image(16, 16) - 1
    save_radiograph(tmp_path / "a.png", image, preset("x2ct", 16)[0])
    torch.testing.assert_close(read_radiograph(tmp_path / "a.png").image, image, atol=1e-4, rtol=0)


def test_views_are_stacked_in_the_order_of_the_datalist(tmp_path):
    images, cameras = random_image(2, 16, 16), preset("x2ct", 16)
    paths = [str(tmp_path / f"{camera.name}.png") for camera in cameras]
    for path, image, camera in zip(paths, images, cameras):
        save_radiograph(path, image, camera)
    item = LoadRadiographsd()({"image": paths[::-1]})
    torch.testing.assert_close(item["image"], images.flip(0), atol=1e-3, rtol=0)
    assert item["image"].dtype == torch.float32
    assert torch.equal(LoadRadiographsd()(item)["image"], item["image"])  # a tensor stays
    half = LoadRadiographsd(size=8)({"image": paths})["image"]
    torch.testing.assert_close(half, images.view(2, 8, 2, 8, 2).mean((2, 4)), atol=1e-3, rtol=0)


def test_a_missing_view_is_nan_where_it_may_be_missing(tmp_path):
    image = random_image(16, 16)
    save_radiograph(tmp_path / "a.png", image, preset("x2ct", 16)[0])
    paths = [None, str(tmp_path / "a.png")]
    result = LoadRadiographsd(allow_missing_views=True)({"image": paths})["image"]
    assert result[0].isnan().all()
    torch.testing.assert_close(result[1], image, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="1 of 2 views are missing; give a file for each"):
        LoadRadiographsd()({"image": paths})
    with pytest.raises(ValueError, match="2 of 2 views are missing.*or for one at least"):
        LoadRadiographsd(allow_missing_views=True)({"image": [None, None]})


def test_files_given_by_hand_bring_the_cameras_of_their_side_cars(tmp_path):
    cameras = preset("circle-8", 16)
    paths = [str(tmp_path / f"{camera.name}.png") for camera in cameras]
    for path, camera in zip(paths, cameras):
        save_radiograph(path, random_image(16, 16), camera)
    item = CameraMatricesd(geometry="x2ct")(LoadRadiographsd()({"image": [paths[0], paths[3]]}))
    torch.testing.assert_close(item["matrices"], projection_matrices([cameras[0], cameras[3]]))
    missing = LoadRadiographsd(allow_missing_views=True)({"image": [None, paths[3]]})
    assert CameraMatricesd()(missing)["matrices"].shape == (2, 3, 4)
    np.save(tmp_path / "plain.npy", random_image(16, 16).numpy())
    plain = [str(tmp_path / "plain.npy")] * 2
    assert "cameras" not in LoadRadiographsd(allow_unquantitative=True)({"image": plain})
    by_geometry = LoadRadiographsd(allow_unquantitative=True, geometry="x2ct")({"image": plain})
    assert [camera["name"] for camera in by_geometry["cameras"]] == ["pa", "lat"]
    with pytest.raises(ValueError, match="some radiographs have a camera in their side-car, .*plain.npy not"):
        LoadRadiographsd()({"image": [paths[0], plain[0]]})


def test_side_cars_of_other_views_are_refused_by_a_fixed_geometry(tmp_path):
    """Two radiographs given in the wrong order are the likeliest mistake of all."""
    files = []
    for camera in preset("x2ct", 16):
        files.append(str(tmp_path / f"{camera.name}.png"))
        save_radiograph(files[-1], torch.rand(16, 16), camera)
    loader = LoadRadiographsd(geometry="x2ct")
    assert loader({"image": files})["image"].shape == (2, 16, 16)
    with pytest.raises(ValueError, match="are not those of geometry 'x2ct', .*check the order of the views"):
        loader({"image": files[::-1]})
    with pytest.raises(ValueError, match="are not those of geometry 'clinic', .*or use any_view, dif_net, hybrid"):
        LoadRadiographsd(geometry="clinic")({"image": files})
    near = LoadRadiographsd(geometry="clinic", near_cameras=True)
    assert near({"image": files})["image"].shape == (2, 16, 16)
    with pytest.raises(ValueError, match="'clinic', nor near them, .*order of the views, or use any_view, dif_net or"):
        near({"image": files[::-1]})


@pytest.mark.parametrize("size", [4, 6, 16, 32, (8, 4)])
def test_resizing_keeps_the_mean_and_the_edges(size):
    image = random_image(16, 16)
    result = resize_radiographs(image, size)
    torch.testing.assert_close(result.mean(), image.mean(), atol=0.02, rtol=0)
    ramp = torch.linspace(-15 / 32, 15 / 32, 16).expand(16, 16)
    torch.testing.assert_close(resize_radiographs(ramp, size).mean(), torch.tensor(0.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize("transform", ORIENTATIONS)
def test_recorded_orientation_and_intensity_are_applied(tmp_path, transform):
    upright = random_image(16, 16) / 7
    inverse = next(name for name in ORIENTATIONS if torch.equal(orient(orient(upright, name), transform), upright))
    stored = (orient(upright, inverse) * 255).round().numpy().astype(np.uint8)
    Image.fromarray(stored).save(tmp_path / "a.png")
    item = {
        "image": [str(tmp_path / "a.png")],
        "orientation": [{"transform": transform}],
        "intensity": [{"quantitative": False, "gain": 7.0, "offset": 0.5}],
    }
    result = LoadRadiographsd()(item)["image"]
    torch.testing.assert_close(result[0], upright * 7 + 0.5, atol=7 / 255, rtol=0)


def test_eight_orientations_are_different_and_turns_are_counter_clockwise():
    image = torch.arange(6.0).view(2, 3)
    assert len({str(orient(image, name).tolist()) for name in ORIENTATIONS}) == 8
    assert torch.equal(orient(image, "rotate_90"), torch.rot90(image))
    with pytest.raises(ValueError, match="orientation must be one of"):
        orient(image, "upside_down")


def test_float_files_are_line_integrals_only_if_a_datalist_says_so(tmp_path):
    image = random_image(8, 10)
    np.save(tmp_path / "a.npy", image.numpy())
    nibabel.save(nibabel.Nifti1Image(image.numpy().T, np.eye(4)), tmp_path / "a.nii.gz")
    for name in ("a.npy", "a.nii.gz"):
        radiograph = read_radiograph(tmp_path / name)
        assert radiograph.floats and not radiograph.quantitative
        torch.testing.assert_close(radiograph.image, image)
        item = {"image": [tmp_path / name]}
        with pytest.raises(ValueError, match=f"{name}: not quantitative"):
            LoadRadiographsd()(item)
        known = LoadRadiographsd()(item | {"intensity": [{"quantitative": True, "gain": None, "offset": None}]})
        torch.testing.assert_close(known["image"][0], image)
        assert known["calibrated"].tolist() == known["exposed"].tolist() == [True]


def test_a_scale_that_was_estimated_is_no_known_exposure():
    given = Radiograph(random_image(8, 8), True, None, Path("a.png"))
    estimated = Radiograph(random_image(8, 8), True, None, Path("b.png"), exposed=False)
    item = LoadRadiographsd()({"image": [given, estimated]})
    assert item["calibrated"].tolist() == [True, True] and item["exposed"].tolist() == [True, False]


def test_a_picture_on_its_own_scale_keeps_what_is_not_valid_and_no_known_exposure(tmp_path):
    image = random_image(6, 8)
    image /= image.max()
    image[0, 0], valid = 0.0, torch.ones(6, 8, dtype=torch.bool)
    valid[1, 2:4] = False
    save_picture(tmp_path / "p.png", image, valid)
    save_picture(tmp_path / "whole.png", image)
    read, whole = (read_radiograph(tmp_path / f"{name}.png") for name in ("p", "whole"))
    assert read.valid is not None and torch.equal(read.valid, valid) and whole.valid is None
    assert (read.image - image)[valid].abs().max() <= 1 / 65535 and (whole.image - image).abs().max() <= 0.6 / 65535
    assert not read.quantitative and not read.exposed and not whole.exposed
    case = {"image": [str(tmp_path / "p.png")], "intensity": [{"quantitative": False, "gain": 5.0, "offset": 0.0}]}
    loaded = LoadRadiographsd()(case)
    assert loaded["calibrated"].tolist() == [True] and loaded["exposed"].tolist() == [False]


def test_unquantitative_pictures_are_refused_unless_allowed(tmp_path):
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(tmp_path / "a.png")
    item = {"image": [tmp_path / "a.png"]}
    with pytest.raises(ValueError, match="a.png: not quantitative"):
        LoadRadiographsd()(item)
    assert LoadRadiographsd(allow_unquantitative=True)(item)["image"].max() == 1


def test_refusals_name_the_file(tmp_path):
    camera = preset("x2ct", 8)[0]
    with pytest.raises(FileNotFoundError, match="gone.png: no such file"):
        read_radiograph(tmp_path / "gone.png")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ValueError, match="cut.png: not a radiograph"):
        read_radiograph(tmp_path / "cut.png")
    np.save(tmp_path / "nan.npy", np.full((8, 8), np.nan))
    with pytest.raises(ValueError, match="nan.npy: .*not finite"):
        read_radiograph(tmp_path / "nan.npy")
    np.save(tmp_path / "volume.npy", np.zeros((8, 8, 8)))
    with pytest.raises(ValueError, match="volume.npy: .*two dimensions"):
        read_radiograph(tmp_path / "volume.npy")
    with pytest.raises(ValueError, match="camera's size"):
        save_radiograph(tmp_path / "a.png", torch.zeros(4, 4), camera)
    with pytest.raises(ValueError, match="not finite"):
        save_radiograph(tmp_path / "a.png", torch.full((8, 8), float("inf")), camera)
    save_radiograph(tmp_path / "a.png", torch.ones(8, 8), camera)
    page = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    (tmp_path / "a.json").write_text(json.dumps(page | {"format_version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="a.json: version 99 of a side-car"):
        read_radiograph(tmp_path / "a.png")
    for name, size in (("b.npy", 4), ("c.npy", 6)):
        np.save(tmp_path / name, np.ones((size, size)))
    with pytest.raises(ValueError, match="different sizes"):
        LoadRadiographsd(allow_unquantitative=True)({"image": [tmp_path / "b.npy", tmp_path / "c.npy"]})


@pytest.mark.parametrize(
    "change", [{"camera": {"name": "pa", "source": 3}}, {"camera": 7}, {"scale": None}, {"camera": {"name": "pa"}}]
)
def test_a_malformed_side_car_is_refused_in_one_line(tmp_path, change):
    save_radiograph(tmp_path / "a.png", random_image(16, 16), preset("x2ct", 16)[0])
    page = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    if isinstance(change.get("camera"), dict) and "source" in change["camera"]:
        change = {"camera": page["camera"] | change["camera"]}
    (tmp_path / "a.json").write_text(json.dumps(page | change), encoding="utf-8")
    with pytest.raises(ValueError, match="a.png: the camera in its side-car|a.json: a quantitative radiograph needs"):
        read_radiograph(tmp_path / "a.png")


def test_a_json_file_of_others_is_not_believed(tmp_path, caplog):
    """44 must not become 2,052 HU because some program keeps notes beside its pictures."""
    Image.fromarray(np.full((8, 8), 44, dtype=np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text('{"patient": 7, "format_version": 1}', encoding="utf-8")
    radiograph = read_radiograph(tmp_path / "a.png")
    assert not radiograph.quantitative and float(radiograph.image.max()) == pytest.approx(44 / 255)
    assert "a.json is no side-car of ours" in caplog.text
    (tmp_path / "a.json").write_text('{"scale": 2.0}', encoding="utf-8")
    with pytest.raises(ValueError, match='a.json has scale, but does not state "format": "trct-radiograph"'):
        read_radiograph(tmp_path / "a.png")


def test_side_cars_of_0_1_0_are_read(tmp_path):
    image = random_image(8, 8)
    save_radiograph(tmp_path / "a.png", image, preset("x2ct", 8)[0])
    page = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    old = {key: value for key, value in page.items() if key not in ("format", "pixels_sha256")} | {"format_version": 1}
    (tmp_path / "a.json").write_text(json.dumps(old), encoding="utf-8")
    radiograph = read_radiograph(tmp_path / "a.png")
    assert radiograph.quantitative and float((radiograph.image - image).abs().max()) < 1e-4
    (tmp_path / "a.json").write_text(json.dumps(old | {"quantitative": False}), encoding="utf-8")
    torch.testing.assert_close(read_radiograph(tmp_path / "a.png").image, radiograph.image)  # gains were fitted to that


def test_a_side_car_belongs_to_one_picture(tmp_path):
    """As after a kill between the two files."""
    for name in ("a", "b"):
        save_radiograph(tmp_path / f"{name}.png", random_image(8, 8) * (1 if name == "a" else 2), preset("x2ct", 8)[0])
    (tmp_path / "b.png").replace(tmp_path / "a.png")
    Image.fromarray(np.asarray(Image.open(tmp_path / "a.png")) // 2).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="a.png: its side-car a.json belongs to another picture"):
        read_radiograph(tmp_path / "a.png")
