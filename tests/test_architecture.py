"""The house's plan: imports point one way, only `io` opens files, and every package has a face."""

import ast
import importlib
from pathlib import Path

import pytest

import trct_monai

PACKAGE = Path(trct_monai.__file__).parent

# Each room may import what stands on a lower floor; rooms of one floor do not import each other.
FLOORS = [
    ["geometry", "intensity", "arguments", "moved"],
    ["physics", "resampling"],
    ["projector"],
    ["io"],
    ["phantoms", "registration", "preprocessing", "variation", "networks", "losses", "metrics", "baselines", "figures"],
    ["transforms"],
    ["datasets", "training"],
    ["bundles"],
    ["evaluation", "reconstruction"],
    ["commands"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
PACKAGES = sorted(path.parent for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE)

LONGEST = 350
"""Lines of the longest file: what is longer holds two ideas."""

FUNCTIONS = {
    "open", "nibabel.load", "nibabel.save", "itk.imread", "itk.imwrite", "Image.open", "Image.fromarray", "h5py.File",
    "torch.load", "torch.save", "torch.jit.load", "json.load", "json.dump", "np.load", "np.save", "gzip.open",
}  # fmt: skip
METHODS = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}
"""Functions and methods that open a file."""

EXCEPTIONS = {
    ("bundles/export.py", "torch.jit.load"),  # compares TorchScript with PyTorch
    ("evaluation/report/command.py", "read_text"),  # its own assets, which lie in the package
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path) -> set[str]:
    """Modules of this library that a file imports, at its head or later."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            base = node.module or ""
            modules |= {f"{base}.{a.name}" if f"{base}.{a.name}" in MODULES else base for a in node.names}
    return modules


MODULES = {module_of(path): path for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in FLOOR, f"give {room} a floor in FLOORS"
    for module in imported_modules(path):
        assert module.split(".")[0] not in ("bundles", "tests", "benchmarks")
        if module.startswith("trct_monai."):
            other = module.split(".")[1]
            assert other == room or FLOOR[other] < FLOOR[room], f"{path} imports {module}"


def test_every_floor_is_built() -> None:
    assert {room_of(path) for path in FILES} == set(FLOOR)


def test_files_of_a_wing_import_one_way() -> None:
    """No circle among files, a package's face standing above its files; and no file looks at its own face."""
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        own = module if path.name == "__init__.py" else module.rpartition(".")[0]
        faces = {face for face in imported_modules(path) if face in MODULES and MODULES[face].name == "__init__.py"}
        assert path.name == "__init__.py" or own not in faces, f"{path} imports the face of its own package"
        graph[module] = {other for other in imported_modules(path) if other in MODULES}
    done: set[str] = set()

    def visit(module: str, way: tuple[str, ...]) -> None:
        assert module not in way, f"a circle: {' -> '.join([*way, module])}"
        if module not in done:
            for other in sorted(graph[module]):
                visit(other, (*way, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}".lstrip(".")
    return node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) != "io"], ids=lambda p: module_of(p))
def test_only_io_opens_files(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
            if name in FUNCTIONS or method in METHODS:
                known = (str(path.relative_to(PACKAGE)), name if name in FUNCTIONS else method) in EXCEPTIONS
                assert known, f"{path}:{node.lineno} calls {name}: reading and writing belongs to trct_monai.io"


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_package_says_what_lives_there_and_names_its_face(package: Path) -> None:
    module = importlib.import_module(module_of(package / "__init__.py"))
    assert module.__doc__ and module.__doc__.strip().split("\n")[0].endswith(".")
    assert len(module.__all__) == len(set(module.__all__)) > 0
    for name in module.__all__:
        assert hasattr(module, name), f"{module.__name__} has no {name}"
    defined = [node for node in ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8")).body
               if isinstance(node, ast.FunctionDef | ast.ClassDef)]  # fmt: skip
    assert not defined, "a face imports and names; what it names lives in a file of its own"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_holds_two_ideas(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST
