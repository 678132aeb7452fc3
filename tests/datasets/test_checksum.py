"""The checksum of a data set is that of its numbers."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trct_monai.datasets.checksum import checksum
from trct_monai.io.datalist import read_datalist
from trct_monai.io.radiograph import digest_radiograph


def test_the_checksum_sees_every_number_and_no_compression(phantoms: Path, tmp_path: Path) -> None:
    shutil.copytree(phantoms.parent, tmp_path / "data")
    datalist = tmp_path / "data" / "datalist.json"
    content = read_datalist(datalist)
    expected = checksum(content)
    assert len(expected) == 64 and checksum(read_datalist(phantoms)) == expected
    moved = json.loads(json.dumps(content))
    moved["validation"].append(moved["training"].pop())
    assert checksum(moved) != expected
    case = content["test"][0]
    picture = datalist.parent / case["image"][0]
    before = digest_radiograph(picture)
    assert before == case["pixels"][0]
    with Image.open(picture) as image:
        numbers = np.array(image)
    Image.fromarray(numbers).save(picture, compress_level=0)
    assert digest_radiograph(picture) == before
    numbers[3, 4] += 1
    Image.fromarray(numbers).save(picture)
    assert digest_radiograph(picture) != before
    for key in ("voxels", "pixels"):
        lacking = json.loads(json.dumps(content))
        del lacking["test"][0][key]
        with pytest.raises(ValueError, match=f"case {case['case_id']} has no digests of voxels and pixels"):
            checksum(lacking)
