"""The results of `gpu.py`: rows as they come, in a csv and a markdown file, beside what they are held against."""

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = {
    "card": "Card and versions",
    "tests": "Tests that need a GPU",
    "data": "Rendered phantoms, made while the tests ran",
    "train": "Training steps in bf16, from each bundle's own train.json",
    "inference": "Inference, one case",
    "projector": "Projector, one cone view",
    "distributed": "Two processes on one card",
    "resume": "Killed and resumed",
    "precision": "Training steps in other precisions",
}
"""The parts in their order, and the headings of their tables."""

KEYS = ("part", "case", "setting", "status")


@dataclass(frozen=True)
class Aim:
    """What a measurement is held against.

    Attributes:
        quantity: The column.
        reference: What was reported where the method comes from.
        value: The number to reach.
        at_most: Whether the aim is reached below the number, not above it.
    """

    quantity: str
    reference: str
    value: float
    at_most: bool = False

    def verdict(self, row: Mapping[str, Any]) -> str:
        """The aim and whether this row reaches it; empty where the row lacks the quantity."""
        if row.get(self.quantity) in (None, ""):
            return ""
        found = float(row[self.quantity])
        reached = found <= self.value if self.at_most else found >= self.value
        sign = "at most" if self.at_most else "at least"
        ratio = self.value / found if self.at_most else found / self.value
        return f"{self.reference}; aim {sign} {self.value:g}: {'reached' if reached else f'{ratio:.2f} of it'}"


AIMS: dict[tuple[str, str], Aim] = {
    ("train", "trct_gan, batch 4"): Aim("peak_memory_gb", "216 GB asked for", 78.0, at_most=True),
    ("train", "trct_gan+reduced, batch 1"): Aim("samples_per_s", "1.15 samples/s", 11.5),
    ("train", "direct_regression, batch 8"): Aim("samples_per_s", "2-3 samples/s (A100)", 30.0),
    ("train", "direct_regression+train_256, batch 1"): Aim("samples_per_s", "0.3-0.7 samples/s (A100)", 7.0),
}
"""By part and case. Ten times the upper end of what was reported, or the memory of one card."""


class Results:
    """Rows of measurements, written to OUTPUT/gpu.csv and OUTPUT/gpu.md each time that one comes.

    Args:
        folder: The output folder; made if need be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, list[dict[str, Any]]()
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, row: Mapping[str, Any]) -> None:
        """Keep a row with its aim, print it, and write both files anew."""
        new = {key: row.get(key, "") for key in KEYS} | dict(row)
        aim = AIMS.get((new["part"], new["case"]))
        if aim is not None and aim.verdict(new):
            new["reference_and_aim"] = aim.verdict(new)
        self.rows.append(new)
        print(", ".join(f"{value}" if key in KEYS else f"{key} {value}" for key, value in new.items() if value != ""))
        _replace(self.folder / "gpu.csv", self._csv)
        _replace(self.folder / "gpu.md", lambda path: path.write_text(self.markdown(), encoding="utf-8"))

    def _csv(self, path: Path) -> None:
        fields = list(dict.fromkeys(key for row in self.rows for key in row))
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fields, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)

    def markdown(self) -> str:
        """A table for each part, with the columns that it uses."""
        sections = []
        for part, title in PARTS.items():
            rows = [row for row in self.rows if row["part"] == part]
            fields = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "part"]
            fields = [key for key in fields if any(row.get(key, "") != "" for row in rows)]
            if rows:
                lines = [" | ".join(str(row.get(key, "")).replace("|", "/") for key in fields) for row in rows]
                heads = [" | ".join(fields).replace("_", " "), " | ".join("---" for _ in fields)]
                sections.append("\n".join([f"## {title}", "", *(f"| {line} |" for line in (*heads, *lines))]))
        return "\n\n".join(sections) + "\n"


def _replace(path: Path, write: Any) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    write(temporary)
    os.replace(temporary, path)
