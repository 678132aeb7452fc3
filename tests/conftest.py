"""What all tests share: few threads, tiny data sets of phantoms, a small thorax in NIfTI, and the real CTs."""

import os
from pathlib import Path

import pytest
import torch

from tests.files import save_nifti
from trct_monai.phantoms import Phantom, thorax_phantom

ROOT = Path(__file__).resolve().parents[1]

SLOW_FIXTURES = {"phase_pairs", "pairs", "trained", "exported", "board", "evaluation", "unseen", "site"}
"""Fixtures that take long to make, or that only tests use which take long."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what asks for a slow fixture; other slow tests have the mark on them."""
    for item in items:
        if SLOW_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> None:
    """One thread, here and in what the tests start: tiny networks gain nothing from more, and lose on busy cores."""
    torch.set_num_threads(int(os.environ.setdefault("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datalist of a tiny phantom data set: 16^3 voxels, two 32 x 32 radiographs, 6 / 3 / 2 cases."""
    from trct_monai.datasets.phantom_sets import phantoms as make_phantoms

    folder = tmp_path_factory.mktemp("phantoms")
    make_phantoms(str(folder), size=16, radiograph_size=32, split="6/3/2", num_workers=0)
    return folder / "datalist.json"


@pytest.fixture(scope="session")
def phase_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The datalist of tiny phantoms that breathe, pairs of 16^3 voxels: 4 / 2 / 2 of them."""
    from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
    from trct_monai.datasets.prepare import prepare

    folder = tmp_path_factory.mktemp("phase_pairs")
    make_phantoms(str(folder / "pairs"), size=16, split="4/2/2", phases=4, num_workers=0)
    prepare(str(folder / "pairs"), str(folder / "cases"), num_workers=0)
    return folder / "cases" / "datalist.json"


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
