"""Draw the library: its rooms on their floors, as large as their code, with an arrow for each import.

    python docs/house.py

writes docs/house.png. Floors are those of tests/test_architecture.py; rooms and imports are read from the code.
"""

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "trct_monai"
GAP, HEIGHT, FLOOR_HEIGHT = 1.5, 5.2, 10.5


def read_floors() -> list[list[str]]:
    """The rooms of each floor, from the ground up."""
    tree = ast.parse((ROOT / "tests" / "test_architecture.py").read_text(encoding="utf-8"))
    values = [
        node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS"
    ]
    floors: list[list[str]] = ast.literal_eval(values[0])
    return floors


def read_rooms() -> tuple[dict[str, int], dict[str, set[str]]]:
    """Lines of code of each room, and the rooms that it imports."""
    lines: dict[str, int] = {}
    imports: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if room == "__init__":
            continue
        text = path.read_text(encoding="utf-8")
        lines[room] = lines.get(room, 0) + text.count("\n")
        imports.setdefault(room, set())
        for node in ast.walk(ast.parse(text)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imports[room] |= {name.split(".")[1] for name in names if name.startswith("trct_monai.")} - {room}
    return lines, imports


def direct(imports: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """The imports without those that another import brings along: A to C where A imports B and B imports C."""

    def below(room: str) -> set[str]:
        return imports[room].union(*(below(other) for other in imports[room]))

    return {room: others - set().union(*(below(other) for other in others)) for room, others in imports.items()}


def width_of(room: str, lines: int) -> float:
    """Wide enough for its name, and wider the more code it has."""
    return max(2.0 + 1.15 * len(room), 5.0 + lines**0.5 / 4)


def draw(target: Path) -> None:
    """Write the picture."""
    floors, (lines, imports) = read_floors(), read_rooms()
    figure, axes = plt.subplots(figsize=(13, 11))
    place: dict[str, tuple[float, float, float]] = {}
    total = max(sum(width_of(room, lines[room]) + GAP for room in floor) for floor in floors) + GAP
    for level, floor in enumerate(floors):
        bottom = level * FLOOR_HEIGHT
        shade = "0.96" if level % 2 else "0.92"
        axes.axhspan(bottom - 1.5, bottom + HEIGHT + 1.5, color=shade, zorder=0)
        widths = [width_of(room, lines[room]) for room in floor]
        gap = min((total - sum(widths)) / (len(floor) + 1), 7 * GAP)
        left = (total - sum(widths) - gap * (len(floor) - 1)) / 2
        for room, width in zip(floor, widths):
            axes.add_patch(
                FancyBboxPatch(
                    (left, bottom), width, HEIGHT, "round,pad=0,rounding_size=0.8", fc="white", ec="#1f4e79", zorder=2
                )
            )
            middle, counted = left + width / 2, f"{lines[room]:,} lines"
            axes.text(middle, bottom + 3.7, room, ha="center", va="center", weight="bold", size=10, zorder=3)
            axes.text(middle, bottom + 1.5, counted, ha="center", va="center", color="0.35", size=8, zorder=3)
            place[room] = (middle, bottom, width)
            left += width + gap
    for room, others in direct(imports).items():
        for other in others:
            (x, bottom, own), (to_x, to_bottom, width) = place[room], place[other]
            lean = max(-0.35, min(0.35, 2 * (to_x - x) / total))  # arrows to the left start on the left, and end right
            start, end = (x + lean * own, bottom), (to_x - lean * width, to_bottom + HEIGHT)
            arrow = FancyArrowPatch(
                start, end, arrowstyle="-|>", mutation_scale=10, color="#c55a11", alpha=0.8, zorder=1
            )
            axes.add_patch(arrow)
    axes.set(xlim=(0, total), ylim=(-2, len(floors) * FLOOR_HEIGHT - 3))
    axes.axis("off")
    figure.savefig(target, dpi=80, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "house.png")
