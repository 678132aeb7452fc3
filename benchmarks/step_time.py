"""Step time and peak memory of the bundles' training beside the plainest PyTorch of the same architectures.

    python benchmarks/step_time.py                  # writes benchmarks/step_time.csv and prints the table
    python benchmarks/step_time.py --bundles any_view,trct_gan --rounds 3
    python benchmarks/step_time.py --help

Our side is a bundle's own trainer (`training.py`), the other a bare loop around plain code (`plain.py`,
`plain_training.py`). Each has a process of its own, and they take turns step by step, so that both have the same load
of the machine: a ratio is the median over the rounds of the two times of one round. Beside the time there is the CPU
time of all threads, which other programs hardly change; waiting threads give their core away, so that it is work.
Memory is what the process's peak grew by after its imports: parameters, gradients, the optimiser's state, activations.
"""

import multiprocessing
import os
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import fire
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from plain_training import make_step
from torch.utils.data import DataLoader
from tqdm import tqdm
from training import configure

from trct_monai.io.files import write_csv


class Case(NamedTuple):
    """A bundle at the size of an overlay, and changes of its numbers."""

    bundle: str
    overlay: str = "small"
    changes: dict[str, Any] = {}

    def configuration(self) -> ConfigParser:
        """On a CPU."""
        return configure(self.bundle, [self.overlay], {**self.changes, "device": "$torch.device('cpu')"})


CASES = (
    Case("direct_regression"),
    Case("trct_gan"),
    Case("trct_gan", changes={"batch_size": 1}),
    Case("two_stage"),
    Case("hybrid_cnn_vit"),
    Case("dif_net"),
    Case("x2ct_gan"),
    Case("any_view"),
    Case("ct_phase_pix2pix"),
    Case("trct_gan", "reduced", {"batch_size": 1}),
)
"""The small sizes; a batch of 1 as well where the method was trained with one, and that training's own size."""

WARM_UP = 2
"""Steps before the rounds: the optimiser's state and the projector's tables come into being."""

MB = 1e6


class Turn(NamedTuple):
    """What one step took."""

    seconds: float
    cpu_seconds: float
    peak: int


class Turns:
    """A process's side of taking turns: it waits for its turn, and tells how long its step took.

    Args:
        connection: To the process that gives the turns.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection, self.before = connection, peak_bytes()
        self.start = self.cpu_start = 0.0

    def begin(self) -> None:
        """Wait for the turn."""
        self.connection.recv()
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def end(self) -> None:
        """Tell the seconds of the step, those of the CPU, and the bytes by which the peak has grown."""
        seconds, cpu = time.perf_counter() - self.start, time.process_time() - self.cpu_start
        self.connection.send(Turn(seconds, cpu, peak_bytes() - self.before))


def train_ours(parser: ConfigParser, turns: Turns) -> None:
    """The bundle's trainer, without its handlers."""
    trainer = parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.ITERATION_STARTED, lambda _: turns.begin())
    trainer.add_event_handler(Events.ITERATION_COMPLETED, lambda _: turns.end())
    trainer.state.max_epochs = 10**6  # until the process is ended
    trainer.run()


def train_plain(parser: ConfigParser, turns: Turns) -> None:
    """The bare loop."""
    step = make_step(parser)
    loader = DataLoader(parser["train"]["dataset"], parser.config["batch_size"])
    while True:
        for batch in loader:
            turns.begin()
            step(batch)
            turns.end()


SIDES = {"ours": train_ours, "plain": train_plain}


def run_side(connection: Connection, side: str, case: Case, threads: int) -> None:
    """One side, in a process of its own."""
    turns = Turns(connection)
    torch.set_num_threads(threads)
    SIDES[side](case.configuration(), turns)


@contextmanager
def processes(case: Case, threads: int) -> Iterator[dict[str, Connection]]:
    """A process for each side, and the way to give it its turns; they end with the block."""
    context, running, connections = multiprocessing.get_context("spawn"), [], {}
    try:
        for side in SIDES:
            connections[side], theirs = context.Pipe()
            running.append(context.Process(target=run_side, args=(theirs, side, case, threads), daemon=True))
            running[-1].start()
            theirs.close()  # or a process that fails would be waited for
        yield connections
    finally:
        for process in running:
            process.terminate()
            process.join()


def take_turn(connection: Connection) -> Turn:
    """One step of one side."""
    connection.send(None)
    result: Turn = connection.recv()
    return result


def compare(case: Case, rounds: int, threads: int) -> dict[str, Any]:
    """One row of the table."""
    with processes(case, threads) as sides:
        for _ in range(WARM_UP):
            for connection in sides.values():
                take_turn(connection)
        taken = [{side: take_turn(connection) for side, connection in sides.items()} for _ in range(rounds)]
    peaks = {side: taken[-1][side].peak / MB for side in SIDES}
    return {
        **description(case),
        **times("step", [{side: turn.seconds for side, turn in turns.items()} for turns in taken]),
        **times("cpu", [{side: turn.cpu_seconds for side, turn in turns.items()} for turns in taken]),
        **{f"{side}_memory_mb": round(peak) for side, peak in peaks.items()},
        "memory_ratio": round(peaks["plain"] / peaks["ours"], 2),
    }


def times(name: str, taken: list[dict[str, float]]) -> dict[str, Any]:
    """Medians over the rounds, in ms, and the ratio with its quartiles."""
    ratios = [seconds["plain"] / seconds["ours"] for seconds in taken]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return {
        **{f"{side}_{name}_ms": round(1e3 * statistics.median(t[side] for t in taken)) for side in SIDES},
        f"{name}_ratio": round(statistics.median(ratios), 2),
        f"{name}_ratio_low": round(low, 2),
        f"{name}_ratio_high": round(high, 2),
    }


def description(case: Case) -> dict[str, Any]:
    """What a row is about."""
    parser = case.configuration()
    config, network = parser.config, parser.get_parsed_content("network_def")
    sides = (config["slice_size"],) * 2 if "slice_size" in config else (config["volume_size"],) * 3
    return {
        "bundle": case.bundle,
        "overlay": case.overlay,
        "size": " x ".join(map(str, sides)),
        "batch": config["batch_size"],
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in markdown."""
    lines = [
        "| bundle | size | batch | parameters | step (ms) | ratio | CPU time (ms) | ratio | peak memory (MB) | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        pairs = {name: f"{row[f'ours_{name}']} / {row[f'plain_{name}']}" for name in ("step_ms", "cpu_ms", "memory_mb")}
        cells = (
            row["bundle"],
            row["size"],
            row["batch"],
            f"{row['parameters'] / 1e6:.1f} M",
            pairs["step_ms"],
            f"{row['step_ratio']:.2f} ({row['step_ratio_low']:.2f} to {row['step_ratio_high']:.2f})",
            pairs["cpu_ms"],
            f"{row['cpu_ratio']:.2f} ({row['cpu_ratio_low']:.2f} to {row['cpu_ratio_high']:.2f})",
            pairs["memory_mb"],
            f"{row['memory_ratio']:.2f}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def peak_bytes() -> int:
    """Largest resident memory of this process, on Linux; `getrusage` would begin with that of the process before it."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def step_time(
    bundles: str | tuple[str, ...] = "",
    overlay: str = "small",
    rounds: int = 5,
    threads: int = 2,
    output: str = str(Path(__file__).with_name("step_time.csv")),
) -> None:
    """Measure both sides of each bundle in turn, write the table as CSV and print it in markdown.

    Args:
        bundles: Names of bundles, separated by commas; all if empty.
        overlay: Their size: ``small``, or ``reduced`` for trct_gan at 128 x 128 x 128.
        rounds: Rounds of one step of ours and one plain step.
        threads: Threads of each process.
        output: The CSV.
    """
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"  # read by the processes when they load PyTorch
    names = bundles.split(",") if isinstance(bundles, str) else bundles
    cases = [case for case in CASES if case.overlay == overlay and (not any(names) or case.bundle in names)]
    rows = [compare(case, rounds, threads) for case in tqdm(cases)]
    write_csv(Path(output), rows)
    print(table(rows))


if __name__ == "__main__":
    fire.Fire(step_time)
