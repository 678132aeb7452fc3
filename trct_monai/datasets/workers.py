"""Work shared between machines, by shards, and between the processes of one machine."""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

import torch
from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    """Whether a case belongs to a part; every case belongs to one part of n, whatever the other cases are."""
    part, count = parse_shard(shard)
    return int(hashlib.sha256(case_id.encode()).hexdigest(), 16) % count == part - 1


def work_on(
    work: Callable[[Item], Result], items: Sequence[Item], *, num_workers: int, description: str
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with its result, as they come, with a progress bar.

    Items are done beside each other, and each on one thread: its sums do not depend on the machine's number of cores,
    and a busy machine does not lose its time to threads that wait for each other. When the iterator is closed, or
    after Ctrl-C, the running ones finish and no other starts.

    Args:
        work: Does one item. Must be picklable.
        items: What `work` takes, one after the other.
        num_workers: Number of processes; 0 or 1 works in this one.
        description: Label of the progress bar.

    Raises:
        ChildProcessError: If a process was killed.
    """
    with tqdm(total=len(items), desc=description, unit="case", disable=not items) as progress:
        if num_workers <= 1 or len(items) <= 1:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                for item in items:
                    result = work(item)
                    progress.update()
                    yield item, result
            finally:
                torch.set_num_threads(threads)
            return
        context = multiprocessing.get_context("spawn")
        executor = ProcessPoolExecutor(min(num_workers, len(items)), context, initializer=_start_worker)
        try:
            futures = {executor.submit(work, item): item for item in items}
            for future in as_completed(futures):
                result = future.result()
                progress.update()
                yield futures[future], result
        except BrokenProcessPool as error:
            raise ChildProcessError(
                "a worker process was killed, perhaps for lack of memory; the same command goes on where it stopped "
                "(fewer num_workers need less memory)"
            ) from error
        finally:
            executor.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what a Ctrl-C means
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        if not parent.is_alive():
            os._exit(1)
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this worker when its parent was killed: it would write while the next run does, and then wait for ever."""
    parent.join()
    os._exit(1)
