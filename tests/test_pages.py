"""What the documents state about the code is so: floors, stable names, versions, bundles, and the picture of the house.

The README stays short, a score stands in one document alone, and commands name bundles and overlays that exist.
"""

import importlib
import inspect
import json
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch

import trct_monai
from tests.test_architecture import FLOORS, PACKAGES, module_of
from trct_monai.bundles.find import bundle_folder
from trct_monai.bundles.launcher import find_files
from trct_monai.bundles.overlays import check_overlays
from trct_monai.commands import COMMANDS
from trct_monai.geometry import Camera, preset
from trct_monai.io import Case, save_radiograph
from trct_monai.moved import CHANGED, MOVED


def rows(page: Path, section: str) -> dict[str, list[str]]:
    """The tables of a section: names in the last cell by the name in the first."""
    text = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (body,) = [part for part in text if part.startswith(section)]
    cells = [line.strip("| ").split(" | ") for line in body.splitlines() if line.startswith("| ")]
    return {key.split(",")[0].strip("`"): re.findall(r"`([^`]+)`", last) for key, *_, last in cells}


@pytest.fixture
def stable(repository: Path) -> Path:
    return repository / "docs" / "stable_names.md"


def test_the_page_lists_the_face_of_every_package(stable: Path) -> None:
    listed = rows(stable, "Names of the library")
    for package in map(module_of, (path / "__init__.py" for path in PACKAGES)):
        names = importlib.import_module(package).__all__
        wanted = f"| `{package}` | {' '.join(f'`{name}`' for name in names)} |"
        assert set(listed.get(package, ())) == set(names), f"the row in {stable} must be\n{wanted}"


def test_every_listed_name_exists(stable: Path) -> None:
    for module, names in rows(stable, "Names of the library").items():
        if module != "from":
            assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


def test_the_page_lists_every_command_with_its_flags(stable: Path) -> None:
    listed = rows(stable, "Commands")
    del listed["command"]
    commands = {name: place.partition(":") for name, (place, _) in COMMANDS.items()}
    for name, (module, _, function) in commands.items():
        command = getattr(importlib.import_module(f"trct_monai.{module}"), function)
        parameters = inspect.signature(command).parameters.values()
        flags = {one.name.upper() if one.kind is one.POSITIONAL_ONLY else f"--{one.name}" for one in parameters}
        assert set(listed.pop(name, ())) == ({*flags - {"--keys"}, "--KEY"} if name == "run" else flags), name
    assert not listed


def test_every_bundle_has_the_listed_keys(stable: Path, repository: Path) -> None:
    listed = rows(stable, "Keys of the bundle configurations")
    for file in ("train.json", "inference.json"):
        for path in (repository / "bundles").glob(f"*/configs/{file}"):
            assert set(listed[file]) <= set(json.loads(path.read_text(encoding="utf-8"))), path


def test_files_have_the_listed_fields(stable: Path, tmp_path: Path) -> None:
    listed = rows(stable, "Files")
    (camera, *_) = preset("x2ct", 8)
    assert set(listed["a camera"]) == set(camera.to_dict())
    save_radiograph(tmp_path / "a.png", torch.rand(8, 8), camera)
    written = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert set(listed["CASE_pa_drr.json"]) <= set(written) and Camera.from_dict(written["camera"]) == camera
    assert set(typing.get_type_hints(Case)) <= set(listed["datalist.json"])


def test_the_page_of_the_house_has_every_room_on_its_floor(repository: Path) -> None:
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \| ", page, re.MULTILINE)
    assert listed == [(str(floor), room) for floor, rooms in enumerate(FLOORS) for room in rooms]


def test_modules_of_the_pages_exist(repository: Path) -> None:
    page = (repository / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in set(
        re.findall(r"`((?:io|transforms|networks|training|datasets|preprocessing|registration)\.[\w.]+)`", page)
    ):
        assert importlib.import_module(f"trct_monai.{name}")


def test_the_house_is_drawn(repository: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(repository / "docs" / "house.py"), str(tmp_path / "house.png")]
    subprocess.run(command, check=True)
    assert 20_000 < (tmp_path / "house.png").stat().st_size < 150_000
    assert (repository / "docs" / "house.png").stat().st_size < 150_000


def test_one_version_stands_everywhere(repository: Path) -> None:
    version = trct_monai.__version__
    for path in (repository / "bundles").glob("*/configs/metadata.json"):
        assert json.loads(path.read_text(encoding="utf-8"))["required_packages_version"]["trct-monai"] == version, path
    assert f"\nversion: {version}\n" in (repository / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## {version} " in (repository / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_changelog_lists_what_moved_and_what_is_refused(repository: Path) -> None:
    lines = (repository / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
    wanted = [f"| `{old}` | {' '.join(f'`{name}`' for name in new.split())} |" for old, new in MOVED.items()]
    wanted += [f"| `{old}` | {line} |" for old, line in CHANGED.items()]
    assert [row for row in wanted if row not in lines] == []


def documents(repository: Path) -> list[Path]:
    """The README and the documents of docs/."""
    return [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]


def test_the_readme_is_read_in_three_minutes(repository: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert len(re.findall(r"^!\[", text, re.MULTILINE)) == 1, "one picture"
    assert len(re.findall(r"^\|[-| ]+\|$", text, re.MULTILINE)) == 1, "one table"
    assert re.findall(r"^    (make \w+|\w+.*)", text, re.MULTILINE) == ["make demo", "make test"], "two commands"


def test_every_bundle_is_in_both_tables_of_bundles(repository: Path) -> None:
    bundles = sorted(path.parents[1].name for path in (repository / "bundles").glob("*/configs/train.json"))
    row = re.compile(r"^\| \[(\w+)\]\(\S*bundles/\1/docs/README\.md\) \|", re.MULTILINE)
    for path in (repository / "README.md", repository / "docs" / "which_bundle.md"):
        assert sorted(row.findall(path.read_text(encoding="utf-8"))) == bundles, path


def test_a_score_of_the_leaderboard_stands_in_no_other_document(repository: Path) -> None:
    board = repository / "docs" / "leaderboard.md"
    scores = re.findall(
        r"^\| [\w+]+(?: \(baseline\))? \| (\d+\.\d+) \[", board.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(scores) >= 11
    for path in documents(repository):
        numbers = set(re.findall(r"\d+\.\d+", path.read_text(encoding="utf-8")))
        assert path == board or numbers.isdisjoint(scores), f"{path}: {numbers & set(scores)}"


def with_variables(text: str) -> str:
    """A document's commands with the values of its shell variables in their places."""
    values = re.findall(r"""(?:^|[\s;])([A-Z]+)=(?:"([^"]*)"|(\S+))""", text)
    for _ in range(2):  # a value may have another in it
        for variable, quoted, plain in values:
            text = text.replace(f"${variable}", quoted or plain).replace(f"${{{variable}}}", quoted or plain)
    return text


def test_commands_of_the_documents_run_overlays_that_go_together_in_that_order(repository: Path) -> None:
    """The launcher's and MONAI's."""
    ours = re.compile(r"(trct_monai run|--method|--bundles?) +([a-z][\w+,]*)(?![\w+,/])( training)?")
    monais = re.compile(r"""--config_file +"?(\[[^\]]*\]|[\w/.]+\.json)""")
    found = 0
    for path in (*documents(repository), *(repository / "bundles").glob("*/docs/README.md"), repository / "Makefile"):
        if path.name == "add_a_method.md":  # it makes a bundle, and tests/test_docs.py runs it
            continue
        text = with_variables(path.read_text(encoding="utf-8").replace("\\\n", " "))
        for kind, specs, training in ours.findall(text):
            for spec in specs.split(","):
                root, overlays = bundle_folder(spec)
                task = "training" if training else "" if kind == "trct_monai run" else "inference"
                check_overlays(find_files(root, overlays, task)[1])
                found += 1
        for listed in monais.findall(text):
            files = [repository / name for name in re.findall(r"[\w/.]+\.json", listed)]
            if all(file.is_file() for file in files):
                check_overlays(files)
                found += 1
            else:  # of somebody's own
                assert path.name in ("ecosystem.md", "stable_names.md"), f"{path}: {listed}"
    assert found > 60
