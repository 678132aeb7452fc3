import subprocess
import sys

import pytest

from trct_monai import commands as cli


@pytest.mark.parametrize("flag", ["--input_dir", "--sise=3", "--no-such"])
def test_unknown_flags_are_refused_before_anything_runs(tmp_path, capsys, flag):
    assert cli.main(["phantoms", "--output", str(tmp_path / "out"), flag, "1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: phantoms has no --") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_near_misses_get_a_suggestion(capsys):
    assert cli.main(["phantoms", "--ouput", "x"]) == 2
    assert "did you mean output?" in capsys.readouterr().err
    assert cli.main(["prepar"]) == 2
    assert "no command 'prepar' (did you mean prepare?)" in capsys.readouterr().err


def test_missing_flags_and_wrong_values_are_one_line(tmp_path, capsys):
    assert cli.main(["prepare", "--input", "x"]) == 2
    assert "error: prepare needs --output; see prepare --help" in capsys.readouterr().err
    assert cli.main(["check", "--datalist", str(tmp_path / "gone.json")]) == 2
    assert "gone.json: no such datalist" in capsys.readouterr().err
    assert cli.main(["phantoms", "--output", str(tmp_path), "--count", "many"]) == 2
    assert "error: phantoms: --count must be int, got 'many'" in capsys.readouterr().err


def test_flags_are_read_as_their_types_say(monkeypatch, capsys):
    seen = []

    def command(output: str, size: int = 3, share: float = 0.5, table: bool = False, views: int | None = None) -> None:
        seen.append((output, size, share, table, views))

    monkeypatch.setattr(cli, "_load", lambda name: command)
    assert cli.main(["prepare", "--output", "007", "--share", "1", "--table", "--views=4"]) == 0
    assert cli.main(["prepare", "--output=-1,2", "--notable", "--views", "None"]) == 0
    assert cli.main(["prepare", "--output", "x", "--table", "false"]) == 0
    assert seen == [("007", 3, 1.0, True, 4), ("-1,2", 3, 0.5, False, None), ("x", 3, 0.5, False, None)]
    for flags, message in (
        (["--output", "x", "--table", "maybe"], "--table must be bool"),
        (["--output", "x", "y"], "takes --flags only, got 'y'"),
        (["x"], "takes --flags only, got 'x'"),
        (["--output", "x", "--share", "nan"], "--share must be a finite number, got 'nan'"),
        (["--output", "x", "--nosize"], "has no --nosize"),
    ):
        assert cli.main(["prepare", *flags]) == 2
        assert message in capsys.readouterr().err
    assert len(seen) == 3


def test_a_command_runs_with_its_flags(tmp_path, capsys):
    flags = ["--output", str(tmp_path), "--count=2", "--size", "12", "--radiograph-size", "24", "--split", "1/1/0"]
    assert cli.main(["phantoms", *flags, "--num_workers", "0"]) == 0
    assert f"wrote {tmp_path / 'datalist.json'}" in capsys.readouterr().out


def test_ctrl_c_is_no_traceback(monkeypatch, capsys):
    def interrupted(output: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_load", lambda name: interrupted)
    assert cli.main(["phantoms", "--output", "x"]) == 130
    assert "the same command goes on" in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_its_flags(name):
    import inspect

    command = cli._load(name)
    page = inspect.getdoc(command) or ""
    for parameter in inspect.signature(command).parameters.values():
        assert f"\n    {parameter.name}: " in page, f"{name} does not explain --{parameter.name}"
        assert parameter.annotation is not inspect.Parameter.empty


def test_help_shows_flags_and_defaults(capsys):
    assert cli.main(["prepare", "--output", "x", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "--input" in printed and "[required]" in printed and "[default measured]" in printed
    assert "Turn a folder of CTs" in printed


def test_the_overview_names_all_commands(repository):
    run = subprocess.run(
        [sys.executable, "-m", "trct_monai", "--help"], cwd=repository, capture_output=True, encoding="utf-8"
    )
    assert run.returncode == 0 and all(name in run.stdout for name in cli.COMMANDS)
