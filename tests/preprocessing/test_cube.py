import logging
import pickle

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImage

from trct_monai.geometry import voxel_to_world
from trct_monai.intensity import hu_to_unit
from trct_monai.preprocessing.cube import CTPreprocessing
from trct_monai.resampling import resample, resampling_matrix
from trct_monai.transforms import CTPreprocessingd, UnitToHUd


def make_ct(shape=(60, 50, 40), spacing=(5.0, 5.0, 6.0), center=(0.0, 0.0, 0.0), table=True):
    """A body (ellipse, 240 x 160 mm) with two lungs on a table, all along z; its middle at `center`."""
    affine = voxel_to_world(shape, spacing)
    affine[:3, 3] += torch.tensor(center, dtype=torch.float64)
    x, y, z = [
        (torch.arange(n) * affine[i, i] + affine[i, 3] - center[i]).view([-1 if i == a else 1 for a in range(3)])
        for i, n in enumerate(shape)
    ]
    everywhere = 0 * (x + y + z)
    ct = torch.full(shape, -1000.0)
    ct[((x / 120) ** 2 + (y / 80) ** 2 + everywhere) < 1] = 40
    for side in (-55, 55):
        ct[(((x - side) / 45) ** 2 + (y / 50) ** 2 + (z / 100) ** 2) < 1] = -850
    if table:
        ct[(((y + 97).abs() < 3) & (x.abs() < 140)) & (everywhere == 0)] = 100
    return MetaTensor(ct[None], affine=affine, meta={"filename_or_obj": "some/case.nii.gz"})


def world_of_maximum(volume):
    index = np.unravel_index(int(volume.argmax()), volume.shape[1:])
    return volume.affine.numpy()[:3] @ np.array([*index, 1.0])


def test_result_is_a_cube_in_unit_scale_with_a_diagonal_affine():
    result = CTPreprocessing(size=64, extent=320.0)(make_ct())
    assert result.shape == (1, 64, 64, 64) and result.dtype == torch.float32
    assert 0 <= result.min() and result.max() <= 1
    assert torch.equal(result.affine[:3, :3], 5 * torch.eye(3, dtype=torch.float64))
    assert torch.equal(result.meta["original_affine"], result.affine)


def test_cube_is_centred_on_the_body_without_the_table():
    result = CTPreprocessing(size=32, extent=320.0)(make_ct(shape=(80, 80, 40), center=(37.0, 30.0, -500.0)))
    middle = result.affine.numpy()[:3] @ np.array([15.5, 15.5, 15.5, 1.0])
    np.testing.assert_allclose(middle, (37, 30, -500), atol=4.0)


def test_long_scan_is_centred_on_the_lungs_and_stays_inside():
    ct = make_ct(shape=(60, 50, 100), spacing=(5.0, 5.0, 6.0))
    higher = MetaTensor(ct[..., 20:], affine=ct.affine.clone(), meta={})
    higher.affine[2, 3] += 20 * 6  # the lungs (-100 to 100 mm) are no longer in the middle of the scan
    result = CTPreprocessing(size=32, extent=320.0)(higher)
    assert abs(float(result.affine[2, 3]) + 15.5 * 10) < 8
    cut = MetaTensor(ct[..., 40:], affine=ct.affine.clone(), meta={})
    cut.affine[2, 3] += 40 * 6  # the lungs' middle is nearer to the scan's end than half a cube
    result = CTPreprocessing(size=32, extent=320.0)(cut)
    assert float(result.affine[2, 3]) - 5 == pytest.approx(float(cut.affine[2, 3]) - 3)


def test_a_finer_cube_becomes_the_mean_of_its_blocks_with_the_same_centre():
    generator = torch.Generator().manual_seed(0)
    ct = torch.rand((1, 16, 16, 16), generator=generator) * 2000 - 1000
    fine = MetaTensor(ct, affine=voxel_to_world((16,) * 3, 20.0))
    result = CTPreprocessing(size=8, extent=320.0)(fine)
    blocks = ct.view(1, 8, 2, 8, 2, 8, 2).mean(dim=(2, 4, 6))
    torch.testing.assert_close(result.as_subclass(torch.Tensor), hu_to_unit(blocks), atol=1e-6, rtol=0)
    torch.testing.assert_close(result.affine, voxel_to_world((8,) * 3, 40.0))


def test_a_case_of_the_right_size_is_not_changed():
    generator = torch.Generator().manual_seed(0)
    ct = MetaTensor(
        torch.rand((1, 12, 12, 12), generator=generator) * 2000 - 1000, affine=voxel_to_world((12,) * 3, 5.0)
    )
    once = CTPreprocessing(size=12, extent=60.0).cubes(ct, [12])[0]
    torch.testing.assert_close(once, ct, atol=1e-3, rtol=0)
    assert torch.equal(once.affine, ct.affine)


@pytest.mark.parametrize("step", [0.7, 1.0, 1.9, 2.5, 4.0])
def test_resampling_does_not_shift_a_linear_ramp(step):
    shape = (80, 1, 1)
    affine = voxel_to_world(shape, (1.0, 1.0, 1.0)).numpy()
    ramp = torch.arange(80.0).view(shape) + affine[0, 3]
    size = int(60 / step)
    target = voxel_to_world((size, 1, 1), (step, 1.0, 1.0)).numpy()
    result = resample(ramp, affine, (size, 1, 1), target, 0.0)[:, 0, 0]
    expected = torch.arange(size) * step + target[0, 3]
    exact = step <= 1 or step == 4
    torch.testing.assert_close(result.double(), expected.double(), atol=1e-4 if exact else 1.01 / (8 * step), rtol=0)
    assert abs(float((result - expected).mean())) < 1e-4  # no shift


def test_resampling_is_antialiased():
    noise = (-1.0) ** torch.arange(512.0).view(-1, 1, 1)
    affine, target = voxel_to_world((512, 1, 1), 0.7).numpy(), voxel_to_world((100, 1, 1), (2.5, 0.7, 0.7)).numpy()
    result = resample(noise, affine, (100, 1, 1), target, 0.0)
    assert result.std() < 0.2 and abs(float(result.mean())) < 0.01


def test_resampling_keeps_the_integral():
    matrix = resampling_matrix((100, 0.7, 0.0), (40, 2.5, -15.0), torch.float64)
    torch.testing.assert_close(matrix.sum(dim=0) * 2.5, torch.full((100,), 0.7, dtype=torch.float64))


def test_outside_of_the_scan_and_padding_are_air():
    ct = make_ct(spacing=(4.0, 4.0, 4.0))
    ct[:, :3] = -2000
    result = CTPreprocessing(size=32, extent=400.0).cubes(ct, [32])[0]
    assert result.min() == -1000


@pytest.mark.parametrize("axcodes", ["LPS", "PIR", "ASL"])
def test_result_does_not_depend_on_the_order_of_the_axes(axcodes):
    ct = make_ct()
    image = nibabel.Nifti1Image(ct[0].numpy(), ct.affine.numpy())
    turned = image.as_reoriented(
        nibabel.orientations.ornt_transform(
            nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axcodes)
        )
    )
    other = MetaTensor(
        torch.from_numpy(turned.get_fdata(dtype=np.float32).copy())[None], affine=torch.tensor(turned.affine)
    )
    protocol = CTPreprocessing(size=32)
    torch.testing.assert_close(protocol(other), protocol(ct), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["turned", "gantry"])
def test_tilted_volume_is_resampled_to_the_world_axes(kind):
    shape, spacing = (64, 64, 64), 5.0
    affine = voxel_to_world(shape, spacing)
    angle = np.deg2rad(20)
    if kind == "turned":
        c, s = np.cos(angle), np.sin(angle)
        matrix = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
    else:
        matrix = torch.tensor([[1, 0, 0], [0, 1, np.tan(angle)], [0, 0, 1]], dtype=torch.float64)
    affine[:3] = matrix @ affine[:3]
    index = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in shape], indexing="ij"), -1)
    world = index @ affine[:3, :3].T + affine[:3, 3]
    place = torch.tensor([30.0, -40.0, 55.0], dtype=torch.float64)
    ct = -1000 + 1500 * torch.exp(-((world - place) ** 2).sum(-1) / (2 * 15.0**2))
    result = CTPreprocessing(size=128, extent=320.0).cubes(ct[None].float(), [128], affine)[0]
    weight = (result[0].as_subclass(torch.Tensor) + 990).clamp(min=0).double()
    points = torch.stack(torch.meshgrid(*[torch.arange(128, dtype=torch.float64)] * 3, indexing="ij"), -1)
    centroid = (weight[..., None] * points).sum((0, 1, 2)) / weight.sum() * 2.5 + result.affine[:3, 3]
    torch.testing.assert_close(centroid, place, atol=0.3, rtol=0)


def test_table_is_removed_on_request_and_its_volume_logged(caplog):
    ct = make_ct()
    with caplog.at_level(logging.INFO):
        without = CTPreprocessing(size=64, remove_table=True).cubes(ct, [64])[0]
    expected = CTPreprocessing(size=64).cubes(make_ct(table=False), [64])[0]
    assert (without - expected).abs().mean() < 1
    assert "denser than -500 HU" in caplog.text


@pytest.mark.parametrize(
    ("ct", "affine", "message"),
    [
        (torch.zeros(1, 8, 8), torch.eye(4), r"must be \(1, X, Y, Z\)"),
        (torch.zeros(2, 8, 8, 8), torch.eye(4), r"must be \(1, X, Y, Z\)"),
        (torch.zeros(1, 8, 8, 8), None, "without affine"),
        (torch.zeros(1, 8, 8, 8), torch.zeros(4, 4), "invertible"),
        (torch.full((1, 8, 8, 8), float("nan")), torch.eye(4), "not finite"),
    ],
)
def test_wrong_shapes_affines_and_values_are_refused(ct, affine, message):
    with pytest.raises(ValueError, match=message):
        CTPreprocessing(size=4, extent=8.0)(ct, affine)


def test_input_is_left_alone_and_transforms_pickle():
    ct = make_ct()
    before = ct.clone()
    transform = pickle.loads(pickle.dumps(CTPreprocessingd(keys="label", size=16)))
    result = transform({"label": ct, "other": 1})
    assert torch.equal(ct, before) and result["other"] == 1 and result["label"].shape == (1, 16, 16, 16)


def test_prediction_gets_the_affine_and_name_of_its_label(tmp_path):
    label = CTPreprocessing(size=32)(make_ct(center=(10.0, 20.0, -300.0)))
    item = UnitToHUd(keys=("pred", "label"))({"pred": label.as_subclass(torch.Tensor), "label": label})
    torch.testing.assert_close(item["pred"].affine, label.affine)
    SaveImage(output_dir=tmp_path, output_postfix="pred", print_log=False, separate_folder=False)(item["pred"])
    saved = nibabel.load(tmp_path / "case_pred.nii.gz")
    np.testing.assert_allclose(saved.affine, label.affine.numpy(), atol=1e-3)
    assert saved.shape == (32, 32, 32) and saved.get_fdata().min() < -900


def test_prediction_of_another_size_fills_the_same_cube():
    label = CTPreprocessing(size=32)(make_ct(center=(10.0, 20.0, -300.0)))
    pred = UnitToHUd()({"pred": torch.rand(1, 16, 16, 16), "label": label})["pred"]
    corner = torch.tensor([-0.5, -0.5, -0.5, 1.0], dtype=torch.float64)
    torch.testing.assert_close(pred.affine @ corner, label.affine @ corner)


def test_prediction_without_label_is_centred_and_named_by_its_case():
    pred = UnitToHUd(extent=320.0)({"pred": torch.rand(1, 16, 16, 16), "case_id": "abc"})["pred"]
    torch.testing.assert_close(pred.affine, voxel_to_world((16,) * 3, 20.0))
    assert pred.meta["filename_or_obj"] == "abc"
    with pytest.raises(ValueError, match="must be"):
        UnitToHUd()({"pred": torch.rand(16, 16, 16)})


def make_whole_body() -> MetaTensor:
    """The chest of `make_ct` between a neck with trachea and an abdomen with much gas in the bowel, 900 mm long."""
    chest = make_ct(shape=(60, 50, 150), table=True)
    ct, affine = chest.as_tensor()[0].clone(), chest.affine
    x, y, z = ((torch.arange(n) * affine[i, i] + affine[i, 3]).float() for i, n in enumerate(ct.shape))
    x, y, z = x[:, None, None], y[:, None], z + 0 * x[:, None, None]
    ct[(x**2 + y**2 < 9**2).expand_as(ct) & (z > 0) & (z < 400)] = -1000  # the trachea, and on to the throat
    ct[(((x / 70) ** 2 + ((y - 20) / 40) ** 2).expand_as(ct) < 1) & (z < -180) & (z > -400)] = -990  # bowel
    return MetaTensor(ct[None], affine=affine, meta={})


def test_a_cube_on_the_lungs_is_the_same_from_the_whole_body_and_from_a_tight_chest():
    whole = make_whole_body()
    protocol = CTPreprocessing(size=32, extent=320.0, center="lungs")
    tight = MetaTensor(whole[:, 5:-8, 6:-6, 56:94], affine=whole.affine.clone(), meta={})
    tight.affine[:3, 3] += whole.affine.diagonal()[:3] * torch.tensor([5.0, 6.0, 56.0])
    cubes = [protocol.cubes(ct, [32])[0] for ct in (whole, tight)]
    for cube in cubes:
        middle = cube.affine.numpy()[:3] @ np.array([15.5, 15.5, 15.5, 1.0])
        np.testing.assert_allclose(middle, (0, 0, 0), atol=8.0)
    np.testing.assert_allclose(cubes[0].affine, cubes[1].affine, atol=6.0)
    body = CTPreprocessing(size=32, extent=320.0, center="body").cubes(tight, [32])[0]
    scan = float(tight.affine[2, 3]) + 6 * (tight.shape[3] - 1) / 2
    assert abs(float(body.affine[2, 3]) + 15.5 * 10 - scan) < 1e-3  # the published protocols' centre


def test_lungs_that_the_scan_cuts_are_warned_of(caplog):
    chest = make_ct(table=False)
    cut = MetaTensor(chest[..., 18:], affine=chest.affine.clone(), meta={})
    cut.affine[2, 3] += 18 * 6
    with caplog.at_level(logging.WARNING):
        CTPreprocessing(size=32, center="lungs").cubes(chest, [32])
        assert not caplog.records
        CTPreprocessing(size=32, center="lungs").cubes(cut, [32])
    assert "the scan ends within the lungs" in caplog.text


def test_a_ct_without_lungs_has_no_cube_on_them():
    ct = make_ct()
    solid = MetaTensor(ct.clamp(min=40).where(ct > -1000, -1000.0), affine=ct.affine, meta={})
    with pytest.raises(ValueError, match="no lungs found .at least 0.3 litres between -960 and -500 HU"):
        CTPreprocessing(size=32, center="lungs").cubes(solid, [32])
    with pytest.raises(ValueError, match="center must be body or lungs, got 'heart'"):
        CTPreprocessing(center="heart")


def test_a_box_around_the_cube_reaches_as_far_as_it_is_told_or_as_the_ct_goes():
    ct = make_ct(shape=(90, 50, 80))
    protocol = CTPreprocessing(size=32, extent=320.0)
    cube, box, whole = protocol.cubes(ct, [32])[0], protocol.box(ct, (60, 20, 40)), protocol.box(ct)
    assert box.shape == (1, 44, 36, 40)
    torch.testing.assert_close(box[:, 6:-6, 2:-2, 4:-4].as_tensor(), cube.as_tensor())
    margin = [(n - 32) // 2 for n in whole.shape[1:]]
    assert all(32 + 2 * m == n for m, n in zip(margin, whole.shape[1:]))
    inner = whole[:, margin[0] : -margin[0], :, margin[2] : -margin[2]].as_tensor()
    torch.testing.assert_close(inner[:, :, margin[1] : inner.shape[2] - margin[1]], cube.as_tensor())
    mass = [float((volume.as_tensor() + 1000).sum() * side) for volume, side in ((ct, 5 * 5 * 6), (whole, 1000))]
    assert mass[0] == pytest.approx(mass[1], rel=1e-3)
