"""`python -m trct_monai run` does what MONAI's command does, and refuses in one line what MONAI takes in silence."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.bundles.miniature import MINIATURE, RECONSTRUCTION, SIZES, Trained, assert_same_weights, load
from tests.bundles.processes import warm
from tests.bundles.sources import BUNDLES, COMMON, OWN_FILES, name, overlays, read
from trct_monai.bundles.find import bundle_folder, overlay_file
from trct_monai.bundles.keys import check_overlay_keys
from trct_monai.bundles.launcher import find_files
from trct_monai.bundles.overlays import GOES_AFTER, NOT_WITH, bases, check_overlays
from trct_monai.bundles.paths import kept
from trct_monai.commands import main

SMALL = [text for key, value in MINIATURE["direct_regression"].items() for text in (f"--{key}", str(value))]


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command ends with, which nothing that it would have done came before."""
    assert main(["run", *words]) == 2
    text = capsys.readouterr().err.strip()
    assert text.startswith("error: ") and "\n" not in text
    return text.removeprefix("error: ")


@pytest.mark.slow
def test_it_trains_to_the_bit_as_monais_command_does(trained: Trained, phantoms: Path, tmp_path: Path) -> None:
    """From another folder, with paths that MONAI's command cannot take."""
    paths = ["--datalist", str(phantoms), "--output_dir", "out#1", "--ckpt_path", "out#1/model.pt"]
    quick = ["--validate::named_handlers::pictures", "False"]
    warm("trct_monai", "run", "direct_regression+smoke", "training", *paths, *quick, *SMALL, cwd=tmp_path)
    ours, theirs = (
        load(folder / "resume" / "checkpoint.pt") for folder in (tmp_path / "out#1", trained(RECONSTRUCTION))
    )
    assert_same_weights(ours, theirs)
    sizes = [text for key, value in SIZES.items() for text in (f"--{key}", str(value))]
    paths[3] = "7"
    said = warm("trct_monai", "run", "direct_regression", *paths, *SMALL, *sizes, cwd=tmp_path)
    assert "wrote 2 reconstructions in HU to 7" in said and len(list((tmp_path / "7").glob("*.nii.gz"))) == 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["direct_regression", "training", "--epoch", "3"], "has no --epoch; did you mean --epochs?"),
        (["direct_regression", "training", "--zebra", "3"], "has no --zebra; its top-level keys are the flags"),
        (
            ["direct_regression", "training", "--train::trainer::max_epoch", "3"],
            "train::trainer of the configuration has no 'max_epoch'; did you mean --train::trainer::max_epochs?",
        ),
        (["direct_regression", "training", "--loss::weights::l2", "3"], "has no 'l2'; there are l1, ssim"),
        (["direct_regression", "training", "--loss::losses::0", "3"], "loss::losses of the configuration has no '0'"),
        (["direct_regression", "training", "--epochs::a", "3"], "epochs of the configuration has no 'a'"),
        (["direct_regression+smoke+small", "training"], "smoke.json goes after small.json; given were train.json"),
        (["direct_regression+small+small"], "small.json is there twice"),
        (["any_view+finer", "training"], "finer.json goes after inference.json, this is train"),
        (["any_view+finer+from_cts"], "from_cts.json goes after train.json, this is inference"),
        (["any_view+many_views+from_cts"], "from_cts.json does not go with many_views.json"),
        (["any_view+from_patients"], "from_patients.json goes after from_cts.json"),
        (["any_view+zebra"], "any_view has no overlay 'zebra'; there are baseline"),
        (["any_view+inference"], "any_view has no overlay 'inference'"),
        (["zebra"], "found no bundle 'zebra'"),
        (["any_view", "train"], "a bundle runs training or inference, got 'train'"),
        ([], "run takes bundle and perhaps task, then --key value"),
        (["any_view", "--epochs"], "run: --epochs needs a value"),
        (["any_view", "--epochs", "--views", "0"], "run: --epochs needs a value; write --epochs=VALUE"),
        (["direct_regression", "training", "--resume", "no"], "--resume is True or False, got 'no'"),
        (["direct_regression", "training", "--epochs", "two"], "--epochs is a number, such as 100, got 'two'"),
        (["direct_regression", "training", "--epochs", "1.5"], "--epochs is a whole number, such as 100, got 1.5"),
        (["direct_regression", "training", "--hu_window", "wide"], "--hu_window is a list, such as [-1024.0, 1476.0]"),
        (["direct_regression", "training", "--output_dir", ""], "--output_dir is empty; give a path"),
        (
            ["direct_regression", "training", "--train::handlers::0", "a"],
            "handlers have names here, such as train::named",
        ),
        (["direct_regression", "training", "--train.trainer.max_epochs", "3"], "write --train::trainer::max_epochs"),
        (["ct_phase_pix2pix+from_cts"], "do not go together: nothing is called "),
        (["direct_regresion"], "found no bundle 'direct_regresion' at "),
        (["direct_regresion"], "did you mean direct_regression, or give its folder (--bundle_root FOLDER)"),
        (["any_view", "--epochs", "3", "4"], "run: expected --key value, got '4'"),
        (["any_view", "--views", "0", "--views", "1"], "run: --views is given twice"),
        (["any_view", "--args_file", "a.json"], "--args_file is a flag of python -m monai.bundle run, not of this"),
    ],
)
def test_what_it_does_not_know_is_refused_before_anything_runs(
    words: list[str], expected: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_every_overlay_says_what_it_goes_after_and_what_it_says_exists() -> None:
    for bundle in BUNDLES:
        own = {path.stem: path for path in (bundle / "configs").glob("*.json") if path.name not in OWN_FILES}
        common = {path.stem: path for path in COMMON.glob("*.json")}
        for path in own.values():
            content = read(path)
            assert bases(path) and content[GOES_AFTER][0] in ("train", "inference", "train|inference"), path
            for entry in (*content[GOES_AFTER], *content.get(NOT_WITH, [])):
                for one in entry.removesuffix("?").split("|"):
                    assert one in {"train", "inference", *own, *common}, f"{path}: {one}"
    everywhere = {path.stem for bundle in BUNDLES for path in (bundle / "configs").glob("*.json")}
    for path in COMMON.glob("*.json"):
        content = read(path)
        for entry in (*content[GOES_AFTER], *content.get(NOT_WITH, [])):
            assert set(entry.removesuffix("?").split("|")) <= everywhere | {path.stem for path in COMMON.glob("*.json")}


def test_an_overlay_of_a_user_may_say_nothing_and_must_not_say_nonsense(tmp_path: Path) -> None:
    base = RECONSTRUCTION / "configs" / "train.json"
    mine = tmp_path / "mine.json"
    mine.write_text('{"epochs": 3}', encoding="utf-8")
    check_overlays([base, mine])
    assert bases(mine) == {"train", "inference"}
    for text, expected in (
        ('{"goes_after": "train"}', r'goes_after must be a list of names, such as \["train"\], got "train"'),
        ("[1]", "expected a JSON object, got list"),
        ('{"goes_after": ["small"]}', "mine.json goes after small.json; given were train.json, mine.json"),
    ):
        mine.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=expected):
            check_overlays([base, mine])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"epoch": 1}', "mine.json: the configuration neither has nor refers to epoch; did you mean --epochs?"),
        ('{"goes_atfer": ["small"]}', "mine.json: the configuration neither has nor refers to goes_atfer"),
        ('{"is_rank0": false}', "mine.json: the configuration neither has nor refers to is_rank0"),
        ('{"train::trainer::max_epoch": 1}', "has no 'max_epoch'; did you mean --train::trainer::max_epochs?"),
        ('{"train::sampler": null}', "train of the configuration has no 'sampler'"),
        ('{"train::handlers::0": {}}', "handlers have names here"),
        ('{"number": 2, "epochs": "@numbr"}', "do not go together: nothing is called numbr"),
    ],
)
def test_a_key_of_an_overlay_that_changes_nothing_is_refused(text: str, expected: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    files = [RECONSTRUCTION / "configs" / "train.json", mine]
    mine.write_text('{"_desc_": "mine", "+imports": [], "number": 2, "epochs": "@number"}', encoding="utf-8")
    (tmp_path / "a_list.json").write_text("[]", encoding="utf-8")  # what else lies there is not looked at
    check_overlay_keys(files)
    mine.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(expected)):
        check_overlay_keys(files)


def test_every_overlay_fits_its_bundle() -> None:
    for file in ("train.json", "inference.json"):
        for bundle, overlay in overlays(file):
            needed = [entry for entry in read(overlay)[GOES_AFTER][1:] if not entry.endswith("?")]
            check_overlay_keys([bundle / "configs" / file, *(overlay_file(bundle, one) for one in needed), overlay])


@pytest.mark.parametrize(
    ("spec", "task", "expected"),
    [
        ("any_view", "", ["inference.json"]),
        ("any_view+small", "", ["inference.json", "small.json"]),
        ("any_view+small", "training", ["train.json", "small.json"]),
        ("any_view+small+from_cts", "", ["train.json", "small.json", "from_cts.json"]),
        ("two_stage+small+stage1", "", ["inference.json", "small.json", "stage1.json"]),
        ("direct_regression+small+evaluate", "", ["train.json", "small.json", "evaluate.json"]),
        ("direct_regression+baseline", "", ["inference.json", "baseline.json"]),
    ],
)
def test_overlays_say_which_of_a_bundles_files_they_are_for(spec: str, task: str, expected: list[str]) -> None:
    root, overlays = bundle_folder(spec)
    assert [path.name for path in find_files(root, overlays, task)[1]] == expected


def test_a_bundle_elsewhere_has_the_common_overlays_too(tmp_path: Path) -> None:
    copy = Path(shutil.copytree(RECONSTRUCTION / "configs", tmp_path / "mine" / "configs")).parent
    assert overlay_file(copy, "small") == copy / "configs" / "small.json"
    assert overlay_file(copy, "evaluate") == COMMON / "evaluate.json"


@pytest.mark.slow
def test_inference_takes_ones_own_weights_before_those_that_come_with_the_bundle(
    phantoms: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a copy of the bundle, whose own folder it writes to."""
    copy = tmp_path / "mine"
    for part in ("configs", "models"):
        shutil.copytree(RECONSTRUCTION / part, copy / part, ignore=shutil.ignore_patterns("model.pt", "data", "output"))
    shutil.copyfile(RECONSTRUCTION / "models" / "small" / "model.pt", copy / "models" / "small" / "model.pt")
    flags = ["--datalist", str(phantoms), "--max_cases", "1", "--volume_size", "64", "--extent", "320"]
    assert main(["run", f"{copy}+small", *flags]) == 0
    assert f"weights: {copy / 'models' / 'small' / 'model.pt'}" in capsys.readouterr().out
    assert len(list((copy / "output" / "predictions").glob("*.nii.gz"))) == 1
    torch.save({}, copy / "models" / "model.pt")
    assert main(["run", f"{copy}+small", *flags]) == 2
    said = capsys.readouterr()
    assert f"weights: {copy / 'models' / 'model.pt'}" in said.out and "does not hold the weights of this" in said.err


def test_weights_that_are_not_there_are_not_announced(
    tmp_path: Path, phantoms: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RECONSTRUCTION / "configs", tmp_path / "mine" / "configs")
    assert main(["run", str(tmp_path / "mine"), "--datalist", str(phantoms)]) == 2
    said = capsys.readouterr()
    assert "weights: " not in said.out and "no trained model at" in said.err


@pytest.mark.parametrize("path", ["a#b", "a::b", "a'b#c", "#", 'x"#'])
def test_a_path_is_kept_by_an_expression_that_is_exactly_it(path: str) -> None:
    text = kept(path)
    assert text.startswith("$") and "#" not in text and "::" not in text and eval(text[1:]) == path
    assert kept([path, "plain"]) == [text, "plain"] and kept("$@a") == "$@a" and kept(3) == 3


@pytest.mark.parametrize("bundle", BUNDLES, ids=name)
def test_a_program_that_reads_a_bundle_finds_its_folder_by_its_name(bundle: Path) -> None:
    assert read(bundle / "configs" / "train.json")["bundle_root"]["name"] == bundle.name
    assert json.dumps(read(bundle / "configs" / "inference.json")).count(f'"name": "{bundle.name}"') >= 1
