"""What MONAI wraps into its own errors, as the one line that it was."""

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dis import opmap
from pathlib import Path
from types import TracebackType
from typing import Any

from trct_monai.bundles.shell import runs_in_shell, typed_value
from trct_monai.io.weights import load_state

WORKER_TRACE = "\nOriginal Traceback"
"""Begins the text that PyTorch adds to an error in a worker of a DataLoader."""

WORKER_ERROR = re.compile(r"^(?:ValueError|OSError|FileNotFoundError|PermissionError): (.+?)(?:\n\n|\Z)", re.M | re.S)
"""An error that the user can fix, in that text."""

HINT = " (TRCT_TRACEBACK=1 shows the calls)"
"""Ends the line of an error that may be one of a program."""

PACKAGE = Path(__file__).parents[1]


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the ValueError or OSError that MONAI hides in a RuntimeError of a transform or of a configuration.

    Raises:
        ValueError: As it was raised first.
        OSError: As it was raised first.
    """
    try:
        yield
    except RuntimeError as error:
        if (cause := _cause(error)) is not None:
            raise cause from None
        raise


def _cause(error: BaseException) -> ValueError | OSError | None:
    """The outermost error that the user can fix."""
    return next((one for one in _chain(error) if isinstance(one, ValueError | OSError)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _is_refusal(error: BaseException) -> bool:
    """Whether an error was raised by a ``raise`` of this library, and not by Python, as where values are unpacked."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    return PACKAGE in Path(code.co_filename).parents and code.co_code[trace.tb_lasti] == opmap["RAISE_VARARGS"]


def one_line(error: BaseException) -> str | None:
    """The line to show of an error that the user can fix; None for one that is ours."""
    text = None if (cause := _cause(error)) is None else str(cause) + ("" if _is_refusal(cause) else HINT)
    texts = [str(one) for one in _chain(error) if isinstance(one, RuntimeError)]
    if text is None and (found := [line for one in texts for line in WORKER_ERROR.findall(one)]):
        text = found[-1] + HINT  # the last one raised
    if text is None and runs_in_shell() and (weights := typed_value("ckpt_file")):  # MONAI's exports load it themselves
        try:
            load_state(weights)
        except (ValueError, OSError) as damage:
            text = str(damage)
    if text is None:
        text = next((one[:300] for one in texts if "loading state_dict" in one), None)
    if text is None:
        return None
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))


def show_one_line() -> None:
    """Show an error that the user can fix as one line, if this process is `python -m monai.bundle`.

    MONAI shows some 50 to 120 lines of its own calls. With TRCT_TRACEBACK=1 in the environment they stay.
    """
    if not runs_in_shell() or os.environ.get("TRCT_TRACEBACK") or sys.excepthook is _show:
        return
    sys.excepthook = _show
    logging.setLogRecordFactory(_record)


@contextmanager
def lines_in_log() -> Iterator[None]:
    """Let the log show such errors as one line each meanwhile, unless TRCT_TRACEBACK is in the environment."""
    before = logging.getLogRecordFactory()
    if not os.environ.get("TRCT_TRACEBACK"):
        logging.setLogRecordFactory(_record)
    try:
        yield
    finally:
        logging.setLogRecordFactory(before)


def _show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    text = one_line(error) if isinstance(error, Exception) else None
    if text is None:
        sys.__excepthook__(kind, error, trace)
    else:
        print(f"error: {text}", file=sys.stderr)


def _record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """A record of the log, with that line in place of a traceback."""
    record = logging.LogRecord(*args, **kwargs)
    record.msg = str(record.msg).split(WORKER_TRACE)[0]
    told = record.args if isinstance(record.args, tuple) else ()
    error = record.exc_info[1] if record.exc_info else next((one for one in told if isinstance(one, Exception)), None)
    if error is not None and (line := one_line(error)) is not None:
        record.msg, record.args, record.exc_info = line, (), None
    return record
