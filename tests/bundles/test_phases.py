"""The bundle of phase pairs writes each phase onto the grid of its CT, and leaves out what it cannot use."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from tests.bundles.miniature import arguments, files, run, smoke, train
from tests.bundles.sources import PHASES

pytestmark = pytest.mark.slow


def test_phases_go_back_onto_the_grids_of_their_cts(
    phase_pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder with an oblique CT of odd size and three that cannot be used; then the same command once more."""
    train(PHASES, phase_pairs, tmp_path, learning_rate=0.01)
    folder = tmp_path / "in"
    folder.mkdir()
    affine = np.array([[-1.9, 0.3, 0.0, 30.0], [0.3, 1.9, 0.2, 12.0], [0.0, -0.2, 2.9, 5.0], [0.0, 0.0, 0.0, 1.0]])
    ct = np.full((19, 13, 9), -1000, dtype=np.int16)
    ct[4:-4, 3:-3] = np.random.default_rng(0).integers(0, 80, (11, 7, 9))
    for stem, volume in (("oblique", ct), ("torn", ct), ("long", np.stack([ct, ct], axis=-1)), ("flat", ct[..., 0])):
        nibabel.save(nibabel.Nifti1Image(volume, affine), folder / f"{stem}.nii.gz")
    torn = folder / "torn.nii.gz"
    torn.write_bytes(torn.read_bytes()[:-30])
    options = arguments(PHASES, phase_pairs, tmp_path) | {"volumes": str(folder), "output_dir": str(tmp_path / "out")}
    for roi_size in (None, [16, 16]):
        changes = {} if roi_size is None else {"roi_size": roi_size, "output_dir": str(tmp_path / "windows")}
        run(files(PHASES, "inference.json", smoke(PHASES)), **options | changes)
        written = nibabel.load(Path(str((options | changes)["output_dir"])) / "oblique.nii.gz")
        assert written.shape == ct.shape
        np.testing.assert_allclose(written.affine, affine, atol=1e-5)
        assert np.abs(np.asarray(written.dataobj) - ct.astype(float)).max() > 0  # the network did something
    text = capsys.readouterr().out
    for line in ("torn.nii.gz: damaged NIfTI", "long.nii.gz: a CT has three", "flat.nii.gz: a CT has three"):
        assert line in text
    run(files(PHASES, "inference.json", smoke(PHASES)), **options)
    assert "1 of 1 are in" in capsys.readouterr().out
    train(PHASES, phase_pairs, tmp_path, learning_rate=0.02)
    with pytest.raises(RuntimeError) as error:
        run(files(PHASES, "inference.json", smoke(PHASES)), **options)
    assert "holds results of another model or of other CTs" in str(error.value.__cause__)
