"""The house's plan: imports point one way, and the library never looks at bundles or tests."""

import ast
from pathlib import Path

import pytest

import trct_monai

PACKAGE = Path(trct_monai.__file__).parent

# Each room may import what stands on a lower floor; rooms of one floor do not import each other.
FLOORS = [
    ["geometry", "intensity", "bundle"],
    ["projector"],
    ["physics", "figures"],
    ["networks", "losses", "metrics", "transforms", "baselines"],
    ["handlers", "engines", "gan_guard", "inferers", "calibration"],
    ["data"],
    ["scoring", "evaluate_phases"],
    ["evaluate"],
    ["leaderboard", "report", "reconstruct", "export"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path: Path) -> set[str]:
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            modules.add(node.module or "")
            if node.module == "trct_monai":
                modules |= {f"trct_monai.{alias.name}" for alias in node.names}
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR, f"give {room} a floor in FLOORS"
    for module in imported_modules(path):
        assert module.split(".")[0] not in ("bundles", "tests", "benchmarks")
        if module.startswith("trct_monai."):
            other = module.split(".")[1]
            assert other == "__version__" or other == room or FLOOR[other] < FLOOR[room], f"{path} imports {module}"


def test_every_floor_is_built() -> None:
    assert {room_of(path) for path in FILES} == set(FLOOR)
