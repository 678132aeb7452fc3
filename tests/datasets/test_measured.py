"""Radiographs whose cameras nobody states: `prepare` measures them, records how sure it is, and refuses what is not."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.datasets.small import SMALL, as_8_bit, cube_of, files_of, one_case, save_layout_2
from tests.files import save_nifti
from trct_monai.datasets.check import check
from trct_monai.datasets.prepare import prepare
from trct_monai.datasets.prepare_case import Options, make_case
from trct_monai.datasets.sources import find_sources
from trct_monai.geometry import Camera, preset
from trct_monai.geometry.orientations import ORIENTATIONS
from trct_monai.intensity import STORED_HU
from trct_monai.io.ct import read_ct
from trct_monai.phantoms import thorax_phantom
from trct_monai.preprocessing.cube import CTPreprocessing, standardize
from trct_monai.projector import project_hu
from trct_monai.registration.camera import POINTS, as_stored

VIEWS = {"pa": 1, "lat": 0}
"""The axis along which each view of the original layout is summed."""


def save_original_layout(folder, hu, affine, name="p1"):
    """A patient's folder as the first data set had them: plain sums over voxels, 8 bits, squeezed, upside down."""
    save_nifti(folder / name / f"{name}.nii.gz", hu.numpy(), affine)
    for view, axis in VIEWS.items():
        plane = (hu + 1000).clamp(min=0).sum(axis).flip(0).T  # rows from the feet up: upside down
        picture = Image.fromarray(as_8_bit(plane)).resize((128, 128), Image.Resampling.BILINEAR)
        picture.save(folder / name / f"{name}_{view}_drr.png")


def places(case, view):
    """Where the cube's middle and corners are in a stored picture, by its recorded camera."""
    camera = Camera.from_dict(case["cameras"][view])
    u, v, w = (torch.cat([POINTS, torch.ones(9, 1, dtype=torch.float64)], dim=1) @ camera.world_to_detector().T).T
    return as_stored(torch.stack([u / w, v / w], dim=1), case["orientation"][view]["transform"])


def errors_mm(case, shape, spacing, offset):
    """Mean distances from where a parallel beam over the whole CT shows them.

    Args:
        case: An entry of a datalist.
        shape: Voxels of the CT.
        spacing: Their sides in mm.
        offset: From the middle of the cube to that of the CT in mm.
    """
    sides = torch.tensor([n * side for n, side in zip(shape, spacing)], dtype=torch.float64)
    points = POINTS - torch.as_tensor(offset, dtype=torch.float64)
    errors = []
    for view, across in enumerate((0, 1)):
        truth = torch.stack([-points[:, across] / sides[across], points[:, 2] / sides[2]], dim=1) * 2
        apart = (places(case, view) - truth) * sides[[across, 2]] / 2
        errors.append(float(apart.norm(dim=1).mean()))
    return errors


@pytest.mark.slow
def test_the_original_layout_is_accepted_and_checked(tmp_path, capsys):
    phantom = thorax_phantom(5, size=64, findings=[])
    hu = torch.from_numpy(phantom.ct_hu)
    hu, affine = hu[:, 8:60, 4:], phantom.affine.copy()  # neither a cube nor centred
    affine[:3, 3] += np.array([0, 8, 4]) * 5.0
    save_original_layout(tmp_path / "in", hu, affine)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**SMALL, "size": 64})
    case = one_case(tmp_path / "out")
    cube = CTPreprocessing(64, center="lungs").cubes(hu[None], [64], torch.from_numpy(affine))[0]
    middle = affine[:3, 3] + 5.0 * (np.array(hu.shape) - 1) / 2
    offset = middle - (cube.affine.numpy()[:3, 3] + 5.0 * 63 / 2)
    assert max(errors_mm(case, hu.shape, (5.0,) * 3, offset)) < 2
    for one in case["orientation"]:
        assert one["correlation"] > 0.99 and 0 < one["error_mm"] < 2.5 and one["runner_up"] in ORIENTATIONS
        assert one["transform"] == "flip_rows"
    check(str(tmp_path / "out" / "datalist.json"))
    printed = capsys.readouterr().out
    assert "measured cameras, pa (1): width 320" in printed and "+- " in printed and "0 problems" in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cip-ct-64.nrrd", "LIDC-IDRI-0002.nii.gz"])
def test_the_original_layout_of_a_real_ct_is_accepted(shared, tmp_path, name):
    ct = read_ct(shared / "ct" / name)
    hu, affine = standardize(ct.ct_hu, ct.affine)
    save_original_layout(tmp_path / "in", hu.float(), affine)
    prepare(str(tmp_path / "in"), str(tmp_path / "out"), **{**SMALL, "size": 64})
    case = one_case(tmp_path / "out")
    spacing = np.diag(affine)[:3]
    cube = CTPreprocessing(64, center="lungs").cubes(hu[None], [64], torch.from_numpy(affine))[0]
    middle = affine[:3, 3] + spacing * (np.array(hu.shape) - 1) / 2
    errors = errors_mm(case, hu.shape, spacing, middle - (cube.affine.numpy()[:3, 3] + 5.0 * 63 / 2))
    assert max(errors) < 3
    check(str(tmp_path / "out" / "datalist.json"))


@pytest.mark.slow
def test_a_radiograph_that_is_not_of_this_ct_is_refused_with_a_picture(tmp_path, phantom):
    pa, lat = project_hu(cube_of(phantom), list(preset("x2ct", 32)), 8.0)
    noise = np.random.default_rng(0).integers(0, 255, (32, 32), dtype=np.uint8)
    save_layout_2(tmp_path / "in", phantom, {"_pa_drr.png": noise, "_lat_drr.png": as_8_bit(lat)})
    with pytest.raises(
        ValueError, match="p1_pa_drr.png: no camera fits the CT with certainty .* is it a radiograph of"
    ):
        make(tmp_path)
    with Image.open(tmp_path / "refused" / "p1_pa.png") as picture:
        assert picture.size[0] > 100
    save_layout_2(tmp_path / "in", phantom, {"_pa_drr.png": np.full((32, 32), 7, np.uint8)})
    with pytest.raises(ValueError, match="p1_pa_drr.png: .*contrast"):
        make(tmp_path)


def make(folder):
    options = Options(16, 320.0, "measured", 32, STORED_HU, False, False, False, None, 0.0, 0.7, "SPL")
    make_case(find_sources(folder / "in").sources[0], options, folder / "in", folder / "refused", folder / "case")


def test_without_radiographs_the_geometry_is_that_of_rendering(ct_folder, tmp_path):
    prepare(str(ct_folder), str(tmp_path / "out"), **SMALL)
    prepare(str(ct_folder), str(tmp_path / "same"), geometry="x2ct", **SMALL)
    one, same = (files_of(tmp_path / name) for name in ("out", "same"))
    assert one.keys() == same.keys() and b'"geometry": "x2ct"' in one["datalist.json"]
    assert all(one[name] == same[name] for name in one if name.endswith((".png", ".nii.gz")))
