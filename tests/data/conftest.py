"""A small thorax in several file formats, and where the real CTs lie."""

import os
from pathlib import Path

import pytest

from tests.data.files import save_nifti
from trct_monai.data.phantoms import Phantom, thorax_phantom

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def phantom() -> Phantom:
    """A thorax of 40^3 voxels of 8 mm."""
    return thorax_phantom(5, size=40, findings=[])


@pytest.fixture
def ct_folder(tmp_path: Path, phantom: Phantom) -> Path:
    """A folder with two CTs in NIfTI."""
    folder = tmp_path / "cts"
    folder.mkdir()
    for number in (1, 2):
        save_nifti(folder / f"p{number}.nii.gz", phantom.ct_hu + number, phantom.affine)
    return folder


@pytest.fixture
def shared() -> Path:
    """The folder of real CTs."""
    folder = Path(os.environ.get("TRCT_SHARED", ROOT.parent / "shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real CTs in {folder}; set TRCT_SHARED to the folder above data/")
    return folder
