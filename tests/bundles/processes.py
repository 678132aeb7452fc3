"""Commands in processes of their own: in a new Python, or forked from one that has imported PyTorch and MONAI.

Both do what `python -m ARGUMENTS` does. A new Python needs some five seconds for its imports, a fork none.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
CONTEXT = multiprocessing.get_context(START)
# Imports only: a process that has computed has threads, and those do not survive a fork. The library itself is not
# among them, so that a child takes it from where its own search path says.
CONTEXT.set_forkserver_preload(["torch.distributed", "torch.utils.tensorboard", "monai.bundle", "ignite.handlers"])
TIMEOUT = 240.0


def shell(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """Run `python -m ARGUMENTS` in a Python of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def warm(*arguments: str, cwd: Path | None = None, **environment: str) -> str:
    """The same in a fork of a process that has imported PyTorch and MONAI."""
    return Warm(*arguments, cwd=cwd, **environment).wait()


class Warm:
    """A running `python -m ARGUMENTS`, forked from a process that has imported PyTorch and MONAI.

    Args:
        arguments: The module and its arguments.
        cwd: Its working directory.
        environment: What its environment has beyond this one's.
    """

    def __init__(self, *arguments: str, cwd: Path | None = None, **environment: str) -> None:
        descriptor, log = tempfile.mkstemp(suffix=".log")
        os.close(descriptor)
        self.log = Path(log)
        options = (arguments, str(cwd or Path.cwd()), {**os.environ, **environment}, log)
        self.process = CONTEXT.Process(target=_run, args=options)
        self.process.start()

    def is_running(self) -> bool:
        return self.process.is_alive()

    def kill(self) -> None:
        """End it by SIGKILL."""
        self.process.kill()
        self.process.join()
        self.log.unlink()

    def wait(self) -> str:
        """Wait for its end, which must be a good one; returns what it printed."""
        self.process.join(TIMEOUT)
        late, text = self.process.is_alive(), self.log.read_text(encoding="utf-8", errors="replace")
        if late:
            self.kill()
        else:
            self.log.unlink()
        assert not late and self.process.exitcode == 0, text[-3000:]
        return text


def _run(arguments: Sequence[str], cwd: str, environment: Mapping[str, str], log: str) -> None:
    """What the child does."""
    assert START == "spawn" or "monai.bundle" in sys.modules, "the server that this process comes from is not warm"
    with open(log, "ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))  # which OpenMP read when the server started
    sys.argv = list(arguments)
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
