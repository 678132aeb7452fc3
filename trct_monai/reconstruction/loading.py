"""A bundle's pieces and weights as a `Reconstructor`."""

from pathlib import Path

import torch
from monai.bundle import ConfigParser
from monai.engines.utils import default_prepare_batch

from trct_monai.bundles.errors import unwrapped
from trct_monai.bundles.find import bundle_files
from trct_monai.bundles.overlays import check_overlays
from trct_monai.io.provenance import digest_file
from trct_monai.io.weights import load_frozen, load_state
from trct_monai.networks import IntervalNetwork
from trct_monai.reconstruction.reconstructor import Reconstructor
from trct_monai.registration.chests.model import ChestModel
from trct_monai.training.inferers import TwoStageInferer
from trct_monai.transforms.save import UnitToHUd

CHEST = "chest.pt"
"""Beside weights: mean and principal components of chests; `benchmarks/chest_model.py` makes it."""


def load_reconstructor(method: str, device: str | torch.device = "cpu", size: int | None = None) -> Reconstructor:
    """A bundle's inference with its weights; with intervals, if the bundle has any.

    Args:
        method: BUNDLE[+OVERLAY...], such as any_view+small.
        device: Where it shall be.
        size: Voxels along each side: those of the bundle if None, or two or four times those of its network, if it has
            an overlay finer.json.

    Raises:
        FileNotFoundError: If there are no weights.
        ValueError: If the bundle has not that size, or weights are damaged.
    """
    name, (config, weights) = bundle_files(method)
    check_overlays(config)
    folder, parser, device = config[0].parent, ConfigParser(), torch.device(device)
    intervals, finer = folder / "intervals.json", folder / "finer.json"
    parser.read_config([str(path) for path in config])
    if "volume_size" not in parser.get():
        raise ValueError(f"bundle {name!r} makes no CT from radiographs; any_view does")
    own_size = int(parser["volume_size"])
    sizes = [own_size * factor for factor in (1, 2, 4)] if finer.is_file() else [own_size]
    if size is not None and size not in sizes:
        raise ValueError(f"size must be one of {', '.join(map(str, sizes))} for {name}, got {size}")
    overlays = [intervals] if intervals.is_file() else []
    overlays += [finer] if size is not None and size > own_size else []
    parser.read_config([str(path) for path in (*config, *overlays)])
    parser.update({"ckpt_path": str(weights), "device": device, "bundle_root": str(folder.parent)})
    if finer in overlays:
        parser["times"] = sizes.index(int(size or 0))
    chest = _chest_beside(weights, float(parser["extent"]))
    with unwrapped():
        network = parser.get_parsed_content("network")
        if not isinstance(network, IntervalNetwork):
            network = load_frozen(network, weights, device)
        inferer = parser.get_parsed_content("inferer")
        if isinstance(inferer, TwoStageInferer):  # whose weights a run of the bundle may load by a handler
            load_frozen(inferer.refiner, parser.get_parsed_content("refiner_path"), device)
        own_batches = "prepare_batch" in parser["evaluator"]
        return Reconstructor(
            name,
            digest_file(weights),
            parser.get_parsed_content("preprocessing"),
            parser.get_parsed_content("evaluator::prepare_batch") if own_batches else default_prepare_batch,
            network.eval(),
            inferer,
            UnitToHUd("pred", parser["hu_window"], float(parser["extent"])),
            {"enabled": parser.get_parsed_content("amp"), "dtype": parser.get_parsed_content("amp_dtype")},
            float(parser["extent"]),
            device,
            chest,
            digest_file(weights.with_name(CHEST)) if chest else None,
        )


def _chest_beside(weights: Path, extent: float) -> ChestModel | None:
    """The model of chests that comes with weights."""
    path = weights.with_name(CHEST)
    if not path.is_file():
        return None
    state = load_state(path)
    try:
        modes = state["modes"].float() * state["scale"].view(-1, 1, 1, 1, 1)
        model = ChestModel(state["mean"], modes, float(state["extent"]), state["hu_window"].tolist())
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no model of chests ({error}); benchmarks/chest_model.py makes one") from error
    if abs(model.extent - extent) > 1e-3 * extent:
        raise ValueError(f"{path} is of a cube of {model.extent:g} mm, the weights beside it of {extent:g} mm")
    return model
