"""Names, bundle configurations and data sets of 0.1.0 go on in 0.2.0, or one line says what to change.

`v0_1_0/` holds what is asked for: `names.json` (every public name, by module), `calls.json` (how the bundles of 0.1.0
call the library), a bundle's configurations, and a data set that `phantoms` of 0.1.0 wrote.
"""

import importlib
import inspect
import json
import pydoc
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import monai.bundle
import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser

from trct_monai import moved
from trct_monai.datasets.checksum import checksum
from trct_monai.geometry import Camera
from trct_monai.intensity import hu_to_attenuation
from trct_monai.io.datalist import SECTIONS, load_datalist, read_datalist
from trct_monai.io.nifti import read_volume
from trct_monai.io.radiograph import read_radiograph
from trct_monai.projector import project
from trct_monai.transforms import LoadRadiographsd

FOLDER = Path(__file__).parent / "v0_1_0"
NAMES: dict[str, str] = json.loads((FOLDER / "names.json").read_text(encoding="utf-8"))
CALLS: dict[str, list[str]] = json.loads((FOLDER / "calls.json").read_text(encoding="utf-8"))
PACKAGE = Path(moved.__file__).parent
FILES = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py")}
GONE = [name for name in NAMES if not {(path := name.replace(".", "/")), f"{path}/__init__"} & FILES]
QUIET = pytest.mark.filterwarnings("ignore:names of trct_monai:DeprecationWarning")


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No old module has been imported yet."""
    for name in GONE:
        monkeypatch.delitem(sys.modules, f"trct_monai.{name}", raising=False)
    monkeypatch.setattr(moved, "_warned", set())


def import_name(path: str) -> Any:
    """What `from MODULE import NAME` gives."""
    module, _, name = path.rpartition(".")
    space: dict[str, Any] = {}
    exec(f"from {module} import {name}", space)
    return space[name]


@pytest.mark.parametrize("module", sorted(NAMES))
def test_a_public_name_is_served_with_one_warning_or_refused_with_what_to_use(module: str) -> None:
    """Details of a module may go without a line of their own: then the line names the modules to look into."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in NAMES[module].split():
            if f"{module}.{name}" in moved.CHANGED:
                with pytest.raises(ImportError, match=f"^trct_monai.{module}.{name} went in 0.2.0: (use|write) "):
                    import_name(f"trct_monai.{module}.{name}")
                continue
            homes = {module, *moved.MOVED.get(module, "").split()} - set(GONE)
            there = [importlib.import_module(f"trct_monai.{home}") for home in homes]
            if any(name in vars(home) for home in there):
                value = import_name(f"trct_monai.{module}.{name}")
                assert any(vars(home).get(name, home) is value for home in there)
            else:
                with pytest.raises(ImportError, match=f"no attribute '{name}'; its names moved to trct_monai."):
                    import_name(f"trct_monai.{module}.{name}")
    texts = [str(one.message) for one in caught if "trct_monai" in str(one.message)]
    assert len(texts) == 1 if module in GONE else len(texts) <= 1
    for text in texts:
        assert text.startswith(f"names of trct_monai.{module} moved to trct_monai.") and "until 0.3.0" in text


@pytest.mark.parametrize("line", ["import trct_monai.handlers", "from trct_monai.geometry import Vector"])
def test_the_warning_points_at_the_line_that_asks(line: str) -> None:
    command = [sys.executable, "-W", "default::DeprecationWarning:__main__", "-c", f"pass\n{line}"]
    shown = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stderr
    assert re.findall(r"^(\S+): DeprecationWarning: names of trct_monai", shown, re.MULTILINE) == ["<string>:2"]


def test_what_replaces_a_name_exists() -> None:
    for text in moved.CHANGED.values():
        for path in re.findall(r"trct_monai(?:\.\w+)+", text):
            assert pydoc.locate(path) is not None, path


@QUIET
def test_a_name_that_is_nowhere_is_refused_with_where_to_look() -> None:
    line = "'trct_monai.engines' has no attribute 'nothing'; its names moved to trct_monai.training"
    with pytest.raises(AttributeError, match=line):
        importlib.import_module("trct_monai.engines").nothing  # noqa: B018  # asked for on purpose
    with pytest.raises(ImportError, match=line):
        import_name("trct_monai.engines.nothing")
    with pytest.raises(ImportError, match="has no attribute 'nothing'; its names moved to trct_monai.geometry"):
        import_name("trct_monai.transforms.nothing")
    assert importlib.import_module("trct_monai.transforms.cube")
    assert not hasattr(importlib.import_module("trct_monai.engines"), "nothing")  # pickle asks every module so


def test_a_folder_that_an_update_left_behind_does_not_hide_an_old_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Git removes files and leaves `__pycache__`: Python takes such a folder for a package without anything in it."""
    (tmp_path / "data" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr("trct_monai.__path__", [str(tmp_path)])
    with pytest.warns(DeprecationWarning):
        assert import_name("trct_monai.data.load_datalist") is load_datalist


@QUIET
@pytest.mark.parametrize("path", sorted(CALLS))
def test_what_an_old_configuration_calls_takes_the_same_arguments(path: str) -> None:
    (found,) = [ConfigParser({"it": {"_target_": path, "_mode_": "callable"}}).get_parsed_content("it")]
    for call in CALLS[path]:
        words = [word for word in call.strip("()").split(", ") if word]
        keywords = {word.removesuffix("=_"): None for word in words if word.endswith("=_")}
        inspect.signature(found).bind(*[None] * (len(words) - len(keywords)), **keywords)


def test_an_old_configuration_that_names_what_is_gone_is_told_what_to_use() -> None:
    config = ConfigParser({"it": {"_target_": "trct_monai.transforms.save_nifti"}})
    with pytest.raises(ImportError, match="use trct_monai.io.nifti.write_hu"):
        config.get_parsed_content("it")


@pytest.mark.slow
@QUIET
def test_an_old_bundle_trains_and_infers_on_an_old_data_set(tmp_path: Path) -> None:
    """The configurations of direct_regression and the phantoms as 0.1.0 wrote them, and smaller numbers."""
    configs = FOLDER / "direct_regression" / "configs"
    network = {"encoder_channels": [4, 8, 16], "hidden_size": 32, "num_layers": 1, "decoder_channels": [16, 8]}
    sizes = {"volume_size": 16, "radiograph_size": 32, "num_workers": 0, **network}
    paths = {"datalist": str(FOLDER / "phantoms" / "datalist.json"), "ckpt_path": str(tmp_path / "model.pt")}
    train = {"epochs": 2, "batch_size": 2, "output_dir": str(tmp_path / "output")}
    monai.bundle.run("training", config_file=str(configs / "train.json"), **paths, **sizes, **train)
    state = torch.load(tmp_path / "output" / "resume" / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 2 and (tmp_path / "model.pt").is_file()
    common = Path(__file__).parents[1] / "bundles" / "common"
    evaluate = {"output_dir": str(tmp_path / "scored")}
    monai.bundle.run(
        config_file=[str(configs / "train.json"), str(common / "evaluate.json")], **paths, **sizes, **evaluate
    )
    assert (tmp_path / "scored" / "evaluation" / "psnr_raw.csv").is_file()
    predictions = {"output_dir": str(tmp_path / "predictions")}
    monai.bundle.run(config_file=str(configs / "inference.json"), **paths, **sizes, **predictions)
    (case,) = load_datalist(paths["datalist"], "test")
    prediction = nibabel.load(tmp_path / "predictions" / f"{case['case_id']}.nii.gz")
    truth = nibabel.load(case["label"])
    np.testing.assert_allclose(prediction.affine, truth.affine, atol=1e-4)
    assert prediction.shape == truth.shape and prediction.get_fdata().min() < -900


def test_an_old_data_set_is_read_as_it_was_written() -> None:
    datalist = FOLDER / "phantoms" / "datalist.json"
    cases = [case for section in SECTIONS for case in load_datalist(datalist, section, geometry="x2ct", extent=320.0)]
    assert [case["case_id"] for case in cases] == [f"phantom_00000{number}" for number in range(4)]
    # as 0.1.0 printed it
    assert checksum(read_datalist(datalist)) == "54f05840829c0ca4fb205162f23520df3cf44d65b15c0ad946df6ac4dc9da7d5"


def test_old_radiographs_are_line_integrals_of_their_ct() -> None:
    """0.1.0 projected a finer volume than it stored, so they agree as well as 20 mm voxels let them."""
    for case in load_datalist(FOLDER / "phantoms" / "datalist.json", "training", "x2ct"):
        assert all(read_radiograph(path).quantitative for path in case["image"])
        image = LoadRadiographsd("image")(case)["image"]
        cameras = [Camera.from_dict(camera) for camera in case["cameras"]]
        expected = project(hu_to_attenuation(read_volume(case["label"]).as_tensor())[None], cameras, 20.0)[0]
        assert (image - expected).norm() < 0.05 * expected.norm()
