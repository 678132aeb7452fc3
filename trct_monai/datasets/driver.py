"""The driver under every command that makes a data set: `prepare`, `phantoms` and `plant`.

A command names its jobs, and a `Recipe` says what is made of each. The driver shares the jobs between machines and
processes, leaves alone what is done, counts what is refused, and writes the datalist of the cases that belong to the
data set. What is done is decided by content: a case is made again if the bytes of its source, the options or its own
files have changed.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from trct_monai.datasets.cases import Make, Place, SeveralReasonsError, load_cases
from trct_monai.datasets.split import DATALIST, Sections, write_split
from trct_monai.datasets.workers import in_shard, parse_shard, work_on
from trct_monai.io.case import Case, check_file_name
from trct_monai.io.files import WriteError, remove_partial
from trct_monai.io.locks import alone_at, alone_in
from trct_monai.io.provenance import make_stamp

Item = TypeVar("Item")

EARLY_STOP = 20
"""From this many refused cases on, a run stops at once when the share is too high; fewer are all listed first."""


@dataclass(frozen=True)
class Job:
    """One source and the names of all that is made of it.

    Attributes:
        names: Names of the cases; shards share the work by the first.
        source: What the recipe takes.
    """

    names: tuple[str, ...]
    source: Any


@dataclass(frozen=True)
class Product:
    """One thing that is made of a job's source.

    Attributes:
        place: Where it is written.
        inputs: Digests of all that goes into it, by name.
        make: Writes its files.
    """

    place: Place
    inputs: Mapping[str, Any]
    make: Make


@dataclass(frozen=True)
class Recipe:
    """How a command makes its cases; worker processes get a copy.

    Attributes:
        products: From a job's source to what is to be made of it. It raises ValueError or OSError for a source that is
            refused.
        options: Every number and name that the results depend on.
        description: Label of the progress bar.
        noun: What the jobs are called, in the plural.
    """

    products: Callable[[Any], Iterable[Product]]
    options: Mapping[str, Any]
    description: str
    noun: str = "cases"


def make_data_set(
    output: Path,
    jobs: Sequence[Job],
    recipe: Recipe,
    arrange: Callable[[list[Case]], tuple[Sections, dict[str, Any]]],
    *,
    num_workers: int,
    shard: str = "1/1",
    max_skipped: float = 0.0,
    refused: Sequence[str] = (),
) -> None:
    """Make the cases of all jobs, and the datalist of all that are complete.

    Cases in the folder that no job makes, and those of a source that this run refused, are named and left out of the
    datalist; their folders stay. A shard knows of its own refusals only: run the others again after a source changed.

    Args:
        output: Folder of the cases.
        jobs: Those of all shards: they say which cases belong to the data set.
        recipe: How to make them.
        arrange: From the cases to the sections and the header of the datalist.
        num_workers: Number of processes.
        shard: Part i/n of the jobs.
        max_skipped: Share of refused entries above which the run fails.
        refused: One line for each entry that was refused before it became a job.

    Raises:
        ValueError: If too many entries are refused, no case is left, or one was made with other options.
        BlockingIOError: If another run writes there.
        WriteError: If the disk takes no more; what was made stays.
    """
    with alone_in(output, parse_shard(shard)):
        run = run_jobs(
            output, jobs, recipe, num_workers=num_workers, shard=shard, max_skipped=max_skipped, refused=refused
        )
        with alone_at(output / DATALIST, wait=True):  # the shard that comes last finds the cases of all
            is_whole = parse_shard(shard)[1] == 1
            _write_datalist(output, jobs, recipe, arrange, run, len(refused) + len(run.refused), is_whole)


def _write_datalist(
    output: Path,
    jobs: Sequence[Job],
    recipe: Recipe,
    arrange: Callable[[list[Case]], tuple[Sections, dict[str, Any]]],
    run: "Run",
    num_refused: int,
    is_whole: bool,
) -> None:
    """Write the datalist of all complete cases of the jobs; see `make_data_set`."""
    absent = {name for job in run.refused for name in job.names}
    names = [name for job in jobs for name in job.names if name not in absent]
    found = {case["case_id"]: case for case in load_cases(output)}
    left_out = sorted(found.keys() - set(names))
    if left_out:
        more = f" and {len(left_out) - 20} more" if len(left_out) > 20 else ""
        print(f"left out of the datalist: {', '.join(left_out[:20])}{more} (no longer in the input, or refused)")
    cases = [found[name] for name in names if name in found]
    options = make_stamp({}, recipe.options)["options"]
    others = [case["case_id"] for case in cases if case["provenance"].get("options") != options]
    if others:
        raise ValueError(f"{output}: {', '.join(others[:5])} were made with other options; use another output folder")
    if not names or (is_whole and not cases):
        raise ValueError(f"no {recipe.noun} are left of {len(jobs)}, so there is no datalist")
    print(f"{run.num_done} {recipe.noun} in this run, {num_refused} refused, {len(cases)} cases in {output}")
    if len(cases) < len(names) and not is_whole:
        print(f"{len(cases)} of {len(names)} cases so far; the datalist is complete after the other shards")
    sections, header = arrange(cases)
    write_split(output / DATALIST, sections, header | ({"left_out": left_out} if left_out else {}))


@dataclass(frozen=True)
class Run:
    """The outcome of one run.

    Attributes:
        num_done: Number of jobs whose cases are all complete now.
        refused: The others.
    """

    num_done: int
    refused: list[Job]


def run_jobs(
    output: Path,
    jobs: Sequence[Job],
    recipe: Recipe,
    *,
    num_workers: int,
    shard: str = "1/1",
    max_skipped: float = 0.0,
    refused: Sequence[str] = (),
) -> Run:
    """Make what is not done yet; see `make_data_set` for the arguments.

    Raises:
        ValueError: If too many entries are refused; what was made stays.
        WriteError: If the disk takes no more; what was made stays.
    """
    mine = [job for job in jobs if in_shard(job.names[0], shard)]
    for name in (name for job in jobs for name in job.names):
        check_file_name(name, "the name of a case")
    remove_partial(output, [name for job in mine for name in job.names])
    reasons = list(refused)
    total, num_before, without, stopped = len(jobs) + len(reasons), 0, [], False
    work = partial(_make, recipe=recipe)
    with closing(work_on(work, mine, num_workers=num_workers, description=recipe.description)) as results:
        for job, (reason, was_done) in results:
            num_before += was_done
            if reason:
                tqdm.write(f"refused  {reason}")
                without.append(job)
                reasons.append(reason)
                stopped = len(without) >= EARLY_STOP and len(without) > max_skipped * total
                if stopped:
                    break
    if num_before:
        print(f"{num_before} of {len(mine)} {recipe.noun} are done already")
    if len(reasons) > max_skipped * total:
        limit = f", more than --max_skipped {max_skipped:g}" if max_skipped else ""
        so = "the run stopped early" if stopped else "the others are written"
        first = reasons[0].splitlines()[0]
        raise ValueError(
            f"{len(reasons)} of {total} {recipe.noun} refused{limit}; {so}, and no datalist; the first: {first}"
        )
    return Run(len(mine) - len(without), without)


def _make(job: Job, recipe: Recipe) -> tuple[str, bool]:
    """Make what is not done of a job: why it was refused, or an empty string; and whether all was done already.

    Of several reasons each has a line, the summary the first.
    """
    was_done = True
    try:
        for product in recipe.products(job.source):
            stamp = make_stamp(product.inputs, recipe.options)
            if not product.place.is_done(stamp):
                product.place.write(stamp, product.make)
                was_done = False
    except WriteError:
        raise  # no fault of the case: the next one cannot be written either
    except SeveralReasonsError as error:
        return "\n  ".join(_one_line(one) for one in (error.summary, *error.reasons)), False
    except (ValueError, OSError) as error:
        return _one_line(error), False
    return "", was_done


def run_cases(
    work: Callable[[Item], str], items: Sequence[tuple[str, Item]], *, num_workers: int, description: str
) -> list[tuple[str, str]]:
    """Do the same with many cases; on one thread each; see `work_on`.

    Args:
        work: Does one and gives an empty string, or the reason why it was refused. Must be picklable.
        items: Name of each case, and what `work` takes.
        num_workers: Number of processes; 0 or 1 works in this one.
        description: Label of the progress bar.

    Returns:
        Name and reason of each refused case.

    Raises:
        ChildProcessError: If a process was killed.
    """
    refused = []
    work_of = partial(_second, work=work)
    with closing(work_on(work_of, items, num_workers=num_workers, description=description)) as results:
        for (name, _), reason in results:
            if reason:
                tqdm.write(f"refused  {reason}")
                refused.append((name, reason))
    return refused


def reason_if_refused(work: Callable[[Item], None], item: Item) -> str:
    """Do a job for `run_cases`: an empty string, or the one line of the error that the user can fix.

    Raises:
        WriteError: If the disk takes no more, which is no fault of the case.
    """
    try:
        work(item)
    except WriteError:
        raise
    except (ValueError, OSError) as error:
        return _one_line(error)
    return ""


def _second(item: tuple[str, Item], work: Callable[[Item], str]) -> str:
    return work(item[1])


def _one_line(error: Exception | str) -> str:
    return " ".join(str(error).split())
