"""Commands that are killed, or run out of room, in forks of one process that has imported everything.

As a program it reads trials from standard input, one JSON a line, and answers each with a line. A fork saves the
seconds of imports, and one signal to its group kills it with all that it started.
"""

import ctypes
import gc
import importlib
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import torch

IMPORTS = (
    "ignite.handlers",
    "monai.bundle",
    "torch.utils.tensorboard",
    "trct_monai.bundles.export",
    "trct_monai.datasets.plant",
    "trct_monai.datasets.prepare",
    "trct_monai.evaluation.leaderboard",
    "trct_monai.evaluation.report",
    "trct_monai.training",
)

SET_CHILD_SUBREAPER = 36
"""Linux: orphans of a killed command become this program's children, so that it knows when they are gone."""

TIMEOUT, PATIENCE = 600.0, 120.0
"""Seconds until a command is killed in any case, and until workers that outlive their command count as orphans."""

GROUPS: list[int] = []
"""Process groups of commands that were killed alone."""


class Trials:
    """The program, and how to ask it.

    Args:
        environment: What its environment has beyond this one's.
    """

    def __init__(self, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        assert self.process.stdout is not None
        start = time.monotonic()
        assert self.process.stdout.readline() == "ready\n"
        self.seconds_to_import = time.monotonic() - start

    def start(self, *arguments: str, **limits: Any) -> None:
        """Begin `python -m ARGUMENTS`; `answer` waits for it.

        Args:
            arguments: The module and its arguments.
            limits: ``kill_after`` seconds, ``alone`` to leave its workers alive; or ``largest_file`` in bytes.
        """
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"arguments": arguments, **limits}) + "\n")
        self.process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """``code`` as of `subprocess`; ``seconds``; ``said``, what it printed; ``orphans``, whether workers stayed."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the program of the trials has ended"
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self, *arguments: str, **limits: Any) -> dict[str, Any]:
        """Begin a command and wait for its end, whatever it is."""
        self.start(*arguments, **limits)
        return self.answer()

    def succeed(self, *arguments: str) -> dict[str, Any]:
        """Run a command that must end well."""
        answer = self.run(*arguments)
        assert answer["code"] == 0, answer["said"][-3000:]
        return answer

    def __enter__(self) -> "Trials":
        return self

    def __exit__(self, *_: object) -> None:
        """End the program."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def main() -> None:
    """Answer trials until the input ends."""
    for name in IMPORTS:
        importlib.import_module(name)
    torch.set_num_threads(1)
    ctypes.CDLL(None).prctl(SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    gc.freeze()
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(_trial(json.loads(line))), flush=True)


def _trial(trial: dict[str, Any]) -> dict[str, Any]:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    start, said = time.monotonic(), b""
    child = os.fork()
    if child == 0:
        os.close(reader)
        _be_the_command(trial, writer)
    os.close(writer)
    with suppress(PermissionError, ProcessLookupError):  # the child does it, too: whoever comes first
        os.setpgid(child, child)
    deadline, alone = start + trial.get("kill_after", TIMEOUT), trial.get("alone", False)
    code = None
    while code is None:
        said += _read(reader)
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
        elif time.monotonic() > deadline:
            (os.kill if alone else os.killpg)(child, signal.SIGKILL)
            deadline = float("inf")
        else:
            time.sleep(0.002)
    seconds = time.monotonic() - start
    GROUPS.append(child)
    orphans = not alone and not _wait_for_all(child)
    said += _read(reader)
    os.close(reader)
    return {"code": code, "seconds": seconds, "orphans": orphans, "said": said.decode("utf-8", "replace")}


def _wait_for_all(group: int) -> bool:
    """End a command's group, and wait until the workers of those before it are gone, too; false if they stay."""
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    with suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.01)
        for orphans in GROUPS:
            with suppress(ProcessLookupError):
                os.killpg(orphans, signal.SIGKILL)
        return False
    GROUPS.clear()
    return True


def _read(pipe: int) -> bytes:
    """What there is in a pipe."""
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(pipe, 2**16):
            parts.append(part)
    return b"".join(parts)


def _be_the_command(trial: dict[str, Any], output: int) -> NoReturn:
    """What the fork does: it ends as a Python does that was started for this command."""
    os.setpgid(0, 0)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    # Those of before may think that they are files, as under pytest, and fail to seek.
    sys.stdout, sys.stderr = (
        open(descriptor, "w", buffering=1, encoding="utf-8", closefd=False) for descriptor in (1, 2)
    )
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if "largest_file" in trial:
        resource.setrlimit(resource.RLIMIT_FSIZE, (trial["largest_file"],) * 2)
    sys.argv = list(trial["arguments"])
    try:
        runpy.run_module(trial["arguments"][0], run_name="__main__", alter_sys=True)
    except Exception:
        traceback.print_exc()
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
