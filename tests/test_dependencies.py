"""A training machine needs PyTorch, MONAI, NiBabel and what they bring: no packages for DICOM, export or reports."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from monai.bundle import ConfigParser

from tests.bundles.miniature import SIZES, arguments, files, smoke

NOT_NEEDED = (
    "itk", "plotly", "onnx", "onnxruntime", "lpips", "pydicom", "beartype", "sphinx", "pytest", "mlflow",
    "pyarrow", "idc_index_data",
)  # fmt: skip
"""Packages that other tasks take: DICOM, CTs of other formats, reports, export, one metric, tests, documents, fetch."""

WITHOUT = f"""
import sys
from importlib.machinery import PathFinder
find = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {NOT_NEEDED} else find(name, *rest)
"""

IMPORT_ALL = """
import importlib.util, pkgutil, trct_monai
names = [module.name for module in pkgutil.walk_packages(trct_monai.__path__, "trct_monai.")]
for name in names:
    importlib.import_module(name)
assert not importlib.util.find_spec("itk")
print(len(names), "modules")
"""

RUN = """
import runpy
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def without(program: str, *command: str) -> str:
    """What a program prints in a Python that lacks `NOT_NEEDED`."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT + program, *command],
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def flags(options: Mapping[str, object]) -> list[str]:
    return [text for key, value in options.items() for text in (f"--{key}", str(value))]


@pytest.mark.slow
def test_every_module_imports_without_what_it_does_not_need(repository: Path) -> None:
    count = len([path for path in (repository / "trct_monai").rglob("*.py") if path.name != "__init__.py"])
    said = without(IMPORT_ALL)
    assert int(said.split()[0]) > count, said  # the packages, too


@pytest.mark.slow
def test_phantoms_are_made_without_what_they_do_not_need(tmp_path: Path) -> None:
    options = {"output": tmp_path / "new", "size": 16, "radiograph_size": 32, "split": "1/0/1", "num_workers": 0}
    without(RUN, "trct_monai", "phantoms", *flags(options))
    assert (tmp_path / "new" / "datalist.json").is_file()


@pytest.mark.slow
def test_a_bundle_trains_and_reconstructs_without_what_it_does_not_need(
    repository: Path, phantoms: Path, tmp_path: Path
) -> None:
    bundle = repository / "bundles" / "any_view"
    options = arguments(bundle, phantoms, tmp_path / "training")
    train = files(bundle, "train.json", smoke(bundle))
    without(RUN, "monai.bundle", "run", "training", "--config_file", str(train), *flags(options))
    inference = files(bundle, "inference.json")
    known = ConfigParser.load_config_files(inference)
    options = {key: value for key, value in (SIZES | options).items() if key in known}
    options["output_dir"] = tmp_path / "predictions"
    without(RUN, "monai.bundle", "run", "--config_file", str(inference), *flags(options))
    assert len(list((tmp_path / "predictions").glob("phantom_*.nii.gz"))) == 2
