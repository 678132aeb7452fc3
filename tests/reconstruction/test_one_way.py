"""The command and a bundle's inference are one reconstruction, whatever the radiographs and the size."""

import shutil
from pathlib import Path

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch

from trct_monai.bundles.errors import unwrapped
from trct_monai.bundles.find import bundle_files
from trct_monai.networks.linear_start import LinearStart
from trct_monai.reconstruction import load_reconstructor, read_radiographs
from trct_monai.reconstruction.command import reconstruct
from trct_monai.training.inferers import TwoStageInferer


def infer(radiographs: list[str | None], out: Path, *overlays: str, **options: object) -> None:
    """`monai.bundle run` of any_view's inference with the shipped weights."""
    _, (config, weights) = bundle_files("any_view+small")
    files = [*config, *(config[0].with_name(f"{name}.json") for name in overlays)]
    monai.bundle.run(
        config_file=[str(path) for path in files],
        radiographs=radiographs,
        ckpt_path=str(weights),
        output_dir=str(out),
        device=torch.device("cpu"),
        **options,
    )


def volumes(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    ct, quantiles = (nibabel.load(folder / f"{name}{end}.nii.gz") for end in ("", "_quantiles"))
    assert ct.get_data_dtype() == quantiles.get_data_dtype() == np.int16
    assert [int(ct.header[f"{kind}form_code"]) for kind in "qs"] == [1, 1]
    return ct.get_fdata(), quantiles.get_fdata()


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("kind", ["line integrals", "plain pictures"])
def test_the_command_and_the_bundle_agree(
    kind: str, size: int, unseen: dict[str, str], pictures: Path, tmp_path: Path
) -> None:
    plain = {"pa": str(pictures / "pa.png"), "lat": str(pictures / "lat.png")}
    files = unseen if kind == "line integrals" else plain
    reconstruct(str(tmp_path / "a" / "ct.nii.gz"), pa=files["pa"], lat=files["lat"], geometry="x2ct", size=size)
    finer = ["finer"] if size > 64 else []
    infer([files["pa"], files["lat"]], tmp_path / "b", "intervals", *finer)
    assert len(list((tmp_path / "b").iterdir())) == 2
    for one, other in zip(volumes(tmp_path / "a", "ct"), volumes(tmp_path / "b", "reconstruction")):
        assert one.shape[:3] == (size,) * 3
        np.testing.assert_allclose(one, other, atol=0.01)


def test_the_modes_are_projected_once_for_each_case(
    unseen: dict[str, str], pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    project = LinearStart.project
    monkeypatch.setattr(LinearStart, "project", lambda self, cameras: calls.append(1) or project(self, cameras))
    reconstructor = load_reconstructor("any_view+small")
    for number, files in enumerate((unseen, {view: str(pictures / f"{view}.png") for view in ("pa", "lat")}), start=1):
        reconstructor(read_radiographs(files["pa"], files["lat"], None, "x2ct"))
        assert len(calls) == number


def test_a_bundle_without_intervals_reconstructs_by_the_same_command(unseen: dict[str, str], tmp_path: Path) -> None:
    reconstruct(str(tmp_path / "ct.nii.gz"), pa=unseen["pa"], lat=unseen["lat"], method="direct_regression+small")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ct.json", "ct.nii.gz", "ct.png"]
    truth = nibabel.load(unseen["label"])
    prediction = nibabel.load(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(prediction.affine, truth.affine, atol=1e-4)
    assert np.abs(prediction.get_fdata() - truth.get_fdata().clip(-1024, 1476)).mean() < 80
    with pytest.raises(ValueError, match=r"size must be one of 64 for direct_regression\+small, got 128"):
        reconstruct(str(tmp_path / "b.nii.gz"), pa=unseen["pa"], method="direct_regression+small", size=128)


def test_every_bundle_gets_the_cameras_of_its_radiographs(unseen: dict[str, str]) -> None:
    """hybrid_cnn_vit takes views in any order: by the preset's cameras the exchanged pair would be another patient."""
    radiographs = read_radiographs(unseen["pa"], unseen["lat"], None, "x2ct")
    reconstructor = load_reconstructor("hybrid_cnn_vit+small")
    one, other = (reconstructor(order).volume_hu for order in (radiographs, radiographs[::-1]))
    torch.testing.assert_close(one, other, atol=1.0, rtol=0)


def test_a_bundle_that_takes_no_radiographs_is_refused() -> None:
    with pytest.raises(ValueError, match="ct_phase_pix2pix.* makes no CT from radiographs; any_view does"):
        load_reconstructor("ct_phase_pix2pix+small")


def test_pictures_without_side_cars_are_as_many_as_the_views_of_the_geometry(pictures: Path, tmp_path: Path) -> None:
    lateral = str(pictures / "lat.png")
    with pytest.raises(ValueError, match="1 pictures without side-cars, but geometry 'x2ct' has 2 views; give as many"):
        with unwrapped():
            infer([lateral], tmp_path / "a")  # which of the views is it?
    infer([None, lateral], tmp_path / "b")
    reconstruct(str(tmp_path / "c" / "ct.nii.gz"), lat=lateral, geometry="x2ct")
    one, other = (nibabel.load(tmp_path / name).get_fdata() for name in ("b/reconstruction.nii.gz", "c/ct.nii.gz"))
    np.testing.assert_allclose(one, other, atol=1.0)


def test_a_refined_volume_is_judged_by_the_residual_of_the_networks_own(unseen: dict[str, str]) -> None:
    """The limit was measured on the network's volumes, not on refined ones."""
    radiographs = read_radiographs(unseen["pa"], unseen["lat"], None, "x2ct")
    coarse, fine = (load_reconstructor("any_view+small", size=size)(radiographs) for size in (64, 128))
    assert fine.residual == pytest.approx(coarse.residual, rel=1e-5)
    assert len(fine.volume_hu) == 2 * len(coarse.volume_hu)


def test_a_refiner_has_its_own_weights_and_is_never_borrowed(repository: Path, tmp_path: Path) -> None:
    bundles, copy = repository / "bundles", tmp_path / "two_stage"
    shutil.copytree(bundles / "two_stage" / "configs", copy / "configs")
    shutil.copytree(bundles / "two_stage" / "models", copy / "models")
    with pytest.raises(FileNotFoundError, match="no trained model at .*two_stage.*refiner.* --refiner_path"):
        load_reconstructor(f"{copy}+small")
    shutil.copytree(bundles / "any_view" / "models" / "small" / "refiner", copy / "models" / "small" / "refiner")
    inferer = load_reconstructor(f"{copy}+small").inferer
    assert isinstance(inferer, TwoStageInferer)
    (head,) = (value for name, value in inferer.refiner.named_parameters() if name == "heads.0.weight")
    assert head.any()  # it is zero before training, and the result the interpolation
