"""Run a baseline or a bundle on a section, unless its predictions are there."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from trct_monai import __version__
from trct_monai.baselines.fitting import fit_baseline
from trct_monai.evaluation.driver import digest_case
from trct_monai.evaluation.options import EvaluationOptions
from trct_monai.evaluation.predictions import load_truth
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.geometry.camera import Camera
from trct_monai.intensity import hu_to_unit
from trct_monai.io.files import write_json
from trct_monai.io.provenance import STAMP, Stamp, digest_file, is_made_from, make_stamp
from trct_monai.transforms.save import SaveCTd, UnitToHUd

RECORD = "made_from.json"
"""Beside predictions that were made here: their stamp."""


def run_baseline(name: str, options: EvaluationOptions, folder: Path) -> None:
    """Fit a baseline on the training section and write its predictions as NIfTI, unless they are there.

    Args:
        name: A key of `BASELINES`.
        options: The datalist and the section.
        folder: Folder of the predictions.

    Raises:
        ValueError: If the cases' views differ: a baseline has one geometry.
    """
    cases = options.cases()
    training, validation = (options.cases_to_learn_from(section) for section in ("training", "validation"))
    sections = {"training": training, "validation": validation, "scored": cases}
    stamp = make_stamp(
        {section: [digest_case(case) for case in members] for section, members in sections.items()},
        {"baseline": name, "size": options.size, "hu_window": options.hu_window, "software": __version__},
    )
    if _is_done(folder, stamp, cases):
        return
    if not cases[0].get("cameras"):
        raise ValueError(
            f"{options.datalist}: its cases have no cameras, which baselines need; run prepare, or use --baselines none"
        )
    if any(case.get("cameras") != cases[0].get("cameras") for members in sections.values() for case in members):
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
    _forget(folder)
    to_hu, save = UnitToHUd("pred", options.hu_window, extent), SaveCTd("pred", folder)
    for case in tqdm(cases, desc=f"{name}: reconstruct", unit="case"):
        with torch.no_grad():
            unit = baseline(CaseRadiographs(case).images[None])[0]
        save(to_hu({"pred": unit, "label": case["label"], "case_id": case["case_id"]}))
    write_json(folder / RECORD, {STAMP: stamp})


def run_bundle(name: str, config: Sequence[Path], weights: Path, options: EvaluationOptions, folder: Path) -> None:
    """Run a bundle's inference on the section, unless its predictions are there.

    Args:
        name: What it is called.
        config: inference.json and its overlays.
        weights: The trained model.
        options: The datalist and the section.
        folder: Folder of the predictions.

    Raises:
        ValueError: If the bundle fails.
    """
    cases = options.cases()
    files = {"config": config, "weights": sorted(weights.parent.rglob("*.pt"))}
    inputs = {kind: [digest_file(path) for path in paths] for kind, paths in files.items()}
    stamp = make_stamp(inputs | {"scored": [digest_case(case) for case in cases]}, {"software": __version__})
    if _is_done(folder, stamp, cases):
        return
    print(f"running {name} with {weights}")
    _forget(folder)
    arguments = {"datalist": options.datalist, "section": options.section, "output_dir": folder, "ckpt_path": weights}
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str([str(path) for path in config])]
    command += [text for key, value in arguments.items() for text in (f"--{key}", str(value))]
    if subprocess.run(command, check=False).returncode:
        raise ValueError(f"{name} failed, see above; try it alone: {shlex.join(['python', *command[1:]])}")
    write_json(folder / RECORD, {STAMP: stamp})


class LoadedCases:
    """Cases as baselines learn from them: ``image`` (V, H, W), ``label`` (1, X, Y, Z) in [0, 1], read when asked for.

    Args:
        cases: Cases of `load_datalist`.
        options: Size and window.
    """

    def __init__(self, cases: Sequence[dict[str, Any]], options: EvaluationOptions) -> None:
        self.cases, self.options = cases, options

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        case = self.cases[index]
        truth = load_truth(case, self.options.size).as_subclass(torch.Tensor)
        return {"image": CaseRadiographs(case).images, "label": hu_to_unit(truth, self.options.hu_window)}


def _is_done(folder: Path, stamp: Stamp, cases: Sequence[Mapping[str, Any]]) -> bool:
    return is_made_from(folder / RECORD, stamp) and all(
        (folder / f"{case['case_id']}.nii.gz").is_file() for case in cases
    )


def _forget(folder: Path) -> None:
    """Remove the stamp before the first prediction is replaced: a run that is killed leaves some of both kinds."""
    (folder / RECORD).unlink(missing_ok=True)
