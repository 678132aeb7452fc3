"""A wheel builds, installs elsewhere, and works from another folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import trct_monai


@pytest.fixture(scope="module")
def site(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the project's wheel is installed, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # setuptools writes into the tree that it builds from
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{repository}", str(source)], check=True)
    options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True)
    (wheel,) = folder.glob("trct_monai-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)], check=True)
    return folder / "site"


def run(site: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=site.parent,
        env={**os.environ, "PYTHONPATH": str(site)},
        check=True,
        capture_output=True,
        encoding="utf-8",
    ).stdout


def test_wheel_holds_the_whole_library(site: Path, repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "trct_monai"], cwd=repository, check=True, capture_output=True, encoding="utf-8"
    ).stdout.split()
    assert [name for name in listed if not (site / name).is_file()] == []


def test_import_from_another_folder_is_quick_and_brings_no_torch(site: Path) -> None:
    program = "import sys, trct_monai; print(trct_monai.__file__, 'torch' in sys.modules)"
    assert run(site, "-c", program).split() == [str(site / "trct_monai" / "__init__.py"), "False"]


def test_commands_run_from_the_wheel(site: Path) -> None:
    assert "phantoms" in run(site, "-m", "trct_monai", "--help")


def test_reconstruct_runs_from_the_wheel(site: Path) -> None:
    run(site, "-m", "trct_monai", "phantoms", "--output", "one", "--split", "0/0/1", "--num_workers", "0")
    case = Path("one") / "phantom_000000"
    views = [text for view in ("pa", "lat") for text in (f"--{view}", str(case / f"{case.name}_{view}_drr.png"))]
    said = run(site, "-m", "trct_monai", "reconstruct", *views, "--out", "ct.nii.gz")
    assert "wrote ct.nii.gz" in said and "warning" not in said
    assert (site.parent / "ct.nii.gz").is_file()


def test_a_bundle_runs_from_the_wheel_by_both_commands(site: Path) -> None:
    """The bundle that comes along, with its weights and the overlays of all bundles."""
    run(site, "-m", "trct_monai", "phantoms", "--output", "two", "--split", "0/0/1", "--num_workers", "0")
    data = ["--datalist", "two/datalist.json", "--output_dir"]
    said = run(site, "-m", "trct_monai", "run", "any_view+small", *data, "ours")
    folder = site / "trct_monai" / "bundles" / "any_view"
    assert f"weights: {folder / 'models' / 'small' / 'model.pt'}" in said and "wrote 1 reconstructions" in said
    files = str([str(folder / "configs" / f"{name}.json") for name in ("inference", "small")])
    weights = ["--ckpt_path", str(folder / "models" / "small" / "model.pt")]
    run(site, "-m", "monai.bundle", "run", "--config_file", files, *data, "theirs", *weights)
    one, other = (list((site.parent / name).glob("*.nii.gz")) for name in ("ours", "theirs"))
    assert [path.name for path in one] == [path.name for path in other] == ["phantom_000000.nii.gz"]
    assert "evaluate.json" in run(site, "-m", "trct_monai", "run", "any_view+small+evaluate", *data, "scored")


def test_changelog_and_citation_state_the_version(repository: Path) -> None:
    changelog, citation = ((repository / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff"))
    newest = next(line for line in changelog.splitlines() if line.startswith("## "))
    assert newest.split()[1] == trct_monai.__version__
    assert f"\nversion: {trct_monai.__version__}\n" in citation
