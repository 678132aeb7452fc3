"""A phantom that the shipped weights have not seen, and its radiographs as people have them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.io.datalist import load_datalist


@pytest.fixture(scope="session")
def unseen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A phantom that the shipped weights have not seen: its CT, and its frontal and lateral radiograph."""
    folder = tmp_path_factory.mktemp("phantom")
    make_phantoms(str(folder), split="0/0/1", seed=470, num_workers=0)
    (case,) = load_datalist(folder / "datalist.json", "test")
    return {"label": case["label"], "pa": case["image"][0], "lat": case["image"][1]}


@pytest.fixture(scope="session")
def pictures(unseen: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same radiographs as 8-bit pictures without a side-car, and what people do to them."""
    folder = tmp_path_factory.mktemp("pictures")
    for view in ("pa", "lat"):
        numbers = np.asarray(Image.open(unseen[view])).astype(float)
        eight = (numbers / numbers.max() * 250).astype(np.uint8)
        for name, pixels in {"": eight, "_mirrored": eight[:, ::-1], "_negative": 255 - eight}.items():
            Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{view}{name}.png")
    return folder
