"""Files that went wrong, 500 times: every command is right, or says in one line what is wrong, and leaves nothing half.

Right means: what it gives is what an intact file gives, but for the few voxels whose numbers were changed.
"""

import json
import random
import re
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import itk
import nibabel
import numpy as np
import pytest
import torch

from tests.field.inputs import Ran, prepare, run, write_enhanced, write_series
from tests.files import save_nifti
from tests.robustness.commands import contents
from tests.robustness.corruption import KINDS
from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.geometry import preset
from trct_monai.io.datalist import SECTIONS, load_datalist
from trct_monai.io.files import read_csv, write_picture
from trct_monai.io.nifti import read_nifti
from trct_monai.phantoms import Phantom
from trct_monai.projector import project_hu

pytestmark = pytest.mark.slow

FLAGS = {"size": 16, "radiograph_size": 16}

MAX_CHANGED = 0.03
"""Share of voxels that may differ: those that were changed in a file without a checksum."""

SECONDS = 600
"""No command hangs for so long."""


@dataclass
class Target:
    """Something that a command reads.

    Attributes:
        make: Writes the files to a folder.
        command: Runs it on that folder.
        check: Whether what came out is right; given the outcome and that of intact files.
    """

    make: Callable[[Path], None]
    command: Callable[[Path], Ran]
    check: Callable[[Ran, Ran], None]


@contextmanager
def in_time() -> Iterator[None]:
    """Fail where something hangs."""

    def late(*_: object) -> None:
        raise AssertionError(f"still running after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def same_labels(ran: Ran, intact: Ran) -> None:
    """Every case that was made is one of the intact ones."""
    expected = list(intact.labels().values())
    for name, label in ran.labels().items():
        changed = [float((np.abs(label - other) > 2).mean()) for other in expected if other.shape == label.shape]
        assert changed and min(changed) <= MAX_CHANGED, (name, changed)


def said_so(ran: Ran, intact: Ran) -> None:
    """Nothing can be compared: that it ran is enough."""


def same_rows(name: str) -> Callable[[Ran, Ran], None]:
    """Every line of a table is one of the intact ones, but for what was changed in a file without a checksum."""

    def check(ran: Ran, intact: Ran) -> None:
        rows, expected = (read_csv(one.output / name) for one in (ran, intact))
        assert [row["case_id" if "case_id" in row else "method"] for row in rows]
        assert len(rows) == len(expected) and list(rows[0]) == list(expected[0])
        for row, other in zip(rows, expected):
            for key, value in row.items():
                if key.startswith("hu.") and "ci" not in key:
                    assert float(value) == pytest.approx(float(other[key]), rel=0.1), key

    return check


def same_cases(ran: Ran, intact: Ran) -> None:
    """The data set has the cases of the intact one, in the same sections."""
    contents = [json.loads((one.output / "datalist.json").read_text(encoding="utf-8")) for one in (ran, intact)]
    got, expected = ({name: [case["case_id"] for case in content[name]] for name in SECTIONS} for content in contents)
    assert got == expected


def same_size(ran: Ran, intact: Ran) -> None:
    """A report of as many cases."""
    assert re.findall(r"\((\d+) cases", ran.text) == re.findall(r"\((\d+) cases", intact.text)


def ct_target(write: Callable[[Path, Phantom], None], phantom: Phantom) -> Target:
    return Target(lambda folder: write(folder, phantom), lambda folder: prepare(folder, **FLAGS), same_labels)


def write_h5(folder: Path, phantom: Phantom) -> None:
    with h5py.File(folder / "ct_xray_data.h5", "w") as file:
        file["ct"] = (phantom.ct_hu[::-1, ::-1].T + 1024).round().astype(np.int16)
        views = project_hu(torch.from_numpy(phantom.ct_hu)[None], preset("x2ct", 32), 8.0)
        file["xray1"], file["xray2"] = (view.numpy() for view in views)
        file["ori_size"], file["spacing"] = 320, [1.0, 1.0, 1.0]


def write_itk(name: str) -> Callable[[Path, Phantom], None]:
    def write(folder: Path, phantom: Phantom) -> None:
        image = itk.image_from_array(np.ascontiguousarray(phantom.ct_hu[::-1, ::-1].T.astype(np.int16)))
        image.SetSpacing([8.0, 8.0, 8.0])
        image.SetOrigin([-156.0, -156.0, -156.0])
        itk.imwrite(image, str(folder / name), compression=False)

    return write


def write_pictures(folder: Path, phantom: Phantom) -> None:
    """A CT with its two radiographs."""
    save_nifti(folder / "p" / "p.nii.gz", phantom.ct_hu.astype(np.int16), phantom.affine)
    for view, image in zip(("pa", "lat"), project_hu(torch.from_numpy(phantom.ct_hu)[None], preset("x2ct", 64), 8.0)):
        write_picture(folder / "p" / f"p_{view}.png", (image / image.max() * 65535).round().numpy().astype(np.uint16))


def ct_targets(phantom: Phantom) -> dict[str, Target]:
    small = phantom.ct_hu.round().astype(np.int16)
    writers: dict[str, Callable[[Path, Phantom], None]] = {
        "nii": lambda folder, p: save_nifti(folder / "a.nii", small, p.affine),
        "nii.gz": lambda folder, p: save_nifti(folder / "a.nii.gz", small, p.affine),
        "hdr": lambda folder, p: nibabel.save(nibabel.Nifti1Pair(small, p.affine), folder / "a.hdr"),
        "mha": write_itk("a.mha"),
        "mhd": write_itk("a.mhd"),
        "nrrd": write_itk("a.nrrd"),
        "h5": write_h5,
        "series": lambda folder, p: (write_series(folder, p.ct_hu, p.affine), None)[1],
        "enhanced": lambda folder, p: (write_enhanced(folder / "e.dcm", p.ct_hu, p.affine), None)[1],
        "radiographs": write_pictures,
    }
    return {name: ct_target(write, phantom) for name, write in writers.items()}


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def check_nothing_half(folder: Path) -> None:
    """No temporary file stays, and no case without its record."""
    assert not [path for path in folder.rglob("*.partial")]
    for record in folder.rglob("case.json"):
        case = json.loads(record.read_text(encoding="utf-8"))["case"]
        assert all((record.parent / name).is_file() for name in case["sha256"])


def corrupt(target: Target, intact: Ran, place: Path, seed: str) -> str:
    """One trial: what was done to which file, and what came of it."""
    rng = random.Random(seed)
    folder = place / "in"
    folder.mkdir(parents=True)
    target.make(folder)
    files = files_of(folder)
    path, kind = rng.choice(files), rng.choice(list(KINDS))
    KINDS[kind](path, [other for other in files if other != path], rng)
    trial = f"{seed}: {path.relative_to(folder)}, {kind}"
    before = contents(folder)
    with in_time(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            ran = target.command(folder)
        except BaseException as error:
            raise AssertionError(trial) from error
    assert contents(folder) == before, trial
    assert {path.name for path in place.iterdir()} <= {"in", "in_out"}, trial
    check_nothing_half(place / "in_out")
    if ran.code == 0:
        try:
            target.check(ran, intact)
        except Exception as error:
            raise AssertionError(f"{trial}\n{ran.text[-2000:]}") from error
    return f"{trial}: {'right' if ran.code == 0 else ran.error}"


def try_all(target: Target, intact: Ran, place: Path, name: str, count: int) -> None:
    """So many trials; those that went wrong are listed together."""
    wrong = []
    for number in range(count):
        try:
            print(corrupt(target, intact, place / str(number), f"{name} {number}"))
        except AssertionError as error:
            wrong.append(f"{error} ({error.__cause__!r})")
        shutil.rmtree(place / str(number))
    assert not wrong, "\n\n".join(wrong)


CTS = ("nii", "nii.gz", "hdr", "mha", "mhd", "nrrd", "h5", "series", "enhanced", "radiographs")


@pytest.mark.parametrize("name", CTS)
def test_prepare_of_damaged_files_is_right_or_one_line(name: str, phantom: Phantom, tmp_path: Path) -> None:
    target = ct_targets(phantom)[name]
    (tmp_path / "intact").mkdir()
    target.make(tmp_path / "intact")
    intact = target.command(tmp_path / "intact")
    assert intact.code == 0, intact.text
    try_all(target, intact, tmp_path, name, 28)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms, with predictions of the test cases and their scores."""
    folder = tmp_path_factory.mktemp("data") / "in"
    make_phantoms(str(folder), size=16, radiograph_size=16, split="2/1/2", num_workers=0)
    (folder / "predictions").mkdir()
    for case in load_datalist(folder / "datalist.json", "test"):
        truth = read_nifti(case["label"])
        shifted = truth.values + np.random.default_rng(0).normal(0, 40, truth.values.shape)
        save_nifti(folder / "predictions" / f"{case['case_id']}.nii.gz", shifted.astype(np.float32), truth.affine)
    datalist = folder / "datalist.json"
    run("evaluate", folder, predictions=folder / "predictions", datalist=datalist, output=folder / "scores", figures=0,
        num_workers=1)  # fmt: skip
    return folder


def commands() -> dict[str, tuple[Callable[[Path], Ran], Callable[[Ran, Ran], None]]]:
    """Commands that read a data set, and what is right of their outcome."""

    def out(folder: Path) -> Path:
        return folder.parent / "in_out"

    return {
        "check": (
            lambda f: run("check", out(f), datalist=f / "datalist.json", picture=out(f) / "check.png", num_pictures=1),
            said_so,
        ),
        "split": (lambda f: run("split", out(f), data=f, output=out(f) / "datalist.json"), same_cases),
        "plant": (
            lambda f: run("plant", out(f), datalist=f / "datalist.json", output=out(f), diameters="40", contrasts="500",
                cases=1, num_workers=1),
            same_cases,
        ),
        "evaluate": (
            lambda f: run("evaluate", out(f), predictions=f / "predictions", datalist=f / "datalist.json",
                output=out(f), figures=0, num_workers=1),
            same_rows("cases.csv"),
        ),
        "leaderboard": (
            lambda f: run("leaderboard", out(f), datalist=f / "datalist.json", output=out(f),
                baselines="mean_volume,nearest_neighbour", num_workers=1),
            same_rows("leaderboard.csv"),
        ),
        "report": (lambda f: run("report", out(f), evaluation=f / "scores", output=out(f) / "r.html"), same_size),
    }  # fmt: skip


NUMBERS = {"check": 50, "split": 30, "plant": 20, "evaluate": 70, "leaderboard": 20, "report": 30}
"""Trials of each command."""


@pytest.mark.parametrize("name", NUMBERS)
def test_commands_on_damaged_data_are_right_or_one_line(name: str, data: Path, tmp_path: Path) -> None:
    command, check = commands()[name]

    def copy(folder: Path) -> None:
        shutil.copytree(data, folder, dirs_exist_ok=True)

    copy(tmp_path / "intact")
    target = Target(copy, command, check)
    intact = command(tmp_path / "intact")
    assert intact.code == 0, intact.text
    try_all(target, intact, tmp_path, name, NUMBERS[name])
