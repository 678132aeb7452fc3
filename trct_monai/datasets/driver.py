"""Many cases by several processes and several machines, with what went wrong counted."""

import hashlib
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import torch
from tqdm import tqdm

Job = TypeVar("Job")


EARLY_STOP = 20
"""From this many refused cases on, a run stops at once when the share is too high; fewer are all listed first."""


def parse_shard(shard: str) -> tuple[int, int]:
    """The part i of n that ``i/n`` names, counted from 1.

    Raises:
        ValueError: If it is no such part.
    """
    part, _, count = str(shard).partition("/")
    if not (part.isdigit() and count.isdigit() and 1 <= int(part) <= int(count)):
        raise ValueError(f"shard must be i/n with 1 <= i <= n, such as 1/4, got {shard!r}")
    return int(part), int(count)


def in_shard(case_id: str, shard: str) -> bool:
    """Whether a case belongs to a part; every case belongs to one part of n, whatever else there is."""
    part, count = parse_shard(shard)
    return int(hashlib.sha256(case_id.encode()).hexdigest(), 16) % count == part - 1


def run_cases(
    work: Callable[[Job], str],
    jobs: Sequence[tuple[str, Job]],
    *,
    num_workers: int,
    description: str,
    stop: Callable[[list[tuple[str, str]]], bool] = lambda refused: False,
) -> list[tuple[str, str]]:
    """Do all jobs, with a progress bar; Ctrl-C lets the running ones finish and starts no other.

    Cases run beside each other, and each on one thread: its sums do not depend on the machine's number of cores, and a
    busy machine does not lose its time to threads that wait for each other.

    Args:
        work: Does one job and gives an empty string, or the reason why it was refused. Must be picklable.
        jobs: Name of each case, and what `work` takes.
        num_workers: Number of processes; 0 or 1 works in this one.
        description: What stands before the progress bar.
        stop: Whether to give up, asked with what was refused so far.

    Returns:
        Name and reason of each refused case.

    Raises:
        ChildProcessError: If a process was killed.
    """
    refused: list[tuple[str, str]] = []
    with tqdm(total=len(jobs), desc=description, unit="case", disable=not jobs) as progress:

        def note(name: str, reason: str) -> bool:
            progress.update()
            if reason:
                refused.append((name, reason))
                tqdm.write(f"refused  {reason}")
            return bool(reason) and stop(refused)

        if num_workers <= 1 or len(jobs) <= 1:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for name, job in jobs:
                    if note(name, work(job)):
                        break
            finally:
                torch.set_num_threads(threads)
            return refused
        num_workers = min(num_workers, len(jobs))
        executor = ProcessPoolExecutor(num_workers, multiprocessing.get_context("spawn"), initializer=_start_worker)
        try:
            futures = {executor.submit(work, job): name for name, job in jobs}
            for future in as_completed(futures):
                if note(futures[future], future.result()):
                    break
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process was killed, perhaps for lack of memory; the same command goes on where it stopped "
                "(fewer num_workers need less memory)"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)
    return refused


def reason_if_refused(work: Callable[[Job], None], job: Job) -> str:
    """Do a job for `run_cases`: an empty string, or the one line of the error that the user can mend."""
    try:
        work(job)
    except (ValueError, OSError) as error:
        return " ".join(str(error).split())
    return ""


def too_many(num_refused: int, total: int, max_skipped: float) -> bool:
    """Whether more than a share of the cases was refused."""
    return num_refused > max_skipped * total


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C means
    torch.set_num_threads(1)
