"""The tiny data of every bundle, and its trained miniature."""

from pathlib import Path

import pytest

from tests.bundles.miniature import DataOf, Trained, train, train_second_stage
from tests.bundles.sources import PHASES


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> DataOf:
    """The tiny datalist that a bundle can read, made when one asks for it."""

    def datalist(bundle: Path) -> Path:
        path: Path = request.getfixturevalue("phase_pairs" if bundle == PHASES else "phantoms")
        return path

    return datalist


@pytest.fixture(scope="session")
def trained(data: DataOf, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The output folder of a bundle's miniature training, which all tests share and none changes."""
    folders: dict[Path, Path] = {}

    def train_once(bundle: Path) -> Path:
        if bundle not in folders:
            output = tmp_path_factory.mktemp(bundle.name)
            train(bundle, data(bundle), output, pictures=True)
            train_second_stage(bundle, data(bundle), output)
            folders[bundle] = output
        return folders[bundle]

    return train_once
