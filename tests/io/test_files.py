"""A file is written whole or not at all, and what cannot be read is named in one line."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from trct_monai.io.files import (
    WriteError,
    naming_the_disk,
    read_csv,
    read_json,
    read_text,
    remove_partial,
    replacing,
    replacing_folder,
    write_array,
    write_bytes,
    write_csv,
    write_json,
    write_picture,
    write_text,
)
from trct_monai.io.nifti import write_hu
from trct_monai.io.weights import save_state

DEAD = 2**22 + 1
"""The number of a process that cannot be: Linux gives none above 2**22."""

WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda path: write_bytes(path, b"new"),
    "text": lambda path: write_text(path, "new"),
    "json": lambda path: write_json(path, {"new": 1}),
    "csv": lambda path: write_csv(path, [{"new": 1}]),
    "picture": lambda path: write_picture(path, np.zeros((2, 2), dtype=np.uint8)),
    "array": lambda path: write_array(path, np.zeros(2)),
    "nifti": lambda path: write_hu(path, np.zeros((2, 2, 2)), np.eye(4)),
    "weights": lambda path: save_state(path, {}),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_write_that_fails_leaves_the_old_file(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "a.nii"
    WRITERS[kind](path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", full)
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        WRITERS[kind](path)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(KeyError), replacing(path) as partial:
        partial.write_text("half of it", encoding="utf-8")
        raise KeyError
    assert read_text(path) == "old" and list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    for number in (1, 2):
        with replacing_folder(tmp_path / "case") as partial:
            write_text(partial / f"{number}.txt", str(number))
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["2.txt"]
    with pytest.raises(KeyError), replacing_folder(tmp_path / "case") as partial:
        write_text(partial / "3.txt", "3")
        raise KeyError
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["2.txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "case" / "old.txt", "old")
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if target == tmp_path / "case" and not path.name.endswith(".stale.partial"):
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="No space left"), replacing_folder(tmp_path / "case") as partial:
        write_text(partial / "new.txt", "new")
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["old.txt"]
    (tmp_path / "case").rename(tmp_path / f".case.{DEAD}.stale.partial")  # as after a kill between the two
    remove_partial(tmp_path, ["case"])
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_what_killed_runs_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / f".a.{DEAD}.partial").mkdir()
    (tmp_path / f".a.{DEAD}.stale.partial").mkdir()
    (tmp_path / "a").mkdir()
    lives = f".a.{os.getppid()}.partial"
    for name in (f".b.nii.{DEAD}.partial", f".c.{DEAD}.partial", lives):
        (tmp_path / name).touch()
    remove_partial(tmp_path, ["a", "b.nii"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f".c.{DEAD}.partial", lives, "a"])
    write_text(tmp_path / "c", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([lives, "a", "c"])


def test_a_folder_is_listed_once_however_many_files_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    glob, listed = Path.glob, []

    def counted(path: Path, pattern: str) -> Iterator[Path]:
        listed.append(path)
        return glob(path, pattern)

    monkeypatch.setattr(Path, "glob", counted)
    for number in range(3):
        write_text(tmp_path / str(number), "new")
    assert listed == [tmp_path]


def test_the_disk_is_asked_about_an_error_that_does_not_say_and_nothing_stays(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RuntimeError, match="^not the disk's$"), naming_the_disk(tmp_path):
            raise RuntimeError("not the disk's")
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_mount_of_its_own_is_the_disk_that_is_named() -> None:
    mounts = [folder for folder in map(Path, ("/dev/shm", "/dev", "/proc")) if os.path.ismount(folder)]
    if not mounts:
        pytest.skip("nothing is mounted here but the root")
    with pytest.raises(WriteError, match=f"are free on {mounts[0]};"), naming_the_disk(mounts[0]):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_json_holds_names_in_any_script_and_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"Jörg 山田": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"Jörg 山田": [1, 2.5, None]}
    assert "山田" in read_text(tmp_path / "a.json")
    with pytest.raises(ValueError, match="a.json: .*not JSON compliant.*nothing was written"):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert read_json(tmp_path / "a.json") == {"Jörg 山田": [1, 2.5, None]}


def test_tables_come_back_with_every_column(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"a": 1}, {"b": 'two, "quoted"\nlines'}])
    assert read_csv(tmp_path / "a.csv") == [{"a": "1", "b": ""}, {"a": "", "b": 'two, "quoted"\nlines'}]
    write_csv(tmp_path / "b.csv", [{"b": 1, "a": 2}], columns=["a", "b"])
    assert read_text(tmp_path / "b.csv").splitlines() == ["a,b", "2,1"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="gone.json: no such file"):
        read_json(tmp_path / "gone.json")
    (tmp_path / "cut.json").write_text('{"a": 1', encoding="utf-8")
    with pytest.raises(ValueError, match="cut.json: not JSON"):
        read_json(tmp_path / "cut.json")
    (tmp_path / "list.txt").write_text("patient\n", encoding="utf-16")
    with pytest.raises(ValueError, match="list.txt: not text in UTF-8 .*; save it as UTF-8"):
        read_text(tmp_path / "list.txt")
