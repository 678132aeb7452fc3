"""Run a baseline or a bundle on a section, unless its predictions are there."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cached_property
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


class FittedBaseline:
    """A baseline that learns from one datalist and reconstructs sections of any, fitted when the first one needs it.

    Args:
        name: A key of `BASELINES`.
        options: The datalist that it learns from, and the section whose first case gives size and views.
    """

    def __init__(self, name: str, options: EvaluationOptions) -> None:
        self.name, self.options = name, options

    @cached_property
    def sections(self) -> dict[str, list[dict[str, Any]]]:
        """The cases to learn from."""
        return {section: self.options.cases_to_learn_from(section) for section in ("training", "validation")}

    @cached_property
    def digests(self) -> dict[str, list[dict[str, Any]]]:
        """The same cases for a stamp."""
        return {section: [digest_case(case) for case in members] for section, members in self.sections.items()}

    @cached_property
    def extent(self) -> float:
        """Side of the volumes in mm."""
        truth = load_truth(self.options.cases()[0], self.options.size)
        return float(truth.pixdim[0]) * int(truth.shape[-1])

    @cached_property
    def network(self) -> torch.nn.Module:
        """The fitted baseline: radiographs (B, V, H, W) to volumes (B, 1, X, Y, Z) in [0, 1]."""
        case, options = self.options.cases()[0], self.options
        print(f"fitting {self.name} to {len(self.sections['training'])} cases")
        return fit_baseline(
            self.name,
            LoadedCases(self.sections["training"], options),
            LoadedCases(self.sections["validation"], options),
            volume_size=load_truth(case, options.size).shape[-1],
            geometry=[Camera.from_dict(camera) for camera in case["cameras"]],
            extent=self.extent,
        )

    def run(self, options: EvaluationOptions, folder: Path) -> None:
        """Write its predictions of a section as NIfTI, unless they are there.

        Args:
            options: The datalist and the section; its views are those of the cases to learn from.
            folder: Folder of the predictions.

        Raises:
            ValueError: If the cases' views differ: a baseline has one geometry.
        """
        cases = options.cases()
        stamp = make_stamp(
            {**self.digests, "scored": [digest_case(case) for case in cases]},
            {"baseline": self.name, "size": options.size, "hu_window": options.hu_window, "software": __version__},
        )
        if _is_done(folder, stamp, cases):
            return
        views = self.options.cases()[0].get("cameras")
        if not views:
            raise ValueError(
                f"{options.datalist}: its cases have no cameras, which baselines need; run prepare, or use --baselines "
                "none"
            )
        members = [case for section in (*self.sections.values(), cases) for case in section]
        if any(case.get("cameras") != views for case in members):
            raise ValueError(
                f"{options.datalist}: its cases have different views, and a baseline has one geometry; use --baselines "
                "none"
            )
        network = self.network
        _forget(folder)
        to_hu, save = UnitToHUd("pred", options.hu_window, self.extent), SaveCTd("pred", folder)
        for case in tqdm(cases, desc=f"{self.name}: reconstruct", unit="case"):
            with torch.no_grad():
                unit = network(CaseRadiographs(case).images[None])[0]
            save(to_hu({"pred": unit, "label": case["label"], "case_id": case["case_id"]}))
        write_json(folder / RECORD, {STAMP: stamp})


def run_baseline(name: str, options: EvaluationOptions, folder: Path) -> None:
    """Fit a baseline on the training section and write its predictions of the scored one, unless they are there.

    Args:
        name: A key of `BASELINES`.
        options: The datalist and the section.
        folder: Folder of the predictions.

    Raises:
        ValueError: If the cases' views differ: a baseline has one geometry.
    """
    FittedBaseline(name, options).run(options, folder)


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
