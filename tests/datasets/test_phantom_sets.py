import nibabel
import numpy as np
import pytest

from trct_monai.datasets.phantom_sets import phantoms, split_counts
from trct_monai.io.datalist import load_datalist, read_datalist
from trct_monai.phantoms import thorax_phantom
from trct_monai.phantoms.findings import FINDINGS

SMALL = {"size": 12, "radiograph_size": 24, "num_workers": 0}


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_the_same_arguments_give_the_same_files_in_parts_or_at_once(tmp_path, capsys):
    phantoms(str(tmp_path / "a"), 3, split="1/1/1", **SMALL)
    phantoms(str(tmp_path / "b"), 3, split="1/1/1", shard="1/2", **SMALL)
    assert "of 3 cases so far" in capsys.readouterr().out
    phantoms(str(tmp_path / "b"), 3, split="1/1/1", shard="2/2", **SMALL)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    content = read_datalist(tmp_path / "a" / "datalist.json")
    assert [content[name][0]["case_id"] for name in ("training", "validation", "test")] == [
        f"phantom_00000{i}" for i in range(3)
    ]


def test_label_is_the_block_mean_of_a_finer_phantom_and_masks_follow(tmp_path):
    finding = FINDINGS[0]
    phantoms(str(tmp_path), 1, seed=7, findings=finding, split="1/0/0", **SMALL)
    (case,) = load_datalist(tmp_path / "datalist.json", "training")
    fine = thorax_phantom(7, 24, findings=[finding])
    blocks = fine.ct_hu.reshape(12, 2, 12, 2, 12, 2).mean(axis=(1, 3, 5))
    label = nibabel.load(case["label"])
    np.testing.assert_allclose(label.get_fdata(), blocks, atol=0.51)
    share = fine.masks[finding].reshape(12, 2, 12, 2, 12, 2).mean(axis=(1, 3, 5))
    mask = nibabel.load(case["masks"][finding])
    np.testing.assert_array_equal(mask.get_fdata(), share >= 0.5)
    np.testing.assert_array_equal(mask.affine, label.affine)


def test_healthy_phantoms_have_no_masks_and_finished_ones_stay(tmp_path, capsys):
    phantoms(str(tmp_path), 1, findings="none", split="1/0/0", **SMALL)
    assert load_datalist(tmp_path / "datalist.json", "training")[0]["masks"] == {}
    before = (tmp_path / "phantom_000000").stat().st_mtime_ns
    phantoms(str(tmp_path), 1, findings="none", split="1/0/0", **SMALL)
    assert (tmp_path / "phantom_000000").stat().st_mtime_ns == before
    assert "1 of 1 phantoms are done already" in capsys.readouterr().out


def test_the_second_version_of_the_anatomy_is_another_data_set(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, options in ((first, {}), (second, {"version": 2})):
        phantoms(str(folder), size=8, radiograph_size=16, split="1/0/0", num_workers=0, **options)
    one, two = (read_datalist(folder / "datalist.json") for folder in (first, second))
    assert two["name"] == "PhantomThorax-8 version 2" and one["name"] == "PhantomThorax-8"
    assert two["training"][0]["provenance"]["description"]["version"] == 2
    assert "version" not in one["training"][0]["provenance"]["options"]
    phantoms(str(first), size=8, radiograph_size=16, split="1/0/0", num_workers=0, version=2)  # made again
    assert read_datalist(first / "datalist.json")["training"][0]["voxels"] == two["training"][0]["voxels"]
    phantoms(str(tmp_path / "pairs"), size=8, split="1/0/0", phases=2, num_workers=0, version=2)
    with pytest.raises(ValueError, match="other options"):
        phantoms(str(tmp_path / "pairs"), size=8, split="1/0/0", phases=2, num_workers=0)


def test_counts_add_up():
    assert split_counts(None, 500) == (400, 50, 50) and split_counts("6/2/2", 10) == (6, 2, 2)
    assert sum(split_counts(None, 7)) == 7
    with pytest.raises(ValueError, match="add up to count 10"):
        split_counts("6/2/1", 10)
    with pytest.raises(ValueError, match="split must be whole numbers of 0 or more, such as 400/50/50, got '1.9/0/1'"):
        split_counts("1.9/0/1", None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"findings": "fracture"}, "findings must be out of"),
        ({"count": 0}, "count must be positive"),
        ({"geometry": "cone"}, "geometry must be one of"),
        ({"shard": "3/2"}, "shard must be i/n"),
        ({"version": 3}, "version must be 1 or 2, got 3"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        phantoms(str(tmp_path), **{**SMALL, **arguments})
    assert list(tmp_path.iterdir()) == []


def test_the_benchmark_is_the_same_on_every_machine(tmp_path):
    """One patient of PhantomThorax-64. Phantoms that are drawn otherwise are another benchmark, under another name."""
    phantoms(str(tmp_path), seed=450, split="0/0/1", num_workers=0)
    case = read_datalist(tmp_path / "datalist.json")["test"][0]
    assert case["voxels"][:16] == "162d17a9a92a2c97"
    assert [digest[:16] for digest in case["pixels"]] == ["4957fbc7b4045f11", "a1896e176103ff5b"]
