"""The mean of the training volumes as a file, beside which every method is scored."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from trct_monai import __version__
from trct_monai.baselines.mean_volume import MeanVolume
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import load_truth
from trct_monai.intensity import hu_to_unit, unit_to_hu
from trct_monai.io.files import write_json
from trct_monai.io.nifti import write_hu
from trct_monai.io.provenance import STAMP, digest_file, is_made_from, make_stamp

MEAN_VOLUME = "mean volume"
"""What it is called in tables."""


def check_name(name: str) -> None:
    """Refuse a method with the name of the mean volume, which has rows of its own.

    Raises:
        ValueError: If it has.
    """
    if name == MEAN_VOLUME:
        raise ValueError(f"name must not be {MEAN_VOLUME!r}, which stands beside every method; choose another")


def fit_mean_volume(options: EvaluationOptions, folder: Path) -> Path | None:
    """The mean of the training volumes as a NIfTI in HU, kept in a folder; None where the datalist has no such section.

    Args:
        options: Datalist, size and window.
        folder: Where the file is written.

    Raises:
        ValueError: If the training volumes have different sizes, and none is chosen.
    """
    cases = options.cases_to_learn_from("training")
    if not cases:
        return None
    stamp = make_stamp(
        {"training": [digest_file(case["label"]) for case in cases]},
        {"hu_window": options.hu_window, "size": options.size, "software": __version__},
    )
    path, record = folder / "mean_volume.nii.gz", folder / "mean_volume.json"
    if path.is_file() and is_made_from(record, stamp):
        return path
    first = load_truth(cases[0], options.size)

    def volumes() -> Iterator[Tensor]:
        for case in tqdm(cases, desc=MEAN_VOLUME, unit="case"):
            truth = load_truth(case, options.size)
            if truth.shape != first.shape:
                raise ValueError(f"{case['label']}: its size differs from {cases[0]['label']}; choose one with --size")
            yield hu_to_unit(truth.as_subclass(Tensor), options.hu_window)

    mean = unit_to_hu(MeanVolume(first.shape[-1]).fit(volumes()).volume[0, 0], options.hu_window)
    record.unlink(missing_ok=True)  # it belongs to the volume that is replaced
    write_hu(path, mean.numpy(), first.affine.numpy())
    write_json(record, {STAMP: stamp, "cases": len(cases)})
    return path
