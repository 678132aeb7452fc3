"""`python -m trct_monai COMMAND`: the commands, and how their errors are shown.

A command is a plain function with typed keyword arguments; its docstring is its help. It raises ValueError or an
OSError for what the user can fix, which is shown as one line. To add one, add its line to `COMMANDS`.
"""

import functools
import importlib
import inspect
import os
import re
import sys
import textwrap
import typing
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import TextIOWrapper
from math import isfinite
from typing import Any

import fire

from trct_monai.arguments import suggestion

COMMANDS: dict[str, tuple[str, str]] = {
    # name: module and function, and what stands in the list of commands
    "phantoms": ("datasets.phantom_sets:phantoms", "make thorax phantoms with radiographs, no download needed"),
    "fetch": ("datasets.fetch:fetch", "bring public chest CTs by name, with licences and the published split"),
    "prepare": ("datasets.prepare:prepare", "turn CTs (DICOM, NIfTI, MetaImage, NRRD, X2CT) into cases"),
    "split": ("datasets.split:split", "split cases into training, validation and test by patient"),
    "check": ("datasets.check:check", "verify a datalist and its files, and draw a picture of the cases"),
    "plant": ("datasets.plant:plant", "plant spheres in CTs and radiographs, to see which a method shows"),
    "evaluate": ("evaluation.evaluate:evaluate", "score predicted CTs by every protocol, beside the mean volume"),
    "leaderboard": ("evaluation.leaderboard:leaderboard", "compare methods and baselines on one datalist in one table"),
    "reconstruct": ("reconstruction.command:reconstruct", "make a CT with intervals from your radiographs"),
    "run": ("bundles.launcher:run", "train a bundle with its overlays, or run its inference, every key checked"),
    "new_bundle": ("bundles.new:new_bundle", "make the folder of a new method from one JSON with what is its own"),
    "export": ("bundles.export:export", "make a bundle one folder that runs anywhere, with TorchScript and ONNX"),
    "report": ("evaluation.report.command:report", "write an evaluation as one HTML page with a viewer for every case"),
}

USER_ERROR, INTERRUPTED = 2, 130

FLAG = re.compile(r"--[A-Za-z_]")
"""How a flag begins."""

_NO_FLAG = inspect.Parameter("none", inspect.Parameter.KEYWORD_ONLY)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The command's name and its flags; those of the process if None.

    Returns:
        0; 2 for an error that the user can fix; 130 after Ctrl-C.
    """
    for stream in (sys.stdout, sys.stderr):  # a name in a script that the terminal lacks must not end the run
        if isinstance(stream, TextIOWrapper):
            with suppress(OSError):  # of a stream that others write to as well
                stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    name, *flags = arguments
    if name not in COMMANDS:
        return _fail(f"no command {name!r}{suggestion(name, COMMANDS)}; the commands are {', '.join(COMMANDS)}")
    try:
        command = _load(name)
        if "--help" in flags or "-h" in flags:
            print(_help(name, command))
            return 0
        if _takes_any_key(command):
            words, keys = _split_words(name, command, flags)
            command(*words, **keys)
        else:
            _check_flags(name, command, flags)
            fire.Fire(_with_types(name, command), command=flags, name=f"python -m trct_monai {name}")
    except KeyboardInterrupt:
        print("interrupted: what is complete stays, the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as error:
        if os.environ.get("TRCT_TRACEBACK"):
            raise
        return _fail(" ".join(str(error).split()))
    return 0


def _takes_any_key(command: Callable[..., Any]) -> bool:
    """Whether a command looks at its flags itself, as `run` does, whose flags are the keys of a configuration."""
    return any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(command).parameters.values())


def _split_words(name: str, command: Callable[..., Any], flags: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words before the first flag, and what stands after each flag, as text."""
    known = [
        key
        for key, one in inspect.signature(command).parameters.items()
        if one.kind is inspect.Parameter.POSITIONAL_ONLY
    ]
    number = next((place for place, flag in enumerate(flags) if flag.startswith("--")), len(flags))
    words, rest, keys = list(flags[:number]), list(flags[number:]), dict[str, str]()
    if not 0 < len(words) <= len(known):
        raise ValueError(f"{name} takes {known[0]} and perhaps {known[1]}, then --key value; see {name} --help")
    while rest:
        key, equals, value = rest.pop(0).partition("=")
        if not key.startswith("--") or len(key) < 3:
            raise ValueError(
                f"{name}: expected --key value, got {key!r}; put quotation marks around a value with spaces"
            )
        if not equals:
            if not rest or FLAG.match(rest[0]):
                raise ValueError(f"{name}: {key} needs a value; write {key}=VALUE for one that begins with dashes")
            value = rest.pop(0)
        if key[2:] in keys:
            raise ValueError(f"{name}: {key} is given twice")
        keys[key[2:]] = value
    return words, keys


def _check_flags(name: str, command: Callable[..., Any], flags: Sequence[str]) -> None:
    """Refuse unknown and missing flags before anything runs: fire would run the command first."""
    known = inspect.signature(command).parameters
    given: set[str] = set()
    value_may_follow = False
    for flag in flags:
        if flag.startswith("--"):
            key = flag[2:].split("=")[0].replace("-", "_")
            if key not in known and not (key.startswith("no") and known.get(key[2:], _NO_FLAG).annotation is bool):
                raise ValueError(f"{name} has no --{key}{suggestion(key, known)}; see {name} --help")
            given.add(key)
            value_may_follow = "=" not in flag
        elif value_may_follow:
            value_may_follow = False
        else:
            raise ValueError(f"{name} takes --flags only, got {flag!r}; see {name} --help")
    missing = [k for k, value in known.items() if value.default is inspect.Parameter.empty and k not in given]
    if missing:
        raise ValueError(f"{name} needs {' and '.join(f'--{key}' for key in missing)}; see {name} --help")


def _with_types(name: str, command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with its flags read as their annotations say: fire would turn names into numbers, false into text."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        command(*args, **kwargs)

    hints = typing.get_type_hints(command)
    readers = {key: _reader(name, key, hint) for key, hint in hints.items() if key != "return"}
    return typing.cast(Callable[..., Any], fire.decorators.SetParseFns(**readers)(run))


def _reader(name: str, key: str, hint: Any) -> Callable[[str], Any]:
    """What turns a flag's text into a value of a type, such as int or str | None."""
    kinds = set(typing.get_args(hint)) or {hint}

    def read(text: str) -> Any:
        if text == "None" and type(None) in kinds:
            return None
        if str in kinds:
            return text
        if bool in kinds and text.lower() in ("true", "false"):
            return text.lower() == "true"
        for kind in (int, float):
            if kind in kinds:
                try:
                    value = kind(text)
                except ValueError:
                    continue
                if not isfinite(value):
                    raise ValueError(f"{name}: --{key} must be a finite number, got {text!r}")
                return value
        wanted = " or ".join(sorted(kind.__name__ for kind in kinds if kind is not type(None)))
        raise ValueError(f"{name}: --{key} must be {wanted}, got {text!r}")

    return read


def _load(name: str) -> Callable[..., Any]:
    module, _, function = COMMANDS[name][0].partition(":")
    command: Callable[..., Any] = getattr(importlib.import_module(f"trct_monai.{module}"), function)
    return command


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        ["python -m trct_monai COMMAND [--flag value ...]", "", *lines, "", "COMMAND --help explains the flags."]
    )


def _help(name: str, command: Callable[..., Any]) -> str:
    """The command's docstring with the defaults of its flags."""
    page = fire.docstrings.parse(inspect.getdoc(command) or "")
    explained = {argument.name: argument.description for argument in page.args or ()}
    parameters = inspect.signature(command).parameters.items()
    words = "".join(f"{key.upper()} " for key, one in parameters if one.kind is inspect.Parameter.POSITIONAL_ONLY)
    lines = [f"python -m trct_monai {name} {words}[--flag value ...]", "", page.summary or ""]
    lines += ["", textwrap.fill(page.description, 100)] if page.description else []
    lines += [""]
    for key, value in parameters:
        required = value.default is inspect.Parameter.empty
        default = "required" if required else "default none" if value.default == "" else f"default {value.default}"
        shown = key.upper() if value.kind is value.POSITIONAL_ONLY else f"--{key}"
        text = f"{' '.join(explained.get(key, '').split())} [{default}]"
        if value.kind is value.VAR_KEYWORD:
            shown, text = "--KEY VALUE", explained.get(key, "")
        lines.append(textwrap.fill(f"  {shown:<20} {text}", 100, subsequent_indent=" " * 23))
    return "\n".join(lines)


def _fail(message: str) -> int:
    # A name may hold what a terminal obeys.
    print("error: " + "".join(letter if letter.isprintable() else "?" for letter in message), file=sys.stderr)
    return USER_ERROR
