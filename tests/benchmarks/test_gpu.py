"""The acceptance on a GPU, rehearsed in miniature on whatever there is."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from gpu import MINIATURE, Run, Sizes, Task, tasks
from gpu_table import PARTS, Aim, Results

from trct_monai.io.files import read_csv

REPOSITORY = Path(__file__).resolve().parents[2]


def benchmark(script: str, folder: Path) -> str:
    """What a script prints, run as in the Makefile."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(REPOSITORY / "benchmarks" / script), "--output", str(folder), "--miniature", "True"]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, encoding="utf-8", timeout=900, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_part_runs_to_its_end_and_is_in_the_table(tmp_path: Path) -> None:
    output = benchmark("gpu.py", tmp_path)
    rows = read_csv(tmp_path / "gpu.csv")
    assert {row["part"] for row in rows} == set(PARTS)
    assert not [row for row in rows if row["status"] != "ok" and not row["status"].startswith("left out")], output
    table = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    headings = [line.removeprefix("## ") for line in table.splitlines() if line.startswith("## ")]
    assert headings == list(PARTS.values())
    assert "1.15 samples/s; aim at least 11.5" in table


@pytest.mark.slow
def test_the_whole_chain_of_the_training_runs_and_leaves_weights(tmp_path: Path) -> None:
    benchmark("gpu_train.py", tmp_path)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {value.dtype for value in state.values()} == {torch.float16}
    table = (tmp_path / "gpu_train.md").read_text(encoding="utf-8")
    assert "| frontal and lateral | " in table


@pytest.mark.parametrize("sizes", [Sizes(), MINIATURE], ids=["full", "miniature"])
def test_the_parts_come_in_their_order(sizes: Sizes, tmp_path: Path) -> None:
    found = [task.part for task in tasks(tmp_path, sizes)]
    order = ["data", *(part for part in PARTS if part != "data")]
    assert list(dict.fromkeys(found)) == order


def script(folder: Path, text: str, limit_s: float = 60.0) -> Task:
    """A task of its own."""
    path = folder / "script.py"
    path.write_text(text, encoding="utf-8")
    return Task("card", "a case", [str(path)], limit_s)


@pytest.mark.slow
def test_a_part_that_is_cut_leaves_what_it_had(tmp_path: Path) -> None:
    results = Results(tmp_path)
    text = 'import time\nprint(\'{"case": "first", "ms": 1}\', flush=True)\ntime.sleep(600)\n'
    Run(script(tmp_path, text, limit_s=8.0), 0, results, 1.0).finish(time.monotonic() + 600)
    assert [(row["case"], row["status"][:7]) for row in read_csv(tmp_path / "gpu.csv")] == [
        ("first", "ok"),
        ("a case", "stopped"),
    ]


@pytest.mark.slow
def test_a_part_that_fails_says_why(tmp_path: Path) -> None:
    results = Results(tmp_path)
    Run(script(tmp_path, "raise SystemExit('no such card')\n"), 0, results, 1.0).finish(time.monotonic() + 600)
    (row,) = read_csv(tmp_path / "gpu.csv")
    assert row["status"] == "failed with 1: no such card"


@pytest.mark.parametrize(
    ("aim", "row", "verdict"),
    [
        (Aim("gb", "216 GB", 78, at_most=True), {"gb": 8.87}, "216 GB; aim at most 78: reached"),
        (Aim("gb", "216 GB", 78, at_most=True), {"gb": 156}, "216 GB; aim at most 78: 0.50 of it"),
        (Aim("rate", "3", 30), {"rate": 25.13}, "3; aim at least 30: 0.84 of it"),
        (Aim("rate", "3", 30), {"rate": ""}, ""),
    ],
)
def test_an_aim_is_reached_or_missed_by_a_share(aim: Aim, row: dict[str, Any], verdict: str) -> None:
    assert aim.verdict(row) == verdict
