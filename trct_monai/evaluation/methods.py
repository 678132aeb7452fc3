"""Run a baseline or a bundle on a section, unless its predictions are there."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from trct_monai import __version__
from trct_monai.baselines.fitting import fit_baseline
from trct_monai.evaluation.cohort import Options, digest_of_voxels
from trct_monai.evaluation.predictions import load_truth
from trct_monai.evaluation.scores import Views
from trct_monai.geometry.camera import Camera
from trct_monai.intensity import hu_to_unit
from trct_monai.io.datalist import load_datalist, read_datalist
from trct_monai.io.files import read_json, write_json
from trct_monai.io.provenance import digest_file, digest_values
from trct_monai.transforms.save import SaveCTd, UnitToHUd

NOTE = "made_from.json"
"""Beside predictions that were run here: what they were made from."""


def run_baseline(name: str, options: Options, place: Path) -> None:
    """Fit a baseline on the training section and write its predictions as NIfTI, unless they are there.

    Args:
        name: A key of `BASELINES`.
        options: The datalist and the section.
        place: Folder of the predictions.

    Raises:
        ValueError: If the cases' views differ: a baseline has one geometry.
    """
    cases = options.cases()
    page = read_datalist(options.datalist)
    training, validation = (
        load_datalist(options.datalist, other) if page.get(other) else [] for other in ("training", "validation")
    )
    everything = [*training, *validation, *cases]
    inputs = digest_values(
        [__version__, name, options.size, options.hu_window, [_identity(case) for case in everything]]
    )
    if _is_done(place, inputs, cases):
        return
    if any(case.get("cameras") != cases[0]["cameras"] for case in everything):
        raise ValueError(
            f"{options.datalist}: its cases have different views, and a baseline has one geometry; use --baselines none"
        )
    truth = load_truth(cases[0], options.size)
    extent = float(truth.pixdim[0]) * truth.shape[-1]
    print(f"fitting {name} to {len(training)} cases")
    baseline = fit_baseline(
        name,
        LoadedCases(training, options),
        LoadedCases(validation, options),
        volume_size=truth.shape[-1],
        geometry=[Camera.from_dict(camera) for camera in cases[0]["cameras"]],
        extent=extent,
    )
    to_hu, save = UnitToHUd("pred", options.hu_window, extent), SaveCTd("pred", place)
    for case in tqdm(cases, desc=f"{name}: reconstruct", unit="case"):
        with torch.no_grad():
            unit = baseline(Views(case).radiographs[None])[0]
        save(to_hu({"pred": unit, "label": case["label"], "case_id": case["case_id"]}))
    _note(place, inputs)


def run_bundle(name: str, config: Sequence[Path], weights: Path, options: Options, place: Path) -> None:
    """Run a bundle's inference on the section, unless its predictions are there.

    Args:
        name: What it is called.
        config: inference.json and its overlays.
        weights: The trained model.
        options: The datalist and the section.
        place: Folder of the predictions.

    Raises:
        ValueError: If the bundle fails.
    """
    cases = options.cases()
    identities = [_identity(case) for case in cases]
    made_of = [digest_file(path) for path in (*config, *sorted(weights.parent.rglob("*.pt")))]
    inputs = digest_values([__version__, made_of, identities])
    if _is_done(place, inputs, cases):
        return
    print(f"running {name} with {weights}")
    arguments = {"datalist": options.datalist, "section": options.section, "output_dir": place, "ckpt_path": weights}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(path) for path in config])]
    command += [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"{name} failed, see above; try it alone: {' '.join(command[1:])}")
    _note(place, inputs)


class LoadedCases:
    """Cases as baselines learn from them: ``image`` (V, H, W), ``label`` (1, X, Y, Z) in [0, 1], read when asked for.

    Args:
        cases: Cases of `load_datalist`.
        options: Whose size and window.
    """

    def __init__(self, cases: Sequence[dict[str, Any]], options: Options) -> None:
        self.cases, self.options = cases, options

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        case = self.cases[index]
        truth = load_truth(case, self.options.size).as_subclass(torch.Tensor)
        return {"image": Views(case).radiographs, "label": hu_to_unit(truth, self.options.hu_window)}


def _identity(case: Mapping[str, Any]) -> list[Any]:
    """What a case is, whatever its files are called."""
    return [case["case_id"], digest_of_voxels(case), case.get("sha256"), case.get("cameras"), case.get("orientation")]


def _is_done(place: Path, inputs: str, cases: Sequence[Mapping[str, Any]]) -> bool:
    note = place / NOTE
    known = note.is_file() and read_json(note).get("inputs") == inputs
    return known and all((place / f"{case['case_id']}.nii.gz").is_file() for case in cases)


def _note(place: Path, inputs: str) -> None:
    write_json(place / NOTE, {"inputs": inputs})
