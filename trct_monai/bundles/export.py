"""`export`: one folder that holds all of a bundle: configuration, weights, TorchScript, documentation and our code."""

import json
import re
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

import monai.bundle
import torch
from monai.bundle import ConfigParser
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_torchscript

from trct_monai import __version__
from trct_monai.bundles.find import bundle_files, overlay_file
from trct_monai.bundles.keys import merged_config
from trct_monai.bundles.layout import layout
from trct_monai.bundles.overlays import GOES_AFTER, INFERENCE, NOT_WITH, TRAIN, bases, check_overlays
from trct_monai.io.files import read_json, replacing_folder, write_bytes, write_json, write_text
from trct_monai.io.locks import alone_at
from trct_monai.io.provenance import digest_file
from trct_monai.io.weights import CHECKSUMS, load_frozen, load_state, save_state, verify_checksum

PACKAGE = "trct_monai"

TRUSTED = ("monai", "torch", "ignite", PACKAGE)
"""Where a configuration's callables may come from without being named."""

COMPANIONS = ("intervals.pt", "chest.pt", "refiner")
"""What may lie beside weights and belongs to them."""

TOLERANCE = 1e-3
"""Largest difference in [0, 1] between PyTorch's result and that of TorchScript or ONNX."""

FROM_COMMON = {
    "evaluate.json": "evaluate",
    "multi_gpu.json": "multi_gpu",
    "multi_gpu_train.json": "multi_gpu",
}
"""Overlays of every bundle that go along, by their names in an export: ours, and those of MONAI's model zoo."""

TRACED_ONLY = (
    "by tracing alone (ckpt_export --use_trace True): torch.jit.script cannot compile a network that computes cameras, "
    "sizes or scales in Python"
)
"""What an export's metadata say of TorchScript, which the zoo's verification would make by a script."""

SIZES = ("radiograph_size", "size")
"""Names of the configuration's rows and columns of the network's input."""


def export(bundle: str, out: str, checkpoint: str | None = None, onnx: bool = False) -> None:
    """Make a bundle one self-contained folder, as a model zoo or MONAI Deploy takes it.

    Overlays are resolved into one inference.json and one train.json, metadata.json gets their sizes, model.pt comes
    with a traced model.ts, and our library with a list of the packages that it needs. The folder then runs anywhere:

        pip install -r OUT/requirements.txt
        python -m monai.bundle run --config_file OUT/configs/inference.json --datalist datalist.json

    Args:
        bundle: BUNDLE[+OVERLAY...], such as any_view+small.
        out: A new folder.
        checkpoint: Weights in place of those that come with the bundle.
        onnx: Write model.onnx as well (pip install 'trct-monai[export]').

    Raises:
        ValueError: If there is no such bundle, `out` is there already, weights are not those of the bundle, or a file
            to be copied is a link that leaves the bundle.
    """
    target = Path(out)
    if onnx and not all(find_spec(package) for package in ("onnx", "onnxruntime")):
        raise ValueError("onnx and onnxruntime are needed for --onnx: pip install 'trct-monai[export]'")
    name, (config, weights) = bundle_files(bundle, checkpoint)
    verify_checksum(weights)
    root = config[0].parent.parent
    _refuse_links(root, (*config, root / "LICENSE", root / "docs", root / "configs"))
    _refuse_links(weights.parent, [weights.with_name(name) for name in (*COMPANIONS, "README.md")])
    with alone_at(target), replacing_folder(target) as partial:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ValueError(f"{target} already exists; give --out a new folder")
        write_configs(config, partial / "configs")
        _copy_models(weights, partial / "models")
        _copy_documents(root, weights, partial)
        _copy_library(partial)
        for line in (*foreign_targets(partial / "configs"), *missing_files(partial)):
            print(f"note: {line}")
        _complete_metadata(partial)
        for kind, difference in _convert(partial, onnx):
            print(f"{kind} differs from PyTorch by {difference:.1e} at most")
        sums = [f"{digest_file(path)}  {path.name}\n" for path in sorted((partial / "models").glob("*.*"))]
        write_text(partial / "models" / CHECKSUMS, "".join(sums))
        write_text(partial / "docs" / "export.md", _readme(name, weights, partial / "configs"))
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    print(f"wrote {target} ({size / 2**20:.0f} MiB); {target / 'docs' / 'export.md'} says how to run it")


def _refuse_links(root: Path, copied: Iterable[Path]) -> None:
    """Refuse what is to be copied and lies elsewhere: the export of a stranger's bundle would take your file along."""
    for path in copied:
        for one in (path, *(path.rglob("*") if path.is_dir() else ())):
            if one.is_symlink() and not one.resolve().is_relative_to(root.resolve()):
                raise ValueError(f"{one} is a link to {one.resolve()}, which is not in {root}; put a copy in its place")


def write_configs(config: Sequence[Path], folder: Path) -> None:
    """Write inference.json and train.json with their overlays resolved, and the files beside them.

    MONAI looks for the bundle's own code only when it runs, not before: what `initialize` held goes to the head of
    `run`. The bundle gets a name of its own, so that nobody's program takes the original in its place.

    Args:
        config: inference.json and the overlays after it; one that goes after train.json alone is resolved there only.
        folder: Where to write.

    Raises:
        ValueError: If overlays are in a wrong order, or do not go together.
    """
    folder.mkdir(parents=True)
    source = config[0].parent
    for base in (INFERENCE, TRAIN):
        files = [source / f"{base}.json", *(path for path in config[1:] if base in bases(path))]
        check_overlays(files)
        resolved = merged_config(map(str, files))
        for key in ("_desc_", GOES_AFTER, NOT_WITH):
            resolved.pop(key, None)
        resolved["bundle_root"] = {
            "_target_": "trct_monai.bundles.find_bundle",
            "name": f"export of {source.parent.name}",
        }
        resolved["run"] = [*resolved.pop("initialize", []), *resolved["run"]]
        write_text(folder / f"{base}.json", layout(resolved))
    for name in ("metadata.json", "logging.conf"):
        shutil.copyfile(source / name, folder / name)
    for name in ("intervals.json", "finer.json"):  # what `reconstruct` adds to inference.json
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    for name, overlay in FROM_COMMON.items():
        shutil.copyfile(overlay_file(source.parent, overlay), folder / name)


def foreign_targets(folder: Path) -> Iterator[str]:
    """A line for each `_target_` of the configurations that is not of `TRUSTED`.

    A configuration is code: expressions, which begin with a dollar sign, may call anything and are not looked at.
    """
    for path in sorted(folder.glob("*.json")):
        for target in sorted(set(_targets(_load(path)))):
            if "." in target and target.split(".")[0] not in TRUSTED:
                yield f"{path.name} calls {target}"


def _targets(content: Any) -> Iterable[str]:
    if isinstance(content, dict):
        own = [content["_target_"]] if isinstance(content.get("_target_"), str) else []
        return [*own, *(target for value in content.values() for target in _targets(value))]
    return [target for value in content for target in _targets(value)] if isinstance(content, list) else []


def _copy_models(weights: Path, folder: Path) -> None:
    """The weights, for a CPU, and what belongs to them: intervals, a refiner."""
    folder.mkdir()
    for name in COMPANIONS:
        companion = weights.with_name(name)
        if companion.is_dir():
            shutil.copytree(companion, folder / name)
        elif companion.is_file():
            verify_checksum(companion)
            shutil.copyfile(companion, folder / name)
    save_state(folder / "model.pt", load_state(weights))


def missing_files(folder: Path) -> Iterator[str]:
    """A line for each file of the bundle's models that the configuration names and that is not there."""
    config = _parser(folder)
    for key in [key for key in config.get() if key.endswith("_path")]:
        path = config.get_parsed_content(key)
        if isinstance(path, str) and Path(path).is_relative_to(folder / "models") and not Path(path).exists():
            place = Path(path).relative_to(folder)
            yield f"{key} names {place}, which does not lie beside the weights; put it there if it is to be used"


def _copy_documents(root: Path, weights: Path, folder: Path) -> None:
    shutil.copyfile(root / "LICENSE", folder / "LICENSE")
    shutil.copytree(root / "docs", folder / "docs")
    card = weights.with_name("README.md")
    if card.is_file():
        shutil.copyfile(card, folder / "docs" / "model_card.md")


def _copy_library(folder: Path) -> None:
    """Our code, and the packages that it needs."""
    here = Path(__file__).parents[1]
    shutil.copytree(here, folder / PACKAGE, ignore=_no_code)
    try:
        lines = requires(PACKAGE) or []
    except PackageNotFoundError as error:
        raise ValueError("trct_monai is not installed, so its requirements are not known: pip install it") from error
    needed = [line for line in lines if "extra ==" not in line]
    write_text(folder / "requirements.txt", "\n".join(needed) + "\n")


def _no_code(place: str, names: list[str]) -> list[str]:
    """What of the library's folders is not copied: compiled files, and the bundles that a wheel brings."""
    return [name for name in names if name in ("__pycache__", "common") or Path(place, name, "configs").is_dir()]


def _complete_metadata(folder: Path) -> None:
    """Give the metadata the sizes of this configuration's network, and say how TorchScript is made of it."""
    path = folder / "configs" / "metadata.json"
    metadata, config = _load(path), _parser(folder)
    size = next((int(config[name]) for name in SIZES if name in config), None)
    formats = metadata["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    image["spatial_shape"] = [size or n for n in image["spatial_shape"]]
    network = load_frozen(config.get_parsed_content("network_def"), str(folder / "models" / "model.pt"))
    with torch.no_grad():
        result = network(torch.zeros(1, image["num_channels"], *image["spatial_shape"]))
    pred["spatial_shape"] = list(result.shape[2:])
    metadata.setdefault("torchscript", TRACED_ONLY)
    write_json(path, metadata, indent=4)


def _convert(folder: Path, onnx: bool) -> Iterator[tuple[str, float]]:
    """Write model.ts and model.onnx, and compare what they give with PyTorch.

    Yields:
        Name of the file, and the largest difference.

    Raises:
        ValueError: If it is larger than `TOLERANCE`.
    """
    configs, models = folder / "configs", folder / "models"
    metadata = _load(configs / "metadata.json")
    image = metadata["network_data_format"]["inputs"]["image"]
    shape = [1, image["num_channels"], *image["spatial_shape"]]
    paths = {"config_file": str(configs / "inference.json"), "meta_file": str(configs / "metadata.json")}
    paths["ckpt_file"] = str(models / "model.pt")
    options = {"net_id": "network_def", "use_trace": True, "input_shape": shape, "bundle_root": str(folder)}
    network = load_frozen(_parser(folder).get_parsed_content("network_def"), paths["ckpt_file"])
    # As MONAI's ckpt_export does, but PyTorch ends the process where it writes to a full disk itself.
    script = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that sizes and geometry become constants, and that other exporters are newer
        traced = convert_to_torchscript(network, inputs=[torch.rand(shape)], use_trace=True)
        contents = {"inference.json": json.dumps(_load(configs / "inference.json")).encode()}
        save_net_with_metadata(traced, script, False, meta_values=metadata, more_extra_files=contents)
        write_bytes(models / "model.ts", script.getvalue())
        if onnx:
            # The exporter by torch.export cannot follow geometry that is computed in Python.
            by_trace = {"converter_kwargs": {"dynamo": False}}
            monai.bundle.onnx_export(filepath=str(models / "model.onnx"), **by_trace, **paths, **options)
    low, high = image["value_range"]
    radiographs = low + (high - low) * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(radiographs)
        traced = torch.jit.load(models / "model.ts")(radiographs)  # type: ignore[no-untyped-call]
    results = {"model.ts": traced, **({"model.onnx": run_onnx(models / "model.onnx", radiographs)} if onnx else {})}
    for name, result in results.items():
        difference = float((result - expected).abs().max())
        if not difference <= TOLERANCE:
            raise ValueError(f"{name} differs from PyTorch by {difference:.1e}, more than {TOLERANCE:.0e}")
        yield name, difference


def run_onnx(path: Path, image: torch.Tensor) -> torch.Tensor:
    """The result of an ONNX file for one input."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return torch.from_numpy(result)


def _parser(folder: Path) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    return parser


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(path)
    return content


def _readme(name: str, weights: Path, configs: Path) -> str:
    return re.sub(
        r"^        ",
        "",
        f"""\
        # {name}, exported

        By trct_monai {__version__}, from weights with the SHA-256 {digest_file(weights)}. Research software, not a
        medical device. A configuration is code: run it as you would run a program.

            pip install -r requirements.txt
            python -m monai.bundle run --config_file configs/inference.json --datalist DATALIST.json
            python -m monai.bundle run training --config_file configs/train.json --datalist DATALIST.json

        from any folder, with the paths of these files. MONAI's other commands (`verify_net_in_out`, `ckpt_export`,
        `onnx_export`) run from this folder, or with it on `PYTHONPATH`. `trct_monai/` is the library that the
        configuration calls; `python -m trct_monai --help`, run here, lists its commands.

        `configs/evaluate.json` scores a checkpoint and `configs/multi_gpu_train.json` (the same file as
        `multi_gpu.json`) trains in several processes under torchrun: each goes after `train.json`, with this folder on
        `PYTHONPATH`.

        **TorchScript** is made {_load(configs / "metadata.json")["torchscript"]}.
        `models/model.ts` is such a trace, for the sizes of `configs/metadata.json` and the cameras of the
        configuration. The verification of MONAI's model zoo calls `torch.jit.script`, unless the bundle's name is in
        `exclude_verify_torchscript_list` of the zoo's `ci/bundle_custom_data.py`.
        """,
        flags=re.MULTILINE,
    )
