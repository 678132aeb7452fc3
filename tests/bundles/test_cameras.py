"""Each case has cameras of its own, as measured ones are: every bundle trains and infers on them, or says who does."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import pytest
import torch
from monai.bundle import ConfigParser

from tests.bundles.miniature import (
    CHECKPOINT,
    OVERLAY_MINIATURE,
    RECONSTRUCTION,
    SIZES,
    arguments,
    files,
    run,
    smoke,
    train,
    train_second_stage,
)
from tests.bundles.sources import COMMON, RADIOGRAPHS, name
from trct_monai.geometry import Camera, is_near_preset, make_camera, preset, projection_matrices
from trct_monai.io.datalist import ANY_CAMERAS, OWN_CAMERAS, SECTIONS, load_datalist, read_datalist, save_datalist
from trct_monai.io.radiograph import save_radiograph
from trct_monai.projector import project_hu
from trct_monai.transforms import PrepareViews

EXTENT, PIXELS = 320.0, 32

pytestmark = pytest.mark.slow


def random_camera(view: str, azimuth_deg: float, generator: torch.Generator) -> Camera:
    """A camera as people have them: 250 to 500 mm of field, any distance, shifted, turned."""
    field, distance, turn, up, left = (torch.rand(5, generator=generator) * 2 - 1).tolist()
    side, sod = 420 + 60 * field, 1500 + 600 * distance
    camera = make_camera(
        view, azimuth_deg + 5 * turn, sod=sod, sdd=sod + 250, detector_extent=(side, side), size=(PIXELS, PIXELS)
    )
    return camera.shifted((10 * left, 10 * left, 10 * up))


@pytest.fixture(scope="module")
def own_cameras(phantoms: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datalist of the tiny phantoms, each seen by two cameras that no other case has."""
    folder, generator = tmp_path_factory.mktemp("own_cameras"), torch.Generator().manual_seed(0)
    sections = {section: load_datalist(phantoms, section) for section in SECTIONS}
    for case in (case for cases in sections.values() for case in cases):
        volume = torch.from_numpy(nibabel.load(case["label"]).get_fdata()).float()
        cameras = [random_camera("pa", 0.0, generator), random_camera("lat", 90.0, generator)]
        assert is_near_preset(cameras, "x2ct")
        images = project_hu(volume[None], cameras, EXTENT / len(volume))
        case["image"] = [str(folder / f"{case['case_id']}_{camera.name}.png") for camera in cameras]
        case["cameras"] = [camera.to_dict() for camera in cameras]
        for path, image, camera in zip(case["image"], images, cameras):
            save_radiograph(path, image, camera)
    header = {key: value for key, value in read_datalist(phantoms).items() if key not in SECTIONS}
    save_datalist(folder / "datalist.json", sections, header)
    return folder / "datalist.json"


@pytest.mark.parametrize("bundle", RADIOGRAPHS, ids=name)
def test_a_bundle_trains_and_infers_on_the_cameras_of_each_case(
    bundle: Path, own_cameras: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"batch_size": 2}
    state = train(bundle, own_cameras, tmp_path, **changes)
    train_second_stage(bundle, own_cameras, tmp_path)
    assert state["epoch"] == 2 and (tmp_path / CHECKPOINT).is_file()
    predictions = tmp_path / "predictions"
    options = SIZES | arguments(bundle, own_cameras, predictions, tmp_path / "model.pt")
    config = files(bundle, "inference.json")
    run(config, **options)
    cases = load_datalist(own_cameras, "test")
    assert {path.name for path in predictions.iterdir()} == {f"{case['case_id']}.nii.gz" for case in cases}

    parser = ConfigParser()
    parser.read_config(config)
    parser.update({key: value for key, value in options.items() if key in parser.get()})
    item = parser.get_parsed_content("dataset")[0]
    own = projection_matrices([Camera.from_dict(camera) for camera in cases[0]["cameras"]])
    torch.testing.assert_close(item["matrices"], own)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(state["network"])  # the best one may be the untrained mean volume
    network.eval()
    image, others = item["image"][None].nan_to_num(), projection_matrices(preset("x2ct"))
    with torch.no_grad():
        assert not torch.equal(network(image, matrices=own[None]), network(image, matrices=others[None]))


def refusal(config: list[str], **options: Any) -> str:
    with pytest.raises(RuntimeError) as error:
        run(config, **options)
    message = str(error.value.__cause__)
    assert "\n" not in message
    return message


def test_methods_of_a_fixed_geometry_refuse_in_one_line_and_name_those_that_can(
    own_cameras: Path, tmp_path: Path
) -> None:
    assert set(OWN_CAMERAS.split(", ")) <= {bundle.name for bundle in RADIOGRAPHS}
    options = arguments(RECONSTRUCTION, own_cameras, tmp_path) | OVERLAY_MINIATURE["patch_vit"]
    patch_vit = files(RECONSTRUCTION, "train.json", RECONSTRUCTION / "configs" / "patch_vit.json")
    message = refusal([*patch_vit, str(smoke(RECONSTRUCTION))], **options)
    assert f"or use a method that takes each case's own cameras: {OWN_CAMERAS}" in message
    options = arguments(RECONSTRUCTION, own_cameras, tmp_path) | SIZES | {"baseline": "ridge_pca"}
    message = refusal(files(RECONSTRUCTION, "inference.json", COMMON / "baseline.json"), **options)
    assert f"or use a method that takes each case's own cameras: {OWN_CAMERAS}" in message


@pytest.mark.parametrize("bundle", ["direct_regression", "trct_gan", "two_stage", "x2ct_gan"])
def test_views_in_another_order_are_refused_where_each_has_its_encoder(
    bundle: str, own_cameras: Path, tmp_path: Path
) -> None:
    sections = {section: load_datalist(own_cameras, section) for section in SECTIONS}
    for case in (case for cases in sections.values() for case in cases):
        for field in ("image", "cameras", "views"):
            case[field] = case[field][::-1]
    save_datalist(tmp_path / "datalist.json", sections, {})
    folder = RECONSTRUCTION.with_name(bundle)
    message = refusal(
        files(folder, "train.json", smoke(folder)), **arguments(folder, tmp_path / "datalist.json", tmp_path)
    )
    assert "are not taken from the 2 sides of geometry 'x2ct', in this order" in message
    assert f"for any views use {ANY_CAMERAS}" in message


def test_cameras_that_all_cases_share_are_given_once() -> None:
    cameras = preset("x2ct", PIXELS)
    moved = [camera.shifted((3.0, 0.0, 0.0)) for camera in cameras]
    matrices = torch.stack([projection_matrices(views) for views in (cameras, cameras, moved)])
    for batch, number in ((matrices[:2], 1), (matrices, 3)):
        data = {"image": torch.zeros(len(batch), 2, 4, 4), "label": torch.zeros(len(batch), 1), "matrices": batch}
        given = PrepareViews(share=True)(data, "cpu", False)[3]["matrices"]
        assert len(given) == number and torch.equal(given.expand_as(batch), batch)


def test_a_camera_is_near_a_preset_whatever_its_distance_and_not_from_another_side() -> None:
    cameras = preset("x2ct")
    assert is_near_preset(cameras, "clinic") and is_near_preset([camera.turned(40) for camera in cameras], "x2ct")
    assert is_near_preset([camera.opposite() for camera in cameras], "x2ct")
    assert is_near_preset([replace(camera, source=None) for camera in cameras], "x2ct")
    assert not is_near_preset(cameras[::-1], "x2ct") and not is_near_preset(cameras[:1], "x2ct")
    assert not is_near_preset([camera.turned(50) for camera in cameras], "x2ct")
