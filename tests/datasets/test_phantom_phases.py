"""`phantoms --phases`: pairs of a time average and phase 0 of the same breathing, beating patients."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from trct_monai.datasets.phantom_sets import phantoms
from trct_monai.phantoms import phantom_series, thorax_phantom


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phases")
    phantoms(str(folder), size=24, split="2/1/1", phases=4, num_workers=0)
    return folder


def test_folders_are_those_of_pix2pix_with_equal_names(pairs: Path) -> None:
    names = {path.name: sorted(file.name for file in path.iterdir()) for path in pairs.iterdir() if path.is_dir()}
    assert names == {
        "trainA": ["phantom_000000.nii.gz", "phantom_000001.nii.gz"],
        "trainB": ["phantom_000000.nii.gz", "phantom_000001.nii.gz"],
        "valA": ["phantom_000002.nii.gz"],
        "valB": ["phantom_000002.nii.gz"],
        "testA": ["phantom_000003.nii.gz"],
        "testB": ["phantom_000003.nii.gz"],
    }


def test_a_is_the_average_and_b_is_phase_0(pairs: Path) -> None:
    average, phase = (nibabel.load(pairs / f"test{side}" / "phantom_000003.nii.gz") for side in "AB")
    series = phantom_series(3, 24, 4)
    np.testing.assert_allclose(average.get_fdata(), series.mean(axis=0), atol=0.51)
    np.testing.assert_allclose(phase.get_fdata(), thorax_phantom(3, 24, phase=0.0).ct_hu, atol=0.51)
    np.testing.assert_allclose(average.affine, thorax_phantom(3, 24).affine, atol=1e-5)
    np.testing.assert_array_equal(phase.affine, average.affine)
    assert np.abs(average.get_fdata() - phase.get_fdata()).max() > 100  # it moves


def test_the_run_goes_on_where_it_stopped(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, lost = pairs / "trainA" / "phantom_000000.nii.gz", pairs / "testB" / "phantom_000003.nii.gz"
    before, content = kept.stat().st_mtime_ns, lost.read_bytes()
    lost.unlink()
    phantoms(str(pairs), size=24, split="2/1/1", phases=4, num_workers=0)
    assert kept.stat().st_mtime_ns == before and lost.read_bytes() == content
    assert "testA, testB, trainA, trainB, valA, valB" in capsys.readouterr().out


def test_a_damaged_file_is_made_again_and_no_other(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = pairs / "trainB" / "phantom_000001.nii.gz"
    content, before = damaged.read_bytes(), (pairs / "trainA" / "phantom_000000.nii.gz").stat().st_mtime_ns
    damaged.write_bytes(content[:-9])
    (pairs / ".phantom_000001.4194305.partial").mkdir()
    phantoms(str(pairs), size=24, split="2/1/1", phases=4, num_workers=0)
    assert "3 of 4 phantoms are done already" in capsys.readouterr().out
    assert damaged.read_bytes() == content and not list(pairs.glob("*.partial"))
    assert (pairs / "trainA" / "phantom_000000.nii.gz").stat().st_mtime_ns == before


def test_shards_make_what_one_run_makes(pairs: Path, tmp_path: Path) -> None:
    for shard in ("1/2", "2/2"):
        phantoms(str(tmp_path), size=24, split="2/1/1", phases=4, num_workers=0, shard=shard)
    for one in pairs.glob("*/*.nii.gz"):
        assert (tmp_path / one.relative_to(pairs)).read_bytes() == one.read_bytes()


def test_phantoms_of_another_split_are_refused_in_the_same_folder(pairs: Path) -> None:
    """A phantom that was made for validation would be in training and in validation."""
    with pytest.raises(ValueError, match=r"phantom_000002.nii.gz is none of the phantoms of this command"):
        phantoms(str(pairs), size=24, split="3/0/1", phases=4, num_workers=0)


def test_one_phase_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="phases must be 2 or more, got 1"):
        phantoms(str(tmp_path / "out"), split="1/0/0", phases=1)
    assert not (tmp_path / "out").exists()


def test_other_options_are_refused_in_the_same_folder(pairs: Path) -> None:
    with pytest.raises(ValueError, match="holds phantoms that were made with other options"):
        phantoms(str(pairs), size=24, split="2/1/1", phases=3, num_workers=0)
