import gzip

import nibabel
import numpy as np
import pytest
import torch

from tests.files import save_nifti, save_series, touch_all
from trct_monai.datasets.patients import patient_of
from trct_monai.datasets.sources import find_sources, safe_name
from trct_monai.io.ct import read_ct
from trct_monai.io.x2ct import read_x2ct_radiographs
from trct_monai.preprocessing.cube import CTPreprocessing

h5py = pytest.importorskip("h5py")
itk = pytest.importorskip("itk")

# SWIG's types, made when ITK is loaded.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")


def cube_of(folder, size=20):
    (source,) = find_sources(folder).sources
    ct = read_ct(source.path, source.files)
    return CTPreprocessing(size).cubes(ct.ct_hu, [size], ct.affine)[0].as_subclass(torch.Tensor)


def test_all_formats_give_the_same_volume(tmp_path, phantom):
    whole = np.round(phantom.ct_hu).astype(np.int16)
    save_nifti(tmp_path / "nifti" / "a.nii.gz", whole, phantom.affine)
    save_series(tmp_path / "dicom" / "deep" / "down", whole, phantom.affine)
    image = itk.image_from_array(np.ascontiguousarray(whole.T))
    lps = np.diag([-1.0, -1, 1, 1]) @ phantom.affine
    image.SetSpacing([8.0] * 3)
    image.SetOrigin(lps[:3, 3])
    image.SetDirection(itk.matrix_from_array(lps[:3, :3] / 8))
    for kind in ("mha", "mhd", "nrrd"):
        (tmp_path / kind).mkdir()
        itk.imwrite(image, str(tmp_path / kind / f"a.{kind}"))
    expected = cube_of(tmp_path / "nifti")
    for kind in ("dicom", "mha", "mhd", "nrrd"):
        torch.testing.assert_close(cube_of(tmp_path / kind), expected, atol=1e-3, rtol=0)


def test_gantry_tilt_of_a_series_is_undone(tmp_path, phantom):
    tilt = np.eye(4)
    tilt[1, 2] = np.tan(np.deg2rad(15))  # each slice is moved along y, its own axes stay
    affine = phantom.affine.copy()
    affine[:3, :3] = tilt[:3, :3] @ affine[:3, :3]
    affine[:3, 3] = -affine[:3, :3] @ np.full(3, 19.5)
    save_series(tmp_path, phantom.ct_hu, affine)
    (source,) = find_sources(tmp_path).sources
    np.testing.assert_allclose(read_ct(source.path, source.files).affine.numpy(), affine, atol=1e-3)


def test_localizers_and_short_series_are_skipped_and_listed(tmp_path, phantom):
    small = phantom.ct_hu[::2, ::2], np.diag([16.0, 16, 8, 1])
    save_series(tmp_path / "s", *small, uid="1.2.1")
    save_series(tmp_path / "s", small[0][..., :1], small[1], uid="1.2.2", image_type="ORIGINAL\\PRIMARY\\LOCALIZER")
    save_series(tmp_path / "s", small[0][..., :3], small[1], uid="1.2.3")
    save_series(tmp_path / "s", small[0][..., :2], small[1], uid="1.2.4", modality="DX")
    found = find_sources(tmp_path)
    assert [len(source.files) for source in found.sources] == [40] and found.sources[0].patient_id == "patient"
    reasons = sorted(reason for _, reason in found.skipped)
    assert reasons == ["localizer", "modality DX, not CT", "short series, 3 slices of at least 16"]


def test_missing_doubled_and_cut_slices_are_refused(tmp_path, phantom):
    small = phantom.ct_hu[::4, ::4, :20], np.diag([32.0, 32, 8, 1])
    save_series(tmp_path / "gap", *small, skip=[7])
    (source,) = find_sources(tmp_path / "gap").sources
    with pytest.raises(ValueError, match=r"_006.dcm: slices are missing after this one, the gap is 16.00 mm"):
        read_ct(source.path, source.files)
    paths = save_series(tmp_path / "cut", *small)
    (source,) = find_sources(tmp_path / "cut").sources
    paths[5].write_bytes(paths[5].read_bytes()[:-80])
    with pytest.raises(ValueError, match="cut: damaged DICOM series"):
        read_ct(source.path, source.files)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.dcm").write_text("no image", encoding="utf-8")
    assert "a.dcm" in str(find_sources(tmp_path / "text").refused[0][0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ct: ct[:, :, 20], "three dimensions"),
        (lambda ct: np.stack([ct, ct], axis=-1), "three dimensions"),
        (lambda ct: np.where(ct > 0, np.nan, ct), "not finite"),
        (lambda ct: np.zeros_like(ct), "all values are 0"),
        (lambda ct: ct[:0], "empty"),
        (lambda ct: ct[:4], "too thin"),
        (lambda ct: ct + 1024, r"no CT in HU, values .* HU \+ 1024, or MR\? .* --rescale 1,-1024"),
        (lambda ct: np.abs(ct) / 3000, "no CT in HU"),
    ],
)
def test_what_is_no_ct_is_refused_by_name(tmp_path, phantom, change, message):
    save_nifti(tmp_path / "case.nii.gz", change(phantom.ct_hu.astype(np.float32)), phantom.affine)
    (source,) = find_sources(tmp_path).sources
    with pytest.raises(ValueError, match=f"case.nii.gz: .*{message}"):
        read_ct(source.path, source.files)


def test_damaged_files_are_refused_by_name(tmp_path, phantom):
    save_nifti(tmp_path / "a.nii.gz", phantom.ct_hu, phantom.affine)
    packed = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"no nifti"))
    (tmp_path / "c.nrrd").write_text("no nrrd", encoding="utf-8")
    (tmp_path / "d.h5").write_text("no hdf5", encoding="utf-8")
    (tmp_path / "e.nii.gz").write_bytes(packed[:1000] + bytes(200) + packed[1200:])
    for source in find_sources(tmp_path).sources:
        with pytest.raises(ValueError, match=f"{source.path.name}: damaged"):
            read_ct(source.path, source.files)
    save_nifti(tmp_path / "f.nii.gz", phantom.ct_hu, phantom.affine)
    image = nibabel.load(tmp_path / "f.nii.gz")
    nowhere = nibabel.Nifti1Image(np.asarray(image.dataobj), None)
    nibabel.save(nowhere, tmp_path / "f.nii.gz")
    with pytest.raises(ValueError, match="does not say where right and left are"):
        read_ct(find_sources(tmp_path).sources[-1].path)


def test_names_come_from_the_file_and_the_folder(tmp_path, phantom):
    names = ["flat.nii.gz", "p1/p1.nii.gz", "p2/ct.nii.gz", "p2/ct_mask.nii.gz", "x/LIDC-IDRI-0007.1.mha"]
    touch_all(tmp_path, [*names, "ct/ct1/ct1.mha", "notes.pdf"])
    found = find_sources(tmp_path)
    names = {source.case_id: source.patient_id for source in found.sources}
    assert names == {"flat": "flat", "p1": "p1", "p2_ct": "p2", "x_LIDC-IDRI-0007.1": "LIDC-IDRI-0007", "ct1": "ct1"}
    assert found.other_files == 1 and found.skipped[0][1] == "a mask by its name"
    assert patient_of("LIDC-IDRI-0442.20000101.1") == "LIDC-IDRI-0442" and safe_name("../a b") == "a_b"


def test_the_same_case_twice_is_refused(tmp_path):
    for name in ("a.nii.gz", "a.mha"):
        (tmp_path / name).touch()
    found = find_sources(tmp_path)
    assert len(found.sources) == 1 and "the case a again" in found.refused[0][1]


def test_x2ct_files_are_understood(tmp_path, phantom):
    folder = tmp_path / "LIDC-IDRI-0001.20000101.1"
    folder.mkdir()
    with h5py.File(folder / "ct_xray_data.h5", "w") as file:
        file["ct"] = phantom.ct_hu[::-1, ::-1].T + 1024  # (z, y, x) of an LPS image
        file["xray1"] = file["xray2"] = np.zeros((4, 4))
        file["ori_size"], file["spacing"] = 320, [1.0, 1.0, 1.0]
    (source,) = find_sources(tmp_path).sources
    assert (
        source.layout == 3 and source.case_id == "LIDC-IDRI-0001.20000101.1" and source.patient_id == "LIDC-IDRI-0001"
    )
    ct = read_ct(source.path, source.files)
    result = CTPreprocessing(40).cubes(ct.ct_hu, [40], ct.affine)[0]
    torch.testing.assert_close(result.as_subclass(torch.Tensor)[0], torch.from_numpy(phantom.ct_hu), atol=0.01, rtol=0)
    with pytest.raises(ValueError, match="h5_axes must name"):
        read_ct(source.path, h5_axes="SP")
    with h5py.File(folder / "ct_xray_data.h5", "a") as file:
        del file["xray1"]
        file["xray1"] = np.zeros((4, 4, 4))
    with pytest.raises(ValueError, match="pa radiograph has the shape"):
        read_x2ct_radiographs(source.path)
    with h5py.File(folder / "ct_xray_data.h5", "a") as file:
        del file["xray1"]
    with pytest.raises(ValueError, match="xray1 missing"):
        read_ct(source.path, source.files)


def test_real_dicom_series_is_read(shared):
    (source,) = find_sources(shared / "ct" / "LIDC-IDRI-0001").sources
    ct = read_ct(source.path, source.files)
    assert source.patient_id == "LIDC-IDRI-0001" and tuple(ct.ct_hu.shape) == (1, 512, 512, 133)
    assert ct.spacing == pytest.approx((0.703125, 0.703125, 2.5))
