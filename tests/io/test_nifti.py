"""One reader, which gives RAS order and notices damage; one writer, whose files are the same every time."""

import gzip
from pathlib import Path

import nibabel
import numpy as np
import pytest

from trct_monai.io.nifti import read_nifti, read_nifti_grid, read_slices, read_volume, write_hu, write_nifti

AFFINE = np.array([[2.0, 0, 0, -10], [0, 3.0, 0, 5], [0, 0, 4.0, 100], [0, 0, 0, 1]])
HU = np.random.default_rng(0).integers(-1000, 1000, (4, 5, 6)).astype(np.int16)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "ASR", "SLP", "PIR"])
def test_any_order_of_axes_is_read_as_the_same_volume(axes: str, tmp_path: Path) -> None:
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), nibabel.orientations.axcodes2ornt(axes))
    nibabel.save(nibabel.Nifti1Image(HU, AFFINE).as_reoriented(turn), tmp_path / "a.nii.gz")
    volume = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.values, HU)
    np.testing.assert_allclose(volume.affine, AFFINE)
    shape, affine = read_nifti_grid(tmp_path / "a.nii.gz")
    assert shape == HU.shape
    np.testing.assert_allclose(affine, AFFINE)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_written_comes_back_and_has_the_same_bytes_every_time(name: str, tmp_path: Path) -> None:
    write_hu(tmp_path / name, HU + 0.3, AFFINE)
    first = (tmp_path / name).read_bytes()
    write_hu(tmp_path / name, HU + 0.3, AFFINE)
    assert (tmp_path / name).read_bytes() == first
    image = nibabel.load(tmp_path / name)
    assert image.get_data_dtype() == np.int16 and image.header.get_xyzt_units()[0] == "mm"
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-5)
    np.testing.assert_array_equal(read_nifti(tmp_path / name).values, HU)


def test_quantiles_keep_their_fourth_axis_and_slices_are_read_alone(tmp_path: Path) -> None:
    write_hu(tmp_path / "q.nii.gz", np.stack([HU] * 4, axis=-1), AFFINE)
    assert read_nifti(tmp_path / "q.nii.gz").values.shape == (*HU.shape, 4)
    with pytest.raises(ValueError, match="q.nii.gz: expected one volume"):
        read_volume(tmp_path / "q.nii.gz")
    write_nifti(tmp_path / "a.nii", HU, AFFINE)
    np.testing.assert_array_equal(read_slices(tmp_path / "a.nii", 2, 3), HU[..., 2:4])


def test_damage_is_noticed_by_the_checksum(tmp_path: Path) -> None:
    write_hu(tmp_path / "a.nii.gz", HU, AFFINE)
    packed = bytearray((tmp_path / "a.nii.gz").read_bytes())
    packed[-6] ^= 1  # the checksum itself
    (tmp_path / "a.nii.gz").write_bytes(bytes(packed))
    with pytest.raises(ValueError, match="a.nii.gz: damaged NIfTI .*CRC"):
        read_nifti(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(b"no header"))
    (tmp_path / "c.nii").write_bytes(b"\x5c\x01\x00\x00" + bytes(344))
    for name in ("b.nii.gz", "c.nii"):
        with pytest.raises(ValueError, match=f"{name}: "):
            read_nifti(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="gone.nii: no such file"):
        read_nifti(tmp_path / "gone.nii")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 40000.0, -40000.0])
def test_hu_that_no_file_can_hold_are_refused_and_nothing_is_written(bad: float, tmp_path: Path) -> None:
    hu = HU.astype(np.float64)
    hu[1, 2, 3] = bad
    with pytest.raises(ValueError, match="a.nii: .*nothing was written"):
        write_hu(tmp_path / "a.nii", hu, AFFINE)
    assert list(tmp_path.iterdir()) == []


def test_a_header_without_directions_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(HU, None), tmp_path / "a.nii")
    with pytest.raises(ValueError, match="a.nii: the header does not say where right and left are"):
        read_volume(tmp_path / "a.nii")
